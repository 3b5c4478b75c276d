//! What a receiver was sent, booked before it answers, and how that compares with the ledger.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once, and then shows what is wrong")]
#![expect(clippy::indexing_slicing, reason = "a missing member of a JSON value reads as null")]

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::Ledger;
use super::NAMES;
use super::Version;
use super::lock;
use crate::support::receiver::Answer;
use crate::support::receiver::Behaviour;
use crate::support::receiver::Request;

/// One event as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Which process of walhook sent it: the last part of the URL's path.
    pub(crate) life: u32,
    pub(crate) id: String,
    pub(crate) at: Version,
    pub(crate) token: String,
    /// It was answered with 200.
    pub(crate) accepted: bool,
}

/// What a receiver was sent, booked before it answers.
#[derive(Clone)]
pub(crate) struct Books {
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    /// Versions that were accepted at least once.
    accepted: Arc<watch::Sender<HashSet<Version>>>,
}

impl Books {
    pub(crate) fn new() -> Self {
        Self { arrivals: Arc::default(), accepted: Arc::new(watch::Sender::default()) }
    }

    /// Books each request, then answers as `inner` says.
    pub(crate) fn keep(&self, inner: Behaviour) -> Behaviour {
        let books = self.clone();
        Arc::new(move |request| {
            let answer = inner(request);
            books.enter(request, answer.is_status(200));
            answer
        })
    }

    fn enter(&self, request: &Request, accepted: bool) {
        let life = request.path.rsplit('/').next().unwrap_or_default().parse().unwrap();
        let (id, event) = (request.header("webhook-id"), request.json());
        let (event_type, data) = (event["type"].as_str().unwrap(), &event["data"]);
        let (name, what) = event_type.split_once('.').unwrap();
        let number = |name: &str| data[name].as_i64().unwrap();
        let at = Version {
            table: NAMES.iter().position(|known| *known == name).unwrap(),
            key: number("id"),
            version: number("version"),
            deleted: what == "deleted",
        };
        let (id, token) = (id.to_owned(), data["token"].as_str().unwrap().to_owned());
        lock(&self.arrivals).push(Arrival { life, id, at, token, accepted });
        if accepted {
            self.accepted.send_if_modified(|accepted| accepted.insert(at));
        }
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        lock(&self.arrivals).clone()
    }

    /// How many versions were accepted at least once.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.borrow().len()
    }

    /// The versions that were.
    pub(crate) fn accepted_versions(&self) -> HashSet<Version> {
        self.accepted.borrow().clone()
    }

    /// Waits until so many were; says whether they were in time.
    pub(crate) async fn accept(&self, count: usize, limit: Duration) -> bool {
        let mut accepted = self.accepted.subscribe();
        while accepted.borrow_and_update().len() < count {
            if timeout(limit, accepted.changed()).await.is_err() {
                return accepted.borrow().len() >= count;
            }
        }
        true
    }
}

/// Fails at random: half of the failures with a status, the rest without an answer.
pub(crate) fn troubled(seed: u64, probability: f64) -> Behaviour {
    let random = Mutex::new(fastrand::Rng::with_seed(seed));
    Arc::new(move |_| {
        let mut random = lock(&random);
        match random.f64() / probability {
            0.0..0.5 => Answer::status(503),
            0.5..0.75 => Answer::Close,
            0.75..1.0 => Answer::Reset,
            _ => Answer::status(200),
        }
    })
}

/// What is wrong with what arrived, and how often something came again.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Audit {
    /// Committed, and never accepted.
    pub(crate) lost: Vec<String>,
    /// Arrived, and never committed: rolled back, or changed on the way.
    pub(crate) forged: Vec<String>,
    /// Order by key is broken; see [`audit`].
    pub(crate) disordered: Vec<String>,
    /// One version with two ids, or one id for two versions.
    pub(crate) unstable: Vec<String>,
    /// Accepted, and sent again by the same process.
    pub(crate) doubled: Vec<String>,
    /// Accepted again after an earlier process had sent it: what a crash may cause.
    pub(crate) repeats: usize,
}

impl Audit {
    /// Panics with what is wrong, if anything is.
    pub(crate) fn must_be_clean(&self) {
        let parts = [&self.lost, &self.forged, &self.disordered, &self.unstable, &self.doubled];
        if parts.iter().any(|part| !part.is_empty()) {
            let [lost, forged, disordered, unstable, doubled] = parts.map(Vec::len);
            let shown: Vec<_> = parts.iter().flat_map(|part| part.iter().take(5)).collect();
            panic!(
                "{lost} lost, {forged} forged, {disordered} out of order, {unstable} with unstable \
                 ids, {doubled} sent twice by one process: {shown:#?}"
            );
        }
    }
}

/// Compares what arrived with what was committed.
///
/// The order by key is whole if
/// - a version arrives only after the one before it was accepted, whatever processes sent them: a
///   receiver that applies what it accepts never sees a gap and never applies an old version over a
///   newer one for the first time;
/// - within one process no version arrives after a later one of its key: only a crash may go back.
///
/// Arrivals are judged in the order in which they were booked. Processes are told apart by the URL
/// and not by time: what a killed process has sent may still be read after the next one's first.
pub(crate) fn audit(ledger: &Ledger, arrivals: &[Arrival]) -> Audit {
    let mut audit = Audit::default();
    let mut accepted: HashMap<Version, HashSet<u32>> = HashMap::new();
    let mut latest: HashMap<(u32, usize, i64), Version> = HashMap::new();
    let mut ids: HashMap<&str, Version> = HashMap::new();
    let mut id_of: HashMap<Version, &str> = HashMap::new();
    for arrival in arrivals {
        let Arrival { life, id, at, token, accepted: is_accepted } = arrival;
        match ledger.committed.get(at) {
            Some(committed) if committed == token => {}
            other => audit.forged.push(format!("{arrival:?}, committed by {other:?}")),
        }
        if let Some(before) = ledger.before(*at).filter(|before| !accepted.contains_key(before)) {
            audit.disordered.push(format!("{arrival:?} before {before:?}"));
        }
        let latest = latest.entry((*life, at.table, at.key)).or_insert(*at);
        if at < latest {
            audit.disordered.push(format!("{arrival:?} after {latest:?}"));
        }
        *latest = (*at).max(*latest);
        let (one, other) =
            (*ids.entry(id).or_insert(*at), *id_of.entry(*at).or_insert(id.as_str()));
        if one != *at || other != id {
            audit.unstable.push(format!("{arrival:?}, but {one:?} and {other}"));
        }
        let lives = accepted.get(at);
        if lives.is_some_and(|lives| lives.contains(life)) {
            audit.doubled.push(format!("{arrival:?}"));
        }
        if *is_accepted {
            audit.repeats += usize::from(lives.is_some());
            accepted.entry(*at).or_default().insert(*life);
        }
    }
    let lost = ledger.committed.keys().filter(|at| !accepted.contains_key(at));
    audit.lost = lost.map(|at| format!("{at:?}")).collect();
    audit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(versions: &[(i64, i64)]) -> Ledger {
        let entry = |&(key, version)| (at(key, version), String::from("t"));
        Ledger { committed: versions.iter().map(entry).collect() }
    }

    fn arrival(life: u32, key: i64, version: i64, accepted: bool) -> Arrival {
        let id = format!("evt_{key}_{version}");
        Arrival { life, id, at: at(key, version), token: String::from("t"), accepted }
    }

    fn at(key: i64, version: i64) -> Version {
        Version { table: 0, key, version, deleted: false }
    }

    /// Counts of lost, forged, disordered, unstable, doubled and repeats.
    fn counts(audit: &Audit) -> [usize; 6] {
        let Audit { lost, forged, disordered, unstable, doubled, repeats } = audit;
        [lost.len(), forged.len(), disordered.len(), unstable.len(), doubled.len(), *repeats]
    }

    #[test]
    fn the_audit_finds_each_kind_of_trouble_and_no_other() {
        let a = |version, accepted| arrival(1, 7, version, accepted);
        let b = |version, accepted| arrival(2, 7, version, accepted);
        let cases: Vec<(&str, Vec<Arrival>, [usize; 6])> = vec![
            ("in order", vec![a(1, true), a(2, true)], [0; 6]),
            ("tried again", vec![a(1, false), a(1, true), a(2, true)], [0; 6]),
            (
                "again after a crash",
                vec![a(1, true), b(1, true), a(2, true), b(2, true)],
                [0, 0, 0, 0, 0, 2],
            ),
            ("missing", vec![a(1, true)], [1, 0, 0, 0, 0, 0]),
            ("refused for ever", vec![a(1, true), a(2, false)], [1, 0, 0, 0, 0, 0]),
            ("swapped", vec![a(2, true), a(1, true)], [0, 0, 2, 0, 0, 0]),
            ("too early", vec![a(1, false), a(2, true), b(1, true)], [0, 0, 1, 0, 0, 0]),
            ("back in one life", vec![a(1, true), a(2, true), a(1, false)], [0, 0, 1, 0, 1, 0]),
            ("twice in one life", vec![a(1, true), a(1, true), a(2, true)], [0, 0, 0, 0, 1, 1]),
            (
                "another id",
                vec![a(1, true), Arrival { id: String::from("x"), ..a(2, true) }, b(2, true)],
                [0, 0, 0, 1, 0, 1],
            ),
            (
                "the same id",
                vec![a(1, true), Arrival { id: String::from("evt_7_1"), ..a(2, true) }],
                [0, 0, 0, 1, 0, 0],
            ),
            (
                "rolled back",
                vec![a(1, true), Arrival { token: String::from("u"), ..a(2, true) }],
                [0, 1, 0, 0, 0, 0],
            ),
        ];
        for (name, arrivals, expected) in cases {
            let audit = audit(&ledger(&[(7, 1), (7, 2)]), &arrivals);
            assert_eq!(counts(&audit), expected, "case: {name}: {audit:#?}");
        }
    }
}
