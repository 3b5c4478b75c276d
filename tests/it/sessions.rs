//! Sessions to PostgreSQL that go wrong under a walhook that keeps running: it waits, names what is
//! wrong, and goes on when it is right again.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod dropped;
mod network;
mod passwords;
mod row_security;
mod state;

use walhook::testing::sandbox::cluster::SandboxCluster;

use crate::support::postgres::Sql;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text)";

/// A configuration for events of `orders`, over this URL; `state` is the text of `[state]`.
fn toml(url: &str, state: &str, receiver: &Receiver) -> String {
    format!(
        "[postgres]\nurl = {url}\n\n{state}\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
         [[event]]\ntype = \"order\"\ntable = \"orders\"\n\n[webhook]\nurls = [\"{}\"]\n",
        receiver.url()
    )
}

fn quoted(url: &str) -> String {
    format!("\"{url}\"")
}

/// The same URL over another port.
fn by_way_of(cluster: &SandboxCluster, port: u16) -> String {
    cluster.url("postgres").replace(&format!(":{}/", cluster.port()), &format!(":{port}/"))
}

fn taking() -> Receiver {
    Receiver::start(always(Answer::status(200)))
}

async fn insert(cluster: &SandboxCluster, id: i64) {
    let sql = Sql::connect(&cluster.url("postgres")).await;
    sql.batch_execute(&format!("INSERT INTO orders VALUES ({id})")).await.unwrap();
}

/// Waits until `/ready` is 503 and says `part`.
async fn wait_until_named(service: &Service, part: &str) -> String {
    let deadline = std::time::Instant::now() + AMPLE;
    loop {
        let reply = service.get("/ready").await;
        let said = reply.body.contains(part);
        if reply.status == 503 && said {
            return reply.body;
        }
        let log = || service.program.output().join("\n");
        assert!(std::time::Instant::now() < deadline, "{part}: {reply:?}\n{}", log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
