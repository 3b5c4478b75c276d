//! Somebody who looks at `/metrics` all the time and checks the books each time.
#![expect(clippy::panic, reason = "a test may stop at once, and then shows what is wrong")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::service::ask;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Entries of the books that together make up what was captured.
const OUTCOMES: [&str; 5] = ["delivered", "filtered", "expired", "dead", "pending"];

/// A series: its name and its labels.
type Series = (String, BTreeMap<String, String>);

/// Looks at the books until it is dropped, whenever there is a process to look at.
pub(crate) struct Scraper {
    address: watch::Sender<Option<SocketAddr>>,
    found: Arc<Mutex<Found>>,
    _task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Found {
    scrapes: usize,
    /// Of these, those that found something pending.
    busy: usize,
    wrong: Vec<String>,
}

impl Scraper {
    pub(crate) fn start() -> Self {
        let (address, followed) = watch::channel(None);
        let found = Arc::<Mutex<Found>>::default();
        let mut task = JoinSet::new();
        task.spawn(look(followed, Arc::clone(&found)));
        Self { address, found, _task: task }
    }

    /// Looks at this process from here on; at none, if there is none.
    pub(crate) fn follow(&self, address: Option<SocketAddr>) {
        self.address.send_replace(address);
    }

    /// How many scrapes there were, and how many of them while something was pending. Panics if the
    /// books did not balance in one of them.
    pub(crate) fn balanced(&self) -> (usize, usize) {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(found.wrong.is_empty(), "of {} scrapes: {:#?}", found.scrapes, found.wrong);
        (found.scrapes, found.busy)
    }
}

async fn look(mut address: watch::Receiver<Option<SocketAddr>>, found: Arc<Mutex<Found>>) {
    loop {
        let Ok(at) = address.wait_for(Option::is_some).await.map(|at| *at) else { return };
        let Some(at) = at else { continue };
        // One that was killed meanwhile does not answer, or not to the end.
        if let Ok(reply) = ask(at, "GET", "/metrics", None).await
            && reply.status == 200
            && reply.body.contains("walhook_received_lsn ")
        {
            let series = parse(&reply.body);
            let (wrong, pending) = imbalances(&series);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.scrapes += 1;
            found.busy += usize::from(pending > 0.0);
            found.wrong.extend(wrong);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The series of a scrape that make up the books.
pub(crate) fn parse(scrape: &str) -> BTreeMap<Series, f64> {
    let books = [
        "walhook_balance",
        "walhook_deliveries_pending",
        "walhook_deliveries_total",
        "walhook_events_captured",
        "walhook_replays_total",
    ];
    let lines = scrape.lines().filter(|line| books.iter().any(|book| line.starts_with(book)));
    let series = |line: &str| -> Option<(Series, f64)> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.strip_suffix('}')?.split_once('{')?;
        let label = |label: &str| -> Option<(String, String)> {
            let (name, value) = label.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        };
        let labels = labels.split(',').filter_map(label).collect();
        Some(((name.to_owned(), labels), value.parse().ok()?))
    };
    lines.map(|line| series(line).unwrap_or_else(|| panic!("cannot read {line}"))).collect()
}

/// The sum of the series that have this name and these labels.
pub(crate) fn sum(series: &BTreeMap<Series, f64>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |of: &BTreeMap<String, String>| {
        labels.iter().all(|(name, value)| of.get(*name).is_some_and(|found| found == value))
    };
    let matching = series.iter().filter(|((found, of), _)| found == name && has(of));
    matching.map(|(_, value)| value).sum()
}

/// What is wrong with the books of a scrape, and how much is pending.
fn imbalances(series: &BTreeMap<Series, f64>) -> (Vec<String>, f64) {
    let mut wrong = Vec::new();
    let label = |name: &str| {
        let mut values: Vec<_> =
            series.keys().filter_map(|(_, labels)| labels.get(name)).map(String::as_str).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    for endpoint in label("endpoint") {
        let whose = ("endpoint", endpoint);
        for table in label("table") {
            let entry = |entry| {
                let labels = [whose, ("table", table), ("entry", entry)];
                sum(series, "walhook_balance", &labels)
            };
            let (captured, outcomes) = (entry("captured"), OUTCOMES.map(entry));
            if captured != outcomes.iter().sum::<f64>() || outcomes.iter().any(|&n| n < 0.0) {
                wrong.push(format!("{endpoint} {table}: {captured} of {outcomes:?}"));
            }
            let most = sum(series, "walhook_events_captured_total", &[("table", table)]);
            if captured > most {
                wrong.push(format!("{endpoint} {table}: {captured} captured, of {most}"));
            }
        }
        let captured = sum(series, "walhook_balance", &[whose, ("entry", "captured")])
            + sum(series, "walhook_replays_total", &[whose]);
        let settled = sum(series, "walhook_deliveries_total", &[whose]);
        let pending = ["memory", "backlog"]
            .map(|place| sum(series, "walhook_deliveries_pending", &[whose, ("where", place)]));
        if captured != settled + pending.iter().sum::<f64>() || pending.iter().any(|&n| n < 0.0) {
            wrong.push(format!("{endpoint}: {captured} of {settled} settled, {pending:?} pending"));
        }
    }
    (wrong, sum(series, "walhook_deliveries_pending", &[]))
}

#[test]
fn books_that_do_not_balance_are_found() {
    let scrape = |captured: u32, delivered: u32| {
        format!(
            "walhook_balance{{endpoint=\"a\",entry=\"captured\",table=\"t\"}} {captured}\n\
             walhook_balance{{endpoint=\"a\",entry=\"delivered\",table=\"t\"}} 3\n\
             walhook_balance{{endpoint=\"a\",entry=\"pending\",table=\"t\"}} 2\n\
             walhook_deliveries_total{{endpoint=\"a\",outcome=\"delivered\"}} {delivered}\n\
             walhook_deliveries_pending{{endpoint=\"a\",where=\"memory\"}} 2\n\
             walhook_events_captured_total{{table=\"t\"}} 5\n"
        )
    };
    assert_eq!(imbalances(&parse(&scrape(5, 3))), (Vec::new(), 2.0));
    assert_eq!(imbalances(&parse(&scrape(5, 4))).0.len(), 1);
    assert_eq!(imbalances(&parse(&scrape(6, 3))).0.len(), 3);
}
