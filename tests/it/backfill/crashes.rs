//! Kills at named points: no row is lost, none changes its id, and the books balance.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::Bench;
use super::Kept;
use super::ids;
use super::reads;
use crate::support::program::Program;
use crate::support::service::AMPLE;
use crate::support::service::Service;

const ROWS: i64 = 400;

/// How long a process may take to come to its place.
const REACH: Duration = Duration::from_secs(10);

/// Where a process ends, one after the other.
const DEATHS: [&str; 9] = [
    "backfilling@1",
    "backfilling@30",
    "answered@30",
    "before_commit@3",
    "flushed@2",
    "commit_sent@3",
    "post_sent@40",
    "flushed@5",
    "before_commit@6",
];

#[tokio::test]
async fn kills_lose_no_row_and_change_no_id() {
    let mut bench = Bench::start(u32::try_from(ROWS).unwrap()).await;
    let id = bench.order(json!({ "tables": ["public.items"], "rate": 40 })).await;
    bench.service.program.kill();
    bench.service.program.wait(AMPLE).await;
    for (number, death) in DEATHS.into_iter().enumerate() {
        let mut program = Program::start(&["run"], &bench.toml, &[("WALHOOK_FAILPOINT", death)]);
        program.wait_for_line("the HTTP surface is up", AMPLE).await;
        let write = format!(
            "UPDATE items SET version = version + 1 WHERE id % 40 = {number}; \
             UPDATE items SET version = version + 1 WHERE id = {}",
            ROWS - i64::try_from(number).unwrap()
        );
        bench.sql.batch_execute(&write).await.unwrap();
        // Whether the place is met depends on how far it is; if not, it is killed where it is.
        match timeout(REACH, program.wait(AMPLE)).await {
            Ok(code) => assert_eq!(code, None, "{death}: {}", program.output().join("\n")),
            Err(_not_reached) => {
                program.kill();
                program.wait(AMPLE).await;
            }
        }
        // So many starts with a chunk in hand may have stopped it.
        let resume =
            "UPDATE walhook.backfills SET state = 'running', tries = 0 WHERE state = 'paused'";
        bench.sql.batch_execute(resume).await.unwrap();
    }
    bench.service = Service::start(&bench.toml).await;
    assert_eq!(bench.done(id).await["state"], "done");
    bench.drained().await;
    let requests = bench.receiver.requests();
    let found = ids(&reads(&requests));
    assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), (1..=ROWS).collect());
    let mut names: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for request in requests.iter().filter(|request| request.json()["operation"] == "read") {
        let key = request.json()["data"]["id"].as_i64().unwrap();
        names.entry(key).or_default().insert(request.header("webhook-id").to_owned());
    }
    let changed: Vec<_> = names.iter().filter(|(_, names)| names.len() > 1).collect();
    assert!(changed.is_empty(), "{changed:?}");
    Kept::of(&requests).must_be(&bench.sql).await;
    bench.balanced().await;
}
