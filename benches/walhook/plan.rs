//! What is measured, how often and for how long.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
Measures walhook against bare clients and pg_recvlogical, on a PostgreSQL of its own.

usage: cargo bench --bench walhook -- [--runs N] [--only PART]... [--out DIR]
                                     [--binary FILE] [--small]

  --runs N       the median of N runs is shown (default 5)
  --only PART    of throughput, decode, latency, slow, endpoints, many,
                 shapes, restarts, memory, inbound, push-log, backfill, roles,
                 plots
  --out DIR      where walhook.json and the plots go (default target/bench)
  --binary FILE  another build of walhook to measure
  --small        once, with little of everything, to see that it works; its figures mean nothing
";

/// The parts in the order in which they run.
pub(crate) const PARTS: [&str; 14] = [
    "throughput",
    "decode",
    "latency",
    "slow",
    "endpoints",
    "many",
    "shapes",
    "restarts",
    "memory",
    "inbound",
    "push-log",
    "backfill",
    "roles",
    "plots",
];

/// What takes long is run so often at most.
const LONG_RUNS_MAX: usize = 3;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) runs: usize,
    pub(crate) parts: Vec<String>,
    pub(crate) out: PathBuf,
    pub(crate) binary: PathBuf,
    pub(crate) is_small: bool,
    /// Single-row transactions that wait when walhook starts.
    pub(crate) backlog: u64,
    /// Rows of a large transaction.
    pub(crate) large: u64,
    /// How long a rate is let settle before it is measured.
    pub(crate) warm_up: Duration,
    /// How long a rate is measured where there is no end.
    pub(crate) window: Duration,
    /// How long one point of a plot is measured.
    pub(crate) glance: Duration,
    /// How long the steady load of 5,000 rows per second lasts.
    pub(crate) steady: Duration,
    /// How long a receiver that takes its time is let find its number of requests in flight.
    pub(crate) ramp: Duration,
    /// Numbers of endpoints of which one takes each event.
    pub(crate) crowds: [u64; 3],
    /// Endpoints that all take the same rows, and how many of these.
    pub(crate) everybody: (u64, u64),
    /// Rows per second of many endpoints' live load, and how long it lasts.
    pub(crate) live: (u64, Duration),
    /// Rows that wait for an endpoint which is down.
    pub(crate) parked: u64,
    /// Rows of 50 kB.
    pub(crate) large_rows: u64,
    /// Rows of the backlog after which memory is looked at.
    pub(crate) flood: u64,
    /// When it is looked at.
    pub(crate) rest: Duration,
    /// Rows of a long push log.
    pub(crate) logged: u64,
    /// How long callbacks come in.
    pub(crate) callbacks: Duration,
    /// Rows that are there before, and how many are once.
    pub(crate) archived: u64,
    pub(crate) archived_long: u64,
}

impl Plan {
    /// `None` if the arguments are not understood.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut arguments = arguments.into_iter();
        let (mut runs, mut parts, mut is_small) = (None, Vec::new(), false);
        let mut out = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_walhook"));
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {} // from cargo
                "--small" => is_small = true,
                "--runs" => runs = Some(arguments.next()?.parse().ok().filter(|&runs| runs > 0)?),
                "--only" => {
                    parts.push(arguments.next().filter(|part| PARTS.contains(&part.as_str()))?)
                }
                "--binary" => binary = arguments.next()?.into(),
                "--out" => out = arguments.next()?.into(),
                _ => return None,
            }
        }
        let plan = if is_small { Self::small() } else { Self::whole() };
        Some(Self { runs: runs.unwrap_or(plan.runs), parts, out, binary, ..plan })
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|chosen| chosen == part)
    }

    /// How often a long measurement is run.
    pub(crate) fn long_runs(&self) -> usize {
        self.runs.min(LONG_RUNS_MAX)
    }

    fn whole() -> Self {
        Self {
            runs: 5,
            parts: Vec::new(),
            out: PathBuf::new(),
            binary: PathBuf::new(),
            is_small: false,
            backlog: 150_000,
            large: 100_000,
            warm_up: Duration::from_millis(200),
            window: Duration::from_secs(2),
            glance: Duration::from_secs(1),
            steady: Duration::from_secs(30),
            ramp: Duration::from_millis(1500),
            crowds: [10, 200, 2000],
            everybody: (200, 3000),
            live: (10_000, Duration::from_secs(5)),
            parked: 60_000,
            large_rows: 4_000,
            flood: 1_000_000,
            rest: Duration::from_secs(10),
            logged: 10_000_000,
            callbacks: Duration::from_secs(10),
            archived: 500_000,
            archived_long: 10_000_000,
        }
    }

    fn small() -> Self {
        Self {
            runs: 1,
            is_small: true,
            backlog: 5_000,
            large: 2_000,
            warm_up: Duration::from_millis(20),
            window: Duration::from_millis(200),
            glance: Duration::from_millis(100),
            steady: Duration::from_millis(500),
            ramp: Duration::from_millis(100),
            crowds: [2, 5, 20],
            everybody: (10, 50),
            live: (500, Duration::from_millis(400)),
            parked: 300,
            large_rows: 20,
            flood: 5_000,
            rest: Duration::from_millis(100),
            logged: 10_000,
            callbacks: Duration::from_millis(200),
            archived: 5_000,
            archived_long: 5_000,
            ..Self::whole()
        }
    }
}
