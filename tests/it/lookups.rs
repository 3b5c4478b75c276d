//! Names that are looked up for ever: who is called by another name does not notice.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::preload::Preload;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const HANGING: usize = 200;
const ROWS: usize = 300;

/// Threads that block, beside those of the runtime.
fn threads_of(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/task")).unwrap().count()
}

#[tokio::test]
async fn names_that_hang_hold_up_nobody_else_and_have_their_threads_counted() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let well = receiver.url().replace("127.0.0.1", "localhost");
    let mut rest = format!(
        "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n\
         [[endpoint]]\nname = \"well\"\nurl = \"{well}\"\n"
    );
    for number in 0..HANGING {
        rest.push_str(&format!(
            "[[endpoint]]\nname = \"e{number}\"\nurl = \"http://hanging{number}.example.com/\"\n"
        ));
    }
    let preload = Preload::build();
    let environment = preload.environment();
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut service = Service::start_with(&configuration(&database, &rest), &environment).await;
    let mut most = 0;
    for row in 1..=ROWS {
        sql.batch_execute(&format!("INSERT INTO orders VALUES ({row})")).await.unwrap();
        receiver.wait_for(row, AMPLE).await;
        most = most.max(threads_of(service.program.id()));
    }
    // Far from the 512 that would leave none to those who are well.
    assert!((32..400).contains(&most), "{most} threads");
    // None of them has spent an attempt: nobody was reached.
    wait_for_text(&sql, "SELECT sum(delivered) FROM walhook.balance", &ROWS.to_string()).await;
    assert_eq!(sql.text("SELECT count(*) FROM walhook.dead_letters").await, "0");
    // And why is said, of each of them.
    let deadline = std::time::Instant::now() + AMPLE;
    let why = "dns: no name server has answered in time";
    while service.get("/api/v1/status").await.body.matches(why).count() < HANGING {
        assert!(std::time::Instant::now() < deadline, "{}", service.program.output().join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    service.stop().await;
}
