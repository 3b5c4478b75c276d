//! Repeats by value: not pushed within the window, also across restarts, and in the books.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;
use std::time::Duration;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLE: &str = "CREATE TABLE messages (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                         msg_id text, room int)";

fn toml(database: &Database, receiver: &Receiver, window: &str) -> String {
    let rest = format!(
        "[[event]]\ntype = \"message\"\ntable = \"public.messages\"\non = [\"insert\"]\n\
         when = \"room != 0\"\ndedupe = {{ by = [\"msg_id\", \"room\"], window = \"{window}\" }}\n\n\
         [webhook]\nurls = [\"{}\"]\nretry_interval = \"20ms\"\nmax_retries = 100\n",
        receiver.url()
    );
    configuration(database, &rest)
}

async fn started(window: &str) -> (Database, Sql, Receiver, Service, String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = toml(&database, &receiver, window);
    let service = Service::start(&toml).await;
    (database, sql, receiver, service, toml)
}

/// In a transaction of its own.
async fn say(sql: &Sql, msg_id: &str, room: i32) {
    let insert = format!("INSERT INTO messages (msg_id, room) VALUES ({msg_id}, {room})");
    sql.batch_execute(&insert).await.unwrap();
}

/// The numbers of the messages that came, in the order of their arrival.
fn arrived(receiver: &Receiver) -> Vec<i64> {
    let id = |request: &crate::support::receiver::Request| request.json()["data"]["id"].as_i64();
    receiver.requests().iter().filter_map(id).collect()
}

const BOOKS: &str = "SELECT coalesce(max(captured || ' ' || delivered || ' ' || filtered || ' ' ||
                         pending), '') FROM walhook.balance";

#[tokio::test]
async fn a_repeat_is_pushed_once_and_booked_as_filtered() {
    let (_database, sql, receiver, mut service, _) = started("10m").await;
    // A value, a repeat of it, another room, no value twice, one that the filter refuses.
    let said =
        [("'a'", 1), ("'a'", 1), ("'a'", 2), ("NULL", 1), ("NULL", 1), ("'b'", 0), ("'b'", 1)];
    for (msg_id, room) in said {
        say(&sql, msg_id, room).await;
    }
    // Also within one transaction.
    sql.batch_execute("INSERT INTO messages (msg_id, room) VALUES ('c', 1), ('c', 1), ('d', 1)")
        .await
        .unwrap();
    wait_for_text(&sql, BOOKS, "10 7 3 0").await;
    let mut ids = arrived(&receiver);
    ids.sort_unstable();
    assert_eq!(ids, [1, 3, 4, 5, 7, 8, 10]);
    let repeated = service.metric("walhook_events_repeated_total{event=\"message\"}").await;
    let filtered = service.metric("walhook_events_filtered_total{event=\"message\"}").await;
    assert_eq!((repeated, filtered), (2.0, 3.0));
    service.stop().await;
}

#[tokio::test]
async fn after_the_window_the_value_is_news_again() {
    let (_database, sql, receiver, mut service, _) = started("1s").await;
    say(&sql, "'a'", 1).await;
    say(&sql, "'a'", 1).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    say(&sql, "'a'", 1).await;
    wait_for_text(&sql, BOOKS, "3 2 1 0").await;
    assert_eq!(arrived(&receiver), [1, 3]);
    service.stop().await;
}

#[tokio::test]
async fn what_was_pushed_is_remembered_through_a_restart_and_a_kill() {
    let (_database, sql, receiver, mut service, toml) = started("10m").await;
    say(&sql, "'a'", 1).await;
    wait_for_text(&sql, BOOKS, "1 1 0 0").await;
    service.stop().await;
    say(&sql, "'a'", 1).await;
    let mut service = Service::start(&toml).await;
    say(&sql, "'b'", 1).await;
    wait_for_text(&sql, BOOKS, "3 2 1 0").await;
    service.program.kill();
    service.program.wait(AMPLE).await;
    for value in ["'a'", "'b'", "'c'"] {
        say(&sql, value, 1).await;
    }
    let mut service = Service::start(&toml).await;
    wait_for_text(&sql, BOOKS, "6 3 3 0").await;
    assert_eq!(arrived(&receiver), [1, 3, 6]);
    assert_eq!(sql.text("SELECT count(*) FROM walhook.seen_values").await, "3");
    service.stop().await;
}

#[tokio::test]
async fn an_event_that_comes_again_after_a_crash_is_no_repeat_of_itself() {
    let (_database, sql, receiver, mut service, toml) = started("10m").await;
    receiver.behave(Arc::new(|request| match request.number {
        1 => Answer::Hang,
        _ => Answer::status(200),
    }));
    // The second settles beside the first, which hangs: other keys, and its repeat is filtered.
    say(&sql, "'a'", 1).await;
    receiver.wait_for(1, AMPLE).await;
    for value in ["'b'", "'a'", "'b'"] {
        say(&sql, value, 1).await;
    }
    receiver.wait_for(2, AMPLE).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.settled_ahead", "1").await;
    service.program.kill();
    service.program.wait(AMPLE).await;
    let mut service = Service::start(&toml).await;
    wait_for_text(&sql, BOOKS, "4 2 2 0").await;
    assert_eq!(arrived(&receiver), [1, 2, 1], "the first again, the second not");
    service.stop().await;
}
