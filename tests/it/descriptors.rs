//! More endpoints than a process may have files: where the limit can be raised nobody notices, and
//! where it cannot it is walhook's own trouble and no endpoint's.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const ENDPOINTS: usize = 1_200;

/// Each has one request at a time, and none is answered before all of them are there.
async fn rows_for_all_within(limits: &[&str], suffices: bool) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let is_open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&is_open);
    let receiver = Receiver::start_forgetful(Arc::new(move |_| {
        if gate.load(Ordering::SeqCst) { Answer::status(200) } else { Answer::Hang }
    }));
    let url = receiver.url();
    let endpoint = |n: usize| {
        format!(
            "[[endpoint]]\nname = \"e{n}\"\nurl = \"{url}/{n}\"\nevents = [\"t\"]\ntimeout = \"20s\"\n"
        )
    };
    let endpoints: String = (0..ENDPOINTS).map(endpoint).collect();
    let rest = format!(
        "[[event]]\ntype = \"t\"\ntable = \"public.t\"\n\n[shutdown]\ngrace = \"1s\"\n\n{endpoints}"
    );
    let toml = configuration(&database, &rest).replace("walhook=debug", "info");
    let mut service = Service::start_within(limits, &toml).await;
    sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    if suffices {
        receiver.wait_for(ENDPOINTS, AMPLE).await;
        assert_eq!(service.get("/ready").await.status, 200);
        is_open.store(true, Ordering::SeqCst);
    } else {
        let named = service.wait_for_status("/ready", 503).await;
        assert!(named.body.contains("LimitNOFILE"), "{named:?}");
        assert!(receiver.count() < ENDPOINTS);
        is_open.store(true, Ordering::SeqCst);
    }
    // Those that hang are tried again at their timeout, the others as soon as there is room.
    let delivered = "SELECT sum(delivered) || ' ' || sum(dead) FROM walhook.balance";
    wait_for_text(&sql, delivered, &format!("{ENDPOINTS} 0")).await;
    service.wait_for_status("/ready", 200).await;
    let charged = "SELECT count(*) FROM walhook.push_log
                    WHERE http_status IS NULL AND failure_class NOT IN ('timeout', 'local')";
    assert_eq!(sql.text(charged).await, "0", "no endpoint is to blame");
    service.stop().await;
}

#[tokio::test]
async fn a_soft_limit_is_raised() {
    rows_for_all_within(&["-Sn 1024"], true).await;
}

#[tokio::test]
async fn a_hard_limit_is_named_and_charged_to_nobody() {
    rows_for_all_within(&["-Sn 1024", "-Hn 1024"], false).await;
}
