//! SIGHUP at a member: nothing of a new configuration holds at one of them alone, and what differs is named.

use super::DELIVER;
use super::ENDPOINTS;
use super::TAIL;
use super::prepared;
use super::shared_with;
use super::wait_for_all;
use super::write;
use crate::reload::reload;
use crate::support::broker::Broker;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// What a member says of a file that is another one.
fn assert_refused(said: &str) {
    for part in [
        "endpoint e8 is added",
        "endpoint e1 is changed",
        "endpoint e7 is removed",
        "[memory] is changed",
        "configuration is not reloaded",
        "docs/scale.md",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
}

fn at(receiver: &Receiver, path: &str) -> usize {
    receiver.requests().iter().filter(|request| request.path.ends_with(path)).count()
}

#[tokio::test]
async fn a_member_takes_nothing_of_another_file_before_it_is_restarted_and_names_what_differs() {
    let test = "a_member_takes_nothing_of_another_file_before_it_is_restarted";
    let Some(broker) = Broker::start(test).await else { return };
    let database = prepared().await;
    let sql = database.sql().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let relay = "replicas = 1\npatience = \"1s\"";
    let toml = shared_with(&database, &receiver, &format!("\"{}\"", broker.url()), relay);
    let (e7, e8) = (ENDPOINTS - 1, ENDPOINTS);
    let other = toml.replace("/e1\"", "/elsewhere\"");
    let other = other.replace(&format!("name = \"e{e7}\""), &format!("name = \"e{e8}\""));
    let other = format!("{other}[memory]\nqueued = \"1MiB\"\n");
    let mut tail = Service::start_as(TAIL, &toml).await;
    let said = reload(&tail, &toml).await;
    assert!(said.contains("nothing to change"), "{said}");
    assert_refused(&reload(&tail, &other).await);
    assert_eq!(tail.metric("walhook_last_reload_successful").await, 0.0);

    // A tail begins anew within its process when nobody delivers, and when somebody comes: with what it began with.
    write(&sql, 0..5, 0).await;
    let parked = "SELECT count(*) FROM walhook.backlog WHERE reason = 'unowned'";
    wait_for_text(&sql, parked, &(5 * ENDPOINTS).to_string()).await;
    let mut worker = Service::start_as(DELIVER, &toml).await;
    write(&sql, 5..10, 0).await;
    wait_for_all(&sql, &receiver, 10, 0).await;
    assert_eq!((at(&receiver, "e7"), at(&receiver, "elsewhere")), (10, 0));
    assert_refused(&reload(&worker, &other).await);
    write(&sql, 10..15, 0).await;
    wait_for_all(&sql, &receiver, 15, 0).await;
    assert_eq!((at(&receiver, "e7"), at(&receiver, "elsewhere")), (15, 0));

    // So does one that stands by.
    let mut standby = Program::start(&["run", "--role", "tail"], &toml, &[]);
    standby.wait_for_line("standing by", AMPLE).await;
    std::fs::write(standby.home().join("walhook.toml"), &other).unwrap();
    standby.signal(rustix::process::Signal::HUP);
    standby.wait_for_line("configuration is not reloaded", AMPLE).await;
    assert_refused(&standby.output().join("\n"));
    standby.terminate();
    assert_eq!(standby.wait(AMPLE).await, Some(0));

    // Restarted, the workers first, they have it.
    worker.stop().await;
    let mut worker = Service::start_as(DELIVER, &other).await;
    tail.stop().await;
    let mut tail = Service::start_as(TAIL, &other).await;
    write(&sql, 15..20, 0).await;
    let delivered =
        "SELECT string_agg(delivered::text, ' ' ORDER BY endpoint) FROM walhook.balance";
    wait_for_text(&sql, delivered, "20 20 20 20 20 20 20 15 5").await;
    assert_eq!(at(&receiver, "elsewhere"), 5);
    worker.stop().await;
    tail.stop().await;
}
