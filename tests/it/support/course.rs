//! How the arrival of the last events goes, and what is known when they do not come.
//!
//! A failure of the crash suite has to be understood from the log of a machine that nobody can look at:
//! so once a second it is noted what has arrived and what walhook says of itself, and in the end which
//! versions are missing and what the backlog holds.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use super::ledger::Ledger;
use super::ledger::Version;
use super::ledger::books::Books;
use super::postgres::Sql;
use super::service::ask;

/// How often it is noted how things go.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Missing versions, and notes from the beginning and from the end, that are shown.
const SHOWN: usize = 20;

/// What is worth knowing of each endpoint.
const SERIES: [&str; 3] =
    ["walhook_deliveries_pending{", "walhook_breaker_open{", "walhook_attempts_total{"];

/// Notes when events arrive, to be shown when some do not.
#[derive(Debug)]
pub(crate) struct Course {
    started: Instant,
    noted: Option<Instant>,
    notes: Vec<String>,
    /// How much every receiver has, and since when.
    arrived: Vec<usize>,
    moved: Vec<Instant>,
}

impl Course {
    pub(crate) fn new(receivers: usize) -> Self {
        let now = Instant::now();
        let (arrived, moved) = (vec![0; receivers], vec![now; receivers]);
        Self { started: now, noted: None, notes: Vec::new(), arrived, moved }
    }

    /// Takes in how much every receiver has by now.
    pub(crate) async fn note(&mut self, arrived: Vec<usize>, http: Option<SocketAddr>) {
        let now = Instant::now();
        for ((before, after), moved) in self.arrived.iter().zip(&arrived).zip(&mut self.moved) {
            if after > before {
                *moved = now;
            }
        }
        self.arrived = arrived;
        if self.noted.is_some_and(|noted| now.duration_since(noted) < NOTE_EVERY) {
            return;
        }
        self.noted = Some(now);
        let scrape = match http {
            None => String::from("no process"),
            Some(http) => match ask(http, "GET", "/metrics", None).await {
                Ok(reply) => endpoints(&reply.body),
                Err(error) => error.to_string(),
            },
        };
        let at = self.started.elapsed().as_secs_f32();
        self.notes.push(format!("{at:5.1} s: {:?} arrived; {scrape}", self.arrived));
    }

    /// How long it has taken so far.
    pub(crate) fn took(&self) -> Duration {
        self.started.elapsed()
    }

    /// For how long nothing has arrived anywhere.
    pub(crate) fn stands_still(&self) -> Duration {
        self.moved.iter().map(Instant::elapsed).min().unwrap_or_default()
    }

    /// All notes, the first and the last if there are many.
    pub(crate) fn notes(&self) -> String {
        let cut = self.notes.len().saturating_sub(SHOWN).max(SHOWN).min(self.notes.len());
        let first = self.notes.iter().take(SHOWN);
        let last = self.notes.get(cut..).unwrap_or_default();
        first.chain(last).map(|note| format!("  {note}\n")).collect()
    }

    /// What one receiver misses.
    pub(crate) fn missing(&self, receiver: usize, books: &Books, ledger: &Ledger) -> String {
        let accepted = books.accepted_versions();
        let missing: Vec<Version> =
            ledger.committed.keys().filter(|at| !accepted.contains(at)).copied().collect();
        let arrivals = books.arrivals();
        let mut said = format!(
            "{} of {} missing, nothing came for {:?}\n",
            missing.len(),
            ledger.committed.len(),
            self.moved.get(receiver).map(Instant::elapsed).unwrap_or_default(),
        );
        for at in missing.iter().take(SHOWN) {
            // Of those that were tried, the id is known.
            let tried = arrivals.iter().rev().find(|arrival| arrival.at == *at);
            let tried = tried.map(|arrival| format!("{} by process {}", arrival.id, arrival.life));
            let tried = tried.as_deref().unwrap_or("never came");
            writeln!(said, "  {at:?}: {tried}").unwrap();
        }
        said
    }
}

/// What the state holds of deliveries that are not done: by endpoint and reason, and the oldest rows.
pub(crate) async fn state(url: &str) -> String {
    let sql = Sql::connect(url).await;
    let queries = [
        (
            "backlog",
            "SELECT concat_ws(' ', endpoint, reason, count(*), 'rows, attempts up to',
                    max(attempts), 'parked', min(parked_at)::time, 'to', max(parked_at)::time,
                    'due', min(next_attempt_at)::time, 'to', max(next_attempt_at)::time)
               FROM walhook.backlog GROUP BY endpoint, reason ORDER BY endpoint, reason",
        ),
        (
            "oldest in the backlog",
            "SELECT concat_ws(' ', endpoint, event_id, row_key, reason, attempts, next_attempt_at)
               FROM (SELECT *, row_number() OVER (PARTITION BY endpoint ORDER BY commit_lsn, ordinal)
                       FROM walhook.backlog) rows WHERE row_number <= 5",
        ),
        (
            "dead letters",
            "SELECT concat_ws(' ', endpoint, state, failure_class, count(*))
               FROM walhook.dead_letters GROUP BY endpoint, state, failure_class",
        ),
        (
            "progress and slot",
            "SELECT concat_ws(' ', 'settled', settled_lsn, settled_ordinal, 'confirmed',
                    p.confirmed_lsn, 'slot', s.active, confirmed_flush_lsn, 'now',
                    pg_current_wal_lsn(), now()::time)
               FROM walhook.progress p LEFT JOIN pg_replication_slots s ON slot_name = slot",
        ),
        ("settled ahead", "SELECT concat_ws(' ', endpoint, count(*)) FROM walhook.settled_ahead GROUP BY endpoint"),
    ];
    let mut said = String::new();
    for (name, query) in queries {
        writeln!(said, "{name}:").unwrap();
        for row in sql.query(query, &[]).await.unwrap() {
            writeln!(said, "  {}", row.get::<_, String>(0)).unwrap();
        }
    }
    said
}

/// What a scrape says of the endpoints, in one line.
fn endpoints(scrape: &str) -> String {
    let wanted =
        |line: &&str| SERIES.iter().any(|series| line.starts_with(series)) && !line.ends_with(" 0");
    let short = |line: &str| line.trim_start_matches("walhook_").replace(['"'], "");
    scrape.lines().filter(wanted).map(short).collect::<Vec<_>>().join(", ")
}
