//! `walhook demo --relay`: it ends by itself when everything has come, and leaves nothing behind, also when it is
//! killed.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::broker;
use crate::support::program::Program;

/// The demo gives itself two minutes.
const LIMIT: Duration = Duration::from_secs(180);

/// The demo with its servers' data below a directory of its own; `None` where there is no NATS server.
fn start(test: &str) -> Option<(TempDir, Program)> {
    let nats = broker::program(test)?;
    let base = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let (tmp, nats) = (base.path().to_str().unwrap(), nats.to_str().unwrap());
    let env = [("TMPDIR", tmp), ("WALHOOK_NATS_SERVER", nats)];
    let program = Program::start(&["demo", "--relay"], "", &env);
    Some((base, program))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The process ids of the members, as the demo shows them.
fn members(output: &[String]) -> Vec<String> {
    let lines = output.iter().filter_map(|line| line.split_once(", pid "));
    lines.map(|(_, rest)| rest.split(':').next().unwrap().to_owned()).collect()
}

fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is nobody any more.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn two_workers_share_one_is_killed_and_everything_comes() {
    let test = "two_workers_share_one_is_killed_and_everything_comes";
    let Some((base, mut demo)) = start(test) else { return };
    assert_eq!(demo.wait(LIMIT).await, Some(0), "{}", demo.output().join("\n"));
    let output = demo.output();
    let said = output.join("\n");
    for part in [
        "named by WALHOOK_NATS_SERVER",
        "worker 1 is killed (kill -9)",
        "worker 2 has taken over after ",
        ": it delivers for partitions 1, 2, 3, 4",
        " deliveries have come, each with a valid signature",
        "all stopped, nothing is left behind",
    ] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    // Both had a share when one was killed, and it delivered nothing afterwards.
    let of = |line: &String, name: &str| -> Option<u64> {
        line.split_once(name)?.1.split_whitespace().next()?.parse().ok()
    };
    let killed = output.iter().position(|line| line.contains("is killed (")).unwrap();
    let (before, after) = output.split_at(killed);
    let last = |lines: &[String], name: &str| lines.iter().rev().find_map(|line| of(line, name));
    let (one, two) = (last(before, "worker 1 ").unwrap(), last(before, "worker 2 ").unwrap());
    assert!(one >= 150 && two >= 150, "{said}");
    assert!(last(after, "worker 2 ").unwrap() > two, "{said}");
    assert_eq!(members(&output).len(), 3, "{said}");
    assert!(!members(&output).iter().any(|pid| runs(pid)), "{said}");
    assert_eq!(entries(base.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn killed_with_9_it_takes_its_servers_and_members_along() {
    let test = "killed_with_9_it_takes_its_servers_and_members_along";
    let Some((base, mut demo)) = start(test) else { return };
    demo.wait_for_line("The workers share them", LIMIT).await;
    let members = members(&demo.output());
    assert_eq!(members.len(), 3, "{}", demo.output().join("\n"));
    assert!(members.iter().all(|pid| runs(pid)), "{}", demo.output().join("\n"));
    // PostgreSQL, NATS, a tail and two workers.
    assert_eq!(entries(base.path()).len(), 5);
    demo.kill();
    assert_eq!(demo.wait(LIMIT).await, None);
    let deadline = Instant::now() + LIMIT;
    while members.iter().any(|pid| runs(pid)) || !entries(base.path()).is_empty() {
        assert!(Instant::now() < deadline, "still there: {members:?} {:?}", entries(base.path()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_none_is_named_and_nothing_is_started() {
    let env = [("WALHOOK_NATS_SERVER", "/nowhere/nats-server")];
    let mut demo = Program::start(&["demo", "--relay"], "", &env);
    assert_eq!(demo.wait(LIMIT).await, Some(1));
    let said = demo.output().join("\n");
    assert!(said.contains("WALHOOK_NATS_SERVER=/nowhere/nats-server cannot be used"), "{said}");
}
