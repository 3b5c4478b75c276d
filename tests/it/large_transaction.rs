//! A crash in the middle of a large transaction: PostgreSQL sends all of it again.
#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use crate::support::postgres::Database;
use crate::support::progress::reach;
use crate::support::receiver::Answer;
use crate::support::receiver::Behaviour;
use crate::support::receiver::Receiver;
use crate::support::service::Service;
use crate::support::service::configuration;

const AMPLE: Duration = Duration::from_secs(240);

const ROWS: usize = 300_000;

/// How many have arrived when walhook is killed.
const KILLED_AT: usize = 100_000;

#[tokio::test]
async fn what_was_flushed_of_a_large_transaction_is_not_repeated_after_a_kill() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE item (id bigint PRIMARY KEY)").await.unwrap();
    let times = Arc::new(Mutex::new(vec![0_u8; ROWS]));
    let distinct = Arc::new(watch::Sender::new(0));
    let behaviour: Behaviour = Arc::new({
        let (times, distinct) = (Arc::clone(&times), Arc::clone(&distinct));
        move |request| {
            let mut times = times.lock().unwrap();
            let mut first = 0;
            for item in request.json().as_array().unwrap() {
                let id = usize::try_from(item["data"]["id"].as_u64().unwrap()).unwrap();
                times[id] += 1;
                first += usize::from(times[id] == 1);
            }
            distinct.send_modify(|count| *count += first);
            Answer::status(200)
        }
    });
    let receiver = Receiver::start_forgetful(behaviour);
    let toml = configuration(
        &database,
        &format!(
            "[webhook]\nurls = [\"{}\"]\nbatch_size = 100\nconcurrent_pushers = 8\n\n\
             [[event]]\ntype = \"item\"\ntable = \"public.item\"\non = [\"insert\"]\n",
            receiver.url()
        ),
    )
    .replace("walhook=debug", "walhook=info");
    let service = Service::start(&toml).await;
    let insert = format!("INSERT INTO item SELECT generate_series(0, {})", ROWS - 1);
    sql.batch_execute(&insert).await.unwrap();
    assert!(reach(distinct.subscribe(), KILLED_AT, AMPLE).await, "{}", *distinct.borrow());
    let mut program = service.program;
    program.kill();
    program.wait(AMPLE).await;
    let at_kill = *distinct.borrow();
    let flushed = sql.text("SELECT string_agg(row_key, ',') FROM walhook.push_log").await;
    let flushed: Vec<usize> = flushed.split(',').map(|id| id.parse().unwrap()).collect();
    assert!(!flushed.is_empty() && at_kill < ROWS, "{} flushed, {at_kill} arrived", flushed.len());

    let mut service = Service::start(&toml).await;
    assert!(reach(distinct.subscribe(), ROWS, AMPLE).await, "{}", *distinct.borrow());
    service.stop().await;
    let times = times.lock().unwrap();
    let repeats: usize = times.iter().map(|&times| usize::from(times) - 1).sum();
    println!("killed at {at_kill}, {} of them flushed; {repeats} came twice", flushed.len());
    assert!(flushed.iter().all(|&id| times[id] == 1), "what was flushed came again");
    assert!(repeats <= at_kill - flushed.len(), "{repeats}");
}
