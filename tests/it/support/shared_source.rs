//! What a crash test of several processes is made of: a cluster, three nodes of the broker, two tails of which one
//! stands by, three workers; and, as in [`super::scenario`], writers that keep a ledger and receivers that book every
//! request before they answer.
//!
//! ```text
//! member ─ relay of its own ─▶ PostgreSQL
//!    └──── relay of each node ─▶ broker
//! ```
//!
//! What holds in the end is said by [`SharedSource::settle`].
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once, and then shows what the members said")]

mod outcome;

use std::num::NonZeroU16;
use std::ops::Range;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use tokio::task::spawn_blocking;
use walhook::testing::flow::partition::PartitionNumber;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use super::broker::Broker;
use super::ledger::EVENT;
use super::ledger::TABLES;
use super::ledger::Writers;
use super::ledger::books::Books;
use super::ledger::books::troubled;
use super::postgres::Sql;
use super::postgres::processes_of;
use super::postgres::signal_all;
use super::postgres::start_cluster;
use super::program::Program;
use super::receiver::Answer;
use super::receiver::Behaviour;
use super::receiver::Receiver;
use super::receiver::always;
use super::relay::Relay;
use super::service::AMPLE;

/// The members, by number: tails first.
pub(crate) const TAILS: Range<usize> = 0..2;
pub(crate) const WORKERS: Range<usize> = 2..5;

/// An endpoint for each; every worker owns two.
const PARTITIONS: NonZeroU16 = NonZeroU16::new(6).unwrap();

/// A lease as long as `wal_sender_timeout`, so that a takeover does not take longer than a test can wait for.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// What PostgreSQL's keepalives take to find out that a session is dead. The real ones take 25 s, as walhook asks.
const KEEPALIVES: Duration = Duration::from_secs(6);

/// Of the endpoints, one answers late, and one fails now and then.
const LATE: usize = 1;
const LATE_BY: Duration = Duration::from_millis(30);
const TROUBLED: usize = 2;
const TROUBLE: f64 = 0.05;

/// Sessions that write, and how often each does.
const SESSIONS: usize = 2;
const PACE: Duration = Duration::from_millis(100);

/// So long nothing new may come to one endpoint while others get theirs: a tail that has died twice at the same place takes
/// 2,000 changes one by one, also those that one partition has settled already.
const LEFT_BEHIND_MAX: Duration = Duration::from_secs(400);

/// Between two looks at what has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Lines of each member's log that are shown, when something does not arrive.
const LOG_SHOWN: usize = 60;

/// A source that five members share, and all that stands around them.
pub(crate) struct SharedSource {
    cluster: Option<SandboxCluster>,
    url: String,
    nodes: [Broker; 3],
    to_nodes: Vec<Relay>,
    patience: &'static str,
    members: Vec<Member>,
    endpoints: Vec<TakingEndpoint>,
    writers: Option<Writers>,
    /// Members whose sessions went dead, and when PostgreSQL finds out.
    swallowed: Vec<(usize, Instant)>,
    /// Processes so far.
    lives: u32,
    /// Members that ended by themselves, to be started again.
    pub(crate) own_ends: u32,
}

/// A process, and its way to PostgreSQL.
struct Member {
    to_postgres: Relay,
    program: Program,
}

/// A receiver, and what has come to it.
struct TakingEndpoint {
    name: String,
    receiver: Receiver,
    books: Books,
}

/// A name for each partition.
fn names() -> Vec<String> {
    let mut names = vec![None; usize::from(PARTITIONS.get())];
    for number in 0.. {
        let name = format!("e{number}");
        let partition = PartitionNumber::of_endpoint(&name, PARTITIONS).raw();
        names[usize::try_from(partition).unwrap() - 1].get_or_insert(name);
        if names.iter().all(Option::is_some) {
            break;
        }
    }
    names.into_iter().flatten().collect()
}

impl SharedSource {
    /// Starts all of it, and the writing. `seed` decides what the receivers do; `patience` is that of `[relay]`.
    pub(crate) async fn start(test: &str, seed: u64, patience: &'static str) -> Option<Self> {
        let nodes = Broker::cluster(test).await?;
        let mut to_nodes = Vec::new();
        for node in &nodes {
            to_nodes.push(Relay::start(node.port()).await);
        }
        let options = ClusterOptions { durable: true, ..ClusterOptions::default() };
        let cluster = start_cluster(options.with("max_connections", "300")).await;
        let url = cluster.url("postgres");
        Sql::connect(&url).await.batch_execute(TABLES).await.unwrap();
        let endpoint = |(number, name): (usize, String)| {
            let behaviour: Behaviour = match number {
                LATE => always(Answer::status(200).after(LATE_BY)),
                TROUBLED => troubled(seed, TROUBLE),
                _ => always(Answer::status(200)),
            };
            let books = Books::new();
            let receiver = Receiver::start_forgetful(books.keep(behaviour));
            TakingEndpoint { name, receiver, books }
        };
        let endpoints = names().into_iter().enumerate().map(endpoint).collect();
        let mut source = Self {
            cluster: Some(cluster),
            url,
            nodes,
            to_nodes,
            patience,
            members: Vec::new(),
            endpoints,
            writers: None,
            swallowed: Vec::new(),
            lives: 0,
            own_ends: 0,
        };
        for number in TAILS.chain(WORKERS) {
            let port = source.cluster.as_ref().unwrap().port();
            let to_postgres = Relay::start(port).await;
            let program = source.program(number, to_postgres.port());
            source.members.push(Member { to_postgres, program });
            if number == TAILS.start {
                // The slot is there from here on: what is written before is nobody's.
                source.members[number].program.wait_for_line("walhook is running", AMPLE).await;
            }
        }
        let paced_by = source.endpoints.iter().map(|endpoint| endpoint.books.clone()).collect();
        source.writers = Some(Writers::start(&source.url, SESSIONS, PACE, paced_by));
        Some(source)
    }

    /// The next process of a member. The receivers can tell its requests by the path.
    fn program(&mut self, number: usize, postgres: u16) -> Program {
        self.lives += 1;
        let endpoint = |endpoint: &TakingEndpoint| {
            format!(
                "\n[[endpoint]]\nname = \"{}\"\nurl = \"{}/{}\"\nevents = [\"*\"]\nconcurrency = 8\n",
                endpoint.name,
                endpoint.receiver.url(),
                self.lives
            )
        };
        let endpoints: String = self.endpoints.iter().map(endpoint).collect();
        let nodes =
            self.to_nodes.iter().map(|node| format!("\"nats://127.0.0.1:{}\"", node.port()));
        let toml = format!(
            "[postgres]\nurl = \"postgres://postgres@127.0.0.1:{postgres}/postgres\"\n\
             wal_sender_timeout = \"{}s\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
             [log]\nfilter = \"walhook=info,walhook::relay=debug,walhook::app=debug,walhook::ledger=warn\"\n\n\
             [relay]\nurl = [{}]\nreplicas = 3\npartitions = {PARTITIONS}\npatience = \"{}\"\n\n\
             [webhook]\nmax_retries = 100\nretry_interval = \"5ms\"\nretry_cap = \"50ms\"\n\
             {EVENT}{endpoints}",
            LEASE.as_secs(),
            nodes.collect::<Vec<_>>().join(", "),
            self.patience,
        );
        let role = if TAILS.contains(&number) { "tail" } else { "deliver" };
        Program::start(&["run", "--role", role], &toml, &[])
    }

    /// Starts a member again that has ended.
    fn start_again(&mut self, number: usize) {
        let port = self.members[number].to_postgres.port();
        self.members[number].program = self.program(number, port);
    }

    /// The tail that has the slot, as far as its log tells.
    pub(crate) fn running_tail(&self) -> usize {
        let runs = |number: &usize| {
            let log = self.members[*number].program.output();
            log.iter().any(|line| line.contains("walhook is running"))
        };
        TAILS.into_iter().find(runs).unwrap_or(TAILS.start)
    }

    /// `kill -9`, and another process.
    pub(crate) async fn kill(&mut self, number: usize) {
        let program = &mut self.members[number].program;
        program.kill();
        program.wait(AMPLE).await;
        self.start_again(number);
    }

    /// SIGTERM, and another process.
    pub(crate) async fn stop(&mut self, number: usize) {
        let program = &mut self.members[number].program;
        program.terminate();
        let code = program.wait(AMPLE).await;
        // 1: what it had could not be brought to an end within its grace. `None`: it did not listen for SIGTERM yet.
        let has_begun = !program.output().is_empty();
        let is_end = matches!(code, Some(0 | 1)) || code.is_none() && !has_begun;
        assert!(is_end, "{code:?}\n{}", self.log(number));
        self.start_again(number);
    }

    /// SIGSTOP for so long.
    pub(crate) async fn freeze(&mut self, number: usize, time: Duration) {
        self.members[number].program.signal(Signal::STOP);
        tokio::time::sleep(time).await;
        self.members[number].program.signal(Signal::CONT);
    }

    /// `kill -9` of nodes of the broker, which are away for so long.
    pub(crate) async fn kill_nodes(&mut self, numbers: &[usize], time: Duration) {
        for number in numbers {
            self.nodes[*number].kill().await;
        }
        tokio::time::sleep(time).await;
        for number in numbers {
            self.nodes[*number].start_again().await;
        }
    }

    /// SIGSTOP of nodes of the broker for so long.
    pub(crate) async fn freeze_nodes(&mut self, numbers: &[usize], time: Duration) {
        numbers.iter().for_each(|number| self.nodes[*number].signal(Signal::STOP));
        tokio::time::sleep(time).await;
        numbers.iter().for_each(|number| self.nodes[*number].signal(Signal::CONT));
    }

    /// The connections to one node are reset.
    pub(crate) fn cut_node(&self, number: usize) {
        self.to_nodes[number].cut();
    }

    /// Ends PostgreSQL: all of its processes by `kill -9`, or without a checkpoint.
    pub(crate) async fn end_postgres(&mut self, kills: bool, time: Duration) {
        let mut cluster = self.cluster.take().unwrap();
        let started_again = spawn_blocking(move || {
            match kills {
                true => cluster.kill(),
                false => cluster.stop_immediately(),
            }
            std::thread::sleep(time);
            cluster.start_again().unwrap();
            cluster
        });
        self.cluster = Some(started_again.await.unwrap());
    }

    /// SIGSTOP of all processes of PostgreSQL for so long.
    pub(crate) async fn freeze_postgres(&mut self, time: Duration) {
        let processes = processes_of(self.cluster.as_ref().unwrap()).await;
        signal_all(&processes, Signal::STOP);
        tokio::time::sleep(time).await;
        signal_all(&processes, Signal::CONT);
    }

    /// The sessions of a member are reset.
    pub(crate) fn cut_postgres(&self, number: usize) {
        self.members[number].to_postgres.cut();
    }

    /// The sessions of a member go dead without a word. PostgreSQL keeps what they have locked until it finds out.
    pub(crate) fn swallow_postgres(&mut self, number: usize) {
        self.members[number].to_postgres.swallow();
        self.swallowed.push((number, Instant::now() + KEEPALIVES));
    }

    /// Has PostgreSQL find out about sessions that are dead.
    fn find_out(&mut self) {
        let now = Instant::now();
        for (number, _) in self.swallowed.extract_if(.., |(_, at)| *at <= now) {
            self.members[number].to_postgres.find_out();
        }
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// How many versions have been accepted by each endpoint.
    fn accepted(&self) -> Vec<usize> {
        self.endpoints.iter().map(|endpoint| endpoint.books.accepted()).collect()
    }

    /// Waits until an endpoint has accepted so many more, or all of them together. Members that have ended by
    /// themselves are started again meanwhile.
    pub(crate) async fn progress(&mut self, more: usize, endpoint: Option<usize>) {
        let count = |accepted: &[usize]| match endpoint {
            Some(endpoint) => accepted[endpoint],
            None => accepted.iter().sum(),
        };
        let goal = count(&self.accepted()) + more;
        let (mut last, mut moved, begun) = (0, Instant::now(), Instant::now());
        loop {
            self.start_those_that_ended().await;
            self.find_out();
            let accepted = self.accepted();
            if count(&accepted) >= goal {
                return;
            }
            let now = accepted.iter().sum();
            if now > last {
                (last, moved) = (now, Instant::now());
            }
            if moved.elapsed() > AMPLE || begun.elapsed() > LEFT_BEHIND_MAX {
                let which = endpoint.map(|number| self.endpoints[number].name.clone());
                panic!("nothing arrives any more, {which:?}:\n{}", self.state().await);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// As whoever supervises them: with 1 a process asks to be started again.
    async fn start_those_that_ended(&mut self) {
        for number in TAILS.chain(WORKERS) {
            if self.members[number].program.has_ended() {
                let code = self.members[number].program.wait(AMPLE).await;
                assert_eq!(code, Some(1), "{}", self.log(number));
                self.own_ends += 1;
                self.start_again(number);
            }
        }
    }

    /// The end of a member's log.
    fn log(&self, number: usize) -> String {
        let log = self.members[number].program.output();
        log.get(log.len().saturating_sub(LOG_SHOWN)..).unwrap_or_default().join("\n")
    }
}
