//! The state is away for longer than any lease, while the source goes on.

use std::fmt::Write as _;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::spawn_blocking;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use super::DELIVER;
use super::ENDPOINTS;
use super::TAIL;
use super::told;
use super::wait_for_all;
use super::write;
use crate::support::broker::Broker;
use crate::support::postgres::Sql;
use crate::support::postgres::processes_of;
use crate::support::postgres::signal_all;
use crate::support::postgres::start_cluster;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

const LEASE: Duration = Duration::from_secs(2);

/// How the state goes away.
#[derive(Clone, Copy, Debug)]
enum Absence {
    Frozen,
    Stopped,
    Killed,
}

/// Does to the state what is to be done, waits for `meanwhile`, and undoes it.
async fn away(
    state: SandboxCluster,
    absence: Absence,
    meanwhile: impl Future<Output = ()>,
) -> SandboxCluster {
    if matches!(absence, Absence::Frozen) {
        let processes = processes_of(&state).await;
        signal_all(&processes, Signal::STOP);
        meanwhile.await;
        signal_all(&processes, Signal::CONT);
        return state;
    }
    let end = move || {
        let mut state = state;
        match absence {
            Absence::Killed => state.kill(),
            Absence::Stopped | Absence::Frozen => state.stop().unwrap(),
        }
        state
    };
    let mut state = spawn_blocking(end).await.unwrap();
    meanwhile.await;
    spawn_blocking(move || {
        state.start_again().unwrap();
        state
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn while_the_state_is_away_nothing_is_sent_beyond_the_leases_and_then_all_goes_on() {
    let test = "while_the_state_is_away_nothing_is_sent_beyond_the_leases_and_then_all_goes_on";
    let Some(broker) = Broker::start(test).await else { return };
    let durable = || ClusterOptions { durable: true, ..ClusterOptions::default() };
    let (source, mut state) = tokio::join!(start_cluster(durable()), start_cluster(durable()));
    let sql = Sql::connect(&source.url("postgres")).await;
    let table = "CREATE TABLE orders (id int PRIMARY KEY, note text)";
    sql.batch_execute(table).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut toml = format!(
        "[postgres]\nurl = \"{}\"\nwal_sender_timeout = \"{}s\"\n\n[state]\nurl = \"{}\"\n\n\
         [http]\nlisten = \"127.0.0.1:0\"\n\n[relay]\nurl = \"{}\"\nreplicas = 1\npartitions = 4\n\n\
         [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n",
        source.url("postgres"),
        LEASE.as_secs(),
        state.url("postgres"),
        broker.url(),
    );
    for number in 0..ENDPOINTS {
        let url = receiver.url();
        write!(toml, "[[endpoint]]\nname = \"e{number}\"\nurl = \"{url}/e{number}\"\n\n").unwrap();
    }
    let mut tail = Service::start_as(TAIL, &toml).await;
    let mut workers =
        [Service::start_as(DELIVER, &toml).await, Service::start_as(DELIVER, &toml).await];
    let mut rows = 0;
    for absence in [Absence::Frozen, Absence::Stopped, Absence::Killed] {
        write(&sql, rows..rows + 10, 3).await;
        let books = Sql::connect(&state.url("postgres")).await;
        wait_for_all(&books, &receiver, rows + 10, 3).await;
        drop(books);
        state = away(state, absence, async {
            write(&sql, rows + 10..rows + 20, 3).await;
            for member in workers.iter().chain([&tail]) {
                member.wait_for_status("/ready", 503).await;
            }
            // The time of a lease itself: what was prolonged last is over by then.
            tokio::time::sleep(LEASE).await;
            let come = receiver.count();
            write(&sql, rows + 20..rows + 30, 3).await;
            tokio::time::sleep(LEASE).await;
            assert_eq!(receiver.count(), come, "{absence:?}: sent without the right to");
        })
        .await;
        rows += 30;
        let books = Sql::connect(&state.url("postgres")).await;
        wait_for_all(&books, &receiver, rows, 3).await;
        for member in workers.iter().chain([&tail]) {
            member.wait_for_status("/ready", 200).await;
        }
    }
    // What was accepted before the leases were over could not be written down: whoever has a partition afterwards
    // may send it again, and nothing else.
    for ((_, row, _), times) in told(&receiver.requests()) {
        assert!(times == 1 || row % 30 / 10 == 1, "row {row} came {times} times");
    }
    for member in workers.iter_mut().chain([&mut tail]) {
        member.program.terminate();
        assert_eq!(member.program.wait(AMPLE).await, Some(0));
    }
}
