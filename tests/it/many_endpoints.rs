//! Many endpoints: what an event costs is what its takers cost, and every endpoint's books are right.

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::scrape::Scraper;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const EVENT: &str = "[[event]]\ntype = \"item\"\ntable = \"public.item\"\n\n";

/// Endpoints `e0` to `e59` but for one, each of which takes the rows of its own number.
fn endpoints(receiver: &Receiver, without: usize) -> String {
    let one = |k: usize| {
        let url = receiver.url();
        let chosen = match k % 2 {
            0 => format!("when = \"k == {k}\""),
            _ => format!("when = \"k in [{k}, -1] && id > 0\""),
        };
        format!("[[endpoint]]\nname = \"e{k}\"\nurl = \"{url}\"\nevents = [\"item\"]\n{chosen}\n\n")
    };
    (0..60).filter(|k| *k != without).map(one).collect()
}

async fn insert(sql: &Sql, first: usize, last: usize) {
    // Each in a transaction of its own, and all of them for the endpoints 0 to 3.
    for id in first..=last {
        let insert = format!("INSERT INTO item VALUES ({id}, {})", id % 4);
        sql.batch_execute(&insert).await.expect("the row is new");
    }
}

/// The lines of the books of some endpoints.
const LINES: &str =
    "SELECT string_agg(concat_ws(' ', endpoint, captured, delivered, filtered, pending),
       ', ' ORDER BY endpoint) FROM walhook.balance WHERE endpoint IN ('e0', 'e3', 'e58', 'e59')";

#[tokio::test]
async fn an_event_costs_rows_for_its_takers_only_and_all_books_are_right() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE item (id int PRIMARY KEY, k int NOT NULL)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = configuration(&database, &format!("{EVENT}{}", endpoints(&receiver, 59)));
    let mut service = Service::start(&toml).await;
    let scraper = Scraper::start();
    scraper.follow(Some(service.http));
    insert(&sql, 1, 40).await;
    receiver.wait_for(40, AMPLE).await;
    let settled = "e0 40 10 30 0, e3 40 10 30 0, e58 40 0 40 0";
    wait_for_text(&sql, LINES, settled).await;
    let takers = "SELECT string_agg(endpoint, ' ' ORDER BY endpoint) FROM walhook.books";
    assert_eq!(sql.text(takers).await, "e0 e1 e2 e3", "nobody else has a row of its own");
    let shown = r#"walhook_balance{endpoint="e58",entry="filtered",table="public.item"}"#;
    assert_eq!(service.metric(shown).await, 40.0);
    let series = r#"walhook_deliveries_total{endpoint="e3",outcome="filtered"}"#;
    assert_eq!(service.metric(series).await, 30.0);

    // Another start, and other endpoints: one is new, and counts from here; one has gone.
    service.stop().await;
    let toml = configuration(&database, &format!("{EVENT}{}", endpoints(&receiver, 58)));
    let mut service = Service::start(&toml).await;
    scraper.follow(Some(service.http));
    assert_eq!(service.metric(series).await, 30.0);
    insert(&sql, 41, 60).await;
    receiver.wait_for(60, AMPLE).await;
    let settled = "e0 60 15 45 0, e3 60 15 45 0, e58 40 0 40 0, e59 20 0 20 0";
    wait_for_text(&sql, LINES, settled).await;
    let shown = r#"walhook_balance{endpoint="e59",entry="captured",table="public.item"}"#;
    assert_eq!(service.metric(shown).await, 20.0);
    scraper.follow(None);
    assert!(scraper.balanced().0 > 0);
    service.stop().await;
}

#[tokio::test]
async fn endpoints_of_one_host_need_no_connection_each() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE item (id int PRIMARY KEY, k int NOT NULL)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = configuration(&database, &format!("{EVENT}{}", endpoints(&receiver, 60)));
    let mut service = Service::start(&toml).await;
    for k in 0..60 {
        sql.batch_execute(&format!("INSERT INTO item VALUES ({k}, {k})")).await.unwrap();
        receiver.wait_for(k + 1, AMPLE).await;
    }
    let connections = receiver.requests().iter().map(|request| request.connection).max().unwrap();
    // One after the other: another is made where the one before has not been given back yet.
    assert!(connections <= 20, "{connections} connections");
    service.stop().await;
}
