//! What a crash test is made of: a cluster, writers that keep a ledger, three receivers that book
//! every request before they answer, somebody who scrapes the metrics all the time, and one process of
//! walhook after the other.
//!
//! In the end [`CrashScenario::settle`] says what must hold: nothing lost, order by key whole, ids stable,
//! books balanced, and no more repeats than what no flush had reached.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once, and then shows what is missing")]
#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

use std::collections::HashMap;
use std::time::Duration;

use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use super::course;
use super::course::Course;
use super::ledger::EVENT;
use super::ledger::LEAD_MAX;
use super::ledger::Ledger;
use super::ledger::NAMES;
use super::ledger::TABLES;
use super::ledger::Writers;
use super::ledger::books::Books;
use super::ledger::books::audit;
use super::ledger::books::troubled;
use super::postgres::Sql;
use super::postgres::start_cluster;
use super::program::Program;
use super::receiver::Answer;
use super::receiver::Receiver;
use super::receiver::always;
use super::scrape::Scraper;
use super::service::http_address;

/// Far more than anything here takes, also on a busy machine.
pub(crate) const AMPLE: Duration = Duration::from_secs(60);

/// The receivers' names: always well; failing now and then; dead for a while, now and then.
const NAMES_OF: [&str; 3] = ["healthy", "flaky", "dying"];

/// Requests in flight at each of them.
const CONCURRENCY: usize = 8;

/// How often the flaky one fails.
const TROUBLE: f64 = 0.05;

/// Between two looks at what has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Lines of the log that are shown, when something does not arrive.
const LOG_SHOWN: usize = 100;

/// What a flush takes at most, and what may wait for the next one meanwhile: the ledger's limits.
const FLUSH_ROWS: usize = 3 * 1024;

/// A walhook, its cluster, its writers and its receivers.
pub(crate) struct CrashScenario {
    pub(crate) cluster: Option<SandboxCluster>,
    pub(crate) url: String,
    members: Vec<Member>,
    writers: Option<Writers>,
    scraper: Scraper,
    /// Processes so far.
    pub(crate) life: u32,
    /// Ends of a process that it did not know of.
    pub(crate) kills: u32,
}

struct Member {
    name: &'static str,
    receiver: Receiver,
    books: Books,
    /// Deliveries that had been accepted, and whose flush a kill has prevented.
    unflushed: usize,
    most_unflushed: usize,
}

impl CrashScenario {
    /// Starts everything but a process of walhook, which has run for a moment: from there on
    /// everything counts. `seed` decides what the flaky receiver does.
    pub(crate) async fn start(seed: u64) -> Self {
        println!("seed {seed}");
        let cluster =
            start_cluster(ClusterOptions { durable: true, ..ClusterOptions::default() }).await;
        let url = cluster.url("postgres");
        Sql::connect(&url).await.batch_execute(TABLES).await.unwrap();
        let member = |name| {
            let books = Books::new();
            let behaviour = match name {
                "flaky" => troubled(seed, TROUBLE),
                _ => always(Answer::status(200)),
            };
            let receiver = Receiver::start_forgetful(books.keep(behaviour));
            Member { name, receiver, books, unflushed: 0, most_unflushed: 0 }
        };
        let mut scenario = Self {
            cluster: Some(cluster),
            url,
            members: NAMES_OF.map(member).into(),
            writers: None,
            scraper: Scraper::start(),
            life: 0,
            kills: 0,
        };
        let mut first = scenario.run(&[]);
        first.wait_for_line("walhook is running", AMPLE).await;
        first.kill();
        first.wait(AMPLE).await;
        let always_there = scenario.members.iter().filter(|member| member.name != "dying");
        let paced_by = always_there.map(|member| member.books.clone()).collect();
        let pace = Duration::from_millis(30);
        scenario.writers = Some(Writers::start(&scenario.url, 4, pace, paced_by));
        scenario
    }

    /// The next process. The receivers can tell its requests by the path.
    pub(crate) fn run(&mut self, env: &[(&str, &str)]) -> Program {
        self.life += 1;
        let endpoint = |member: &Member| {
            format!(
                "\n[[endpoint]]\nname = \"{}\"\nurl = \"{}/{}\"\nevents = [\"*\"]\n\
                 concurrency = {CONCURRENCY}\n",
                member.name,
                member.receiver.url(),
                self.life
            )
        };
        let endpoints: String = self.members.iter().map(endpoint).collect();
        let toml = format!(
            "[postgres]\nurl = \"{}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n[webhook]\n\
             max_retries = 100\nretry_interval = \"5ms\"\nretry_cap = \"50ms\"\n\
             breaker = {{ failures = 5, cooldown = \"50ms\", cap = \"400ms\" }}\n{EVENT}{endpoints}",
            self.url
        );
        Program::start(&["run"], &toml, env)
    }

    /// Lets the third receiver die, or live again; it lives in any case if it has missed much.
    pub(crate) fn let_dying_live(&self, lives: bool) {
        for member in self.members.iter().filter(|member| member.name == "dying") {
            let lead = self.writers.as_ref().map_or(0, |writers| writers.lead(&member.books));
            let lives = lives || lead > 2 * LEAD_MAX;
            let answer = if lives { Answer::status(200) } else { Answer::Close };
            member.receiver.behave(member.books.keep(always(answer)));
        }
    }

    /// Waits until the process runs, and has its metrics scraped from then on.
    pub(crate) async fn watch(&self, program: &mut Program) {
        let line = program.wait_for_line("walhook is running", AMPLE).await;
        self.scraper.follow(Some(http_address(&line)));
    }

    /// Waits until the healthy receiver has taken so many more.
    pub(crate) async fn progress(&self, more: usize, program: &Program) {
        let books = &self.members.first().unwrap().books;
        let goal = books.accepted() + more;
        let log = || program.output().join("\n");
        assert!(books.accept(goal, AMPLE).await, "nothing arrives any more:\n{}", log());
    }

    /// Books the end of a process that was killed: what it had delivered and not written down.
    pub(crate) async fn killed(&mut self, program: &mut Program) {
        let code = program.wait(AMPLE).await;
        assert_eq!(code, None, "it ended by itself:\n{}", program.output().join("\n"));
        self.scraper.follow(None);
        self.kills += 1;
        let written = self.written().await;
        for member in &mut self.members {
            let written = written.get(member.name).copied().unwrap_or(0);
            let unflushed = member.books.accepted().saturating_sub(written);
            member.unflushed += unflushed;
            member.most_unflushed = member.most_unflushed.max(unflushed);
        }
    }

    /// What the books of the state say was delivered, by endpoint.
    async fn written(&self) -> HashMap<String, usize> {
        let sql = Sql::connect(&self.url).await;
        let query = "SELECT endpoint, sum(delivered)::bigint FROM walhook.balance GROUP BY 1";
        let rows = sql.query(query, &[]).await.unwrap();
        let number = |count: i64| usize::try_from(count).unwrap();
        rows.iter().map(|row| (row.get(0), number(row.get(1)))).collect()
    }

    /// Ends the writing, lets everything arrive, and proves what must hold. `lives`: whether
    /// PostgreSQL was left alone, so that one process never delivers twice.
    pub(crate) async fn settle(mut self, last: Option<Program>) {
        let ledger = self.writers.take().unwrap().finish().await;
        self.let_dying_live(true);
        let mut last = match last {
            Some(running) => running,
            None => {
                let mut program = self.run(&[]);
                self.watch(&mut program).await;
                program
            }
        };
        self.arrive(&ledger, &last).await;
        self.must_balance(&ledger.committed.keys().map(|at| at.table).collect::<Vec<_>>()).await;
        let (scrapes, busy) = self.scraper.balanced();
        last.terminate();
        assert_eq!(last.wait(AMPLE).await, Some(0), "{}", last.output().join("\n"));
        println!(
            "{} kills, {} committed, {scrapes} scrapes ({busy} with deliveries pending)",
            self.kills,
            ledger.committed.len()
        );
        assert!(scrapes > 0 && busy > 0, "nobody looked");
        for member in &self.members {
            let audit = audit(&ledger, &member.books.arrivals());
            println!(
                "{}: {} repeats of {} possible, at most {} from one kill",
                member.name, audit.repeats, member.unflushed, member.most_unflushed
            );
            audit.must_be_clean();
            assert!(audit.repeats <= member.unflushed, "{} repeats", member.name);
            assert!(member.most_unflushed <= CONCURRENCY + FLUSH_ROWS, "{}", member.name);
        }
    }

    /// Waits until every receiver has everything, for as long as it takes while something arrives: a busy
    /// machine is slow, and only what stands still is broken.
    async fn arrive(&self, ledger: &Ledger, last: &Program) {
        let log = last.output();
        let http = log.iter().find(|line| line.contains("walhook is running"));
        let http = http.map(|line| http_address(line));
        let mut course = Course::new(self.members.len());
        loop {
            let arrived: Vec<usize> =
                self.members.iter().map(|member| member.books.accepted()).collect();
            let is_complete = arrived.iter().all(|&count| count >= ledger.committed.len());
            course.note(arrived, http).await;
            if is_complete {
                break;
            }
            if course.stands_still() > AMPLE || course.took() > 5 * AMPLE {
                let log = last.output();
                let log = log.get(log.len().saturating_sub(LOG_SHOWN)..).unwrap_or_default();
                let missing: String = (self.members.iter().enumerate())
                    .map(|(number, member)| {
                        let missing = course.missing(number, &member.books, ledger);
                        format!("{}: {missing}", member.name)
                    })
                    .collect();
                let state = course::state(&self.url).await;
                panic!("{}\n{}{state}{missing}", log.join("\n"), course.notes());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        println!("everything was there after {:?}", course.took());
    }

    /// The state's books and the metrics agree with the ledger, once all is flushed.
    async fn must_balance(&self, tables: &[usize]) {
        let sql = Sql::connect(&self.url).await;
        let mut expected = Vec::new();
        for endpoint in NAMES_OF {
            for (table, name) in NAMES.iter().enumerate() {
                let count = tables.iter().filter(|at| **at == table).count();
                expected.push(format!("{endpoint} {name} {count} {count} 0"));
            }
        }
        expected.sort();
        let query = "SELECT concat_ws(' ', endpoint, table_name, captured, delivered, pending)
                       FROM walhook.balance ORDER BY 1";
        let deadline = std::time::Instant::now() + AMPLE;
        loop {
            let rows = sql.query(query, &[]).await.unwrap();
            let mut found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            found.sort();
            if found == expected {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{found:#?}, not {expected:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
