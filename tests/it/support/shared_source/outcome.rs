//! What must hold of a shared source in the end.

use std::fmt::Write as _;
use std::time::Instant;

use super::LOOK_EVERY;
use super::PARTITIONS;
use super::SharedSource;
use super::TAILS;
use super::WORKERS;
use crate::support::course;
use crate::support::ledger::Ledger;
use crate::support::ledger::NAMES;
use crate::support::ledger::books::Arrival;
use crate::support::ledger::books::audit;
use crate::support::postgres::Sql;
use crate::support::service::AMPLE;

impl SharedSource {
    /// All that is known where something does not arrive.
    pub(super) async fn state(&self) -> String {
        let logs =
            TAILS.chain(WORKERS).map(|number| format!("member {number}:\n{}\n", self.log(number)));
        let nodes = self.nodes.iter().map(|node| format!("node:\n{}\n", node.log()));
        let leases = "SELECT string_agg(concat_ws(' ', partition, epoch, holder, settled_lsn, settled_ordinal,
                             lease_until - clock_timestamp(), at_source, rewind), E'\\n' ORDER BY partition)
                        FROM walhook.progress";
        let sql = Sql::connect(&self.url).await;
        format!(
            "{}{}{}{}{}\n{:?} accepted",
            logs.collect::<String>(),
            nodes.collect::<String>(),
            self.streams().await,
            course::state(&self.url).await,
            sql.text(leases).await,
            self.accepted()
        )
    }

    /// What the broker says of each stream.
    async fn streams(&self) -> String {
        let mut said = String::new();
        let Ok(client) = async_nats::connect(self.nodes[0].url()).await else { return said };
        let jetstream = async_nats::jetstream::new(client);
        for number in 1..=PARTITIONS.get() {
            let stream = jetstream.get_stream(format!("WH_walhook_{number}")).await;
            match stream {
                Ok(stream) => {
                    let info = stream.cached_info();
                    let (state, leader) =
                        (&info.state, info.cluster.as_ref().and_then(|of| of.leader.clone()));
                    writeln!(
                        said,
                        "stream {number}: {} messages, {} to {}, {} consumers, leader {leader:?}",
                        state.messages,
                        state.first_sequence,
                        state.last_sequence,
                        state.consumer_count
                    )
                    .unwrap();
                }
                Err(error) => writeln!(said, "stream {number}: {error}").unwrap(),
            }
        }
        said
    }

    /// Ends the writing, lets everything arrive, and proves what must hold. Returns how many versions there were, and
    /// how often one was accepted again.
    pub(crate) async fn settle(mut self) -> (usize, usize) {
        for (_, at) in &mut self.swallowed {
            *at = Instant::now();
        }
        let ledger = self.writers.take().unwrap().finish().await;
        for number in 0..self.endpoints.len() {
            let left = ledger.committed.len().saturating_sub(self.accepted()[number]);
            self.progress(left, Some(number)).await;
        }
        self.must_balance(&ledger).await;
        self.must_be_confirmed().await;
        for number in TAILS.chain(WORKERS) {
            let program = &mut self.members[number].program;
            // Before that it does not listen for SIGTERM.
            program.wait_for_line("the HTTP surface is up", AMPLE).await;
            program.terminate();
            assert_eq!(program.wait(AMPLE).await, Some(0), "{}", self.log(number));
        }
        let mut repeats = 0;
        for endpoint in &self.endpoints {
            let audit = audit(&ledger, &by_owner(endpoint.books.arrivals()));
            audit.must_be_clean();
            repeats += audit.repeats;
        }
        (ledger.committed.len(), repeats)
    }

    /// The books of all members agree with the ledger, and no delivery was settled twice.
    async fn must_balance(&self, ledger: &Ledger) {
        let sql = Sql::connect(&self.url).await;
        let mut expected = Vec::new();
        for endpoint in &self.endpoints {
            for (table, name) in NAMES.iter().enumerate() {
                let count = ledger.committed.keys().filter(|at| at.table == table).count();
                expected.push(format!("{} {name} {count} {count} 0", endpoint.name));
            }
        }
        expected.sort();
        let books = "SELECT string_agg(line, ', ' ORDER BY line COLLATE \"C\") FROM (
                         SELECT concat_ws(' ', endpoint, table_name, sum(captured), sum(delivered),
                                sum(filtered + expired + dead + pending)) AS line
                           FROM walhook.balance GROUP BY endpoint, table_name) AS lines";
        self.wait_for(&sql, books, &expected.join(", ")).await;
        let settled = "SELECT count(*) - count(DISTINCT (endpoint, event_id)) FROM walhook.push_log
                        WHERE outcome = 'delivered'";
        assert_eq!(sql.text(settled).await, "0", "what was settled was sent again");
    }

    /// The slot moves on, over WAL of others.
    async fn must_be_confirmed(&self) {
        let sql = Sql::connect(&self.url).await;
        let end = sql.text("SELECT pg_current_wal_lsn()").await;
        sql.batch_execute("CREATE TABLE other AS SELECT n FROM generate_series(1, 20000) AS s (n)")
            .await
            .unwrap();
        let confirmed =
            format!("SELECT bool_and(confirmed_flush_lsn >= '{end}') FROM pg_replication_slots");
        self.wait_for(&sql, &confirmed, "t").await;
    }

    /// As [`super::super::postgres::wait_for_text`], and shows what the members say where it never comes.
    async fn wait_for(&self, sql: &Sql, query: &str, expected: &str) {
        let (mut last, mut changed) = (String::new(), Instant::now());
        loop {
            let text = sql.text(query).await;
            if text == expected {
                return;
            }
            if text != last {
                (last, changed) = (text, Instant::now());
            }
            if changed.elapsed() > AMPLE {
                panic!("{last}, not {expected}:\n{}", self.state().await);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// As if each had come from a process of its own: an owner that has lost a partition and takes it again goes back
/// as another process does.
fn by_owner(mut arrivals: Vec<Arrival>) -> Vec<Arrival> {
    for (number, arrival) in (0..).zip(&mut arrivals) {
        arrival.life = number;
    }
    arrivals
}
