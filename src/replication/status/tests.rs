//! `replication::status`, by cases.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_tables_lack_makes_a_stream_degraded_until_it_is_mended() {
    let status = StatusHandle::default();
    status.problems(vec![String::from("a"), String::from("b")]);
    status.streaming(ServerView::default());
    status.begun();
    let reason = String::from("a (and 1 more, see /api/v1/status)");
    assert_eq!(status.readiness(Instant::now()), Err(reason.clone()));
    let view = status.view();
    assert_eq!((view.state, view.reason, view.problems.len()), ("degraded", Some(reason), 2));
    status.problems(Vec::new());
    assert_eq!(status.readiness(Instant::now()), Ok(()));
    assert_eq!(status.view().state, "streaming");
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_is_waited_for_is_a_state_of_its_own_until_it_has_come() {
    let status = StatusHandle::default();
    status.streaming(ServerView::default());
    status.begun();
    let reason = String::from("blocked by standby two");
    assert!(status.blocked(Some(reason.clone())));
    assert!(!status.blocked(Some(reason.clone())), "that is known");
    assert_eq!(status.readiness(Instant::now()), Err(reason.clone()));
    assert_eq!((status.view().state, status.view().reason), ("blocked", Some(reason)));
    assert!(status.blocked(None));
    assert_eq!(status.readiness(Instant::now()), Ok(()));
    status.blocked(Some(String::from("again")));
    status.streaming(ServerView::default());
    assert_eq!(status.view().state, "streaming", "a new connection waits for nobody yet");
}

#[tokio::test(start_paused = true)]
async fn it_stands_by_only_while_another_one_has_the_slot() {
    let status = StatusHandle::default();
    assert!(!status.is_standby(), "it has not looked yet");
    status.standby(String::from("standby: held by another"));
    assert!(!status.is_standby(), "it does not know by whom");
    status.holder(Some(SlotHolder::default()));
    assert!(status.is_standby());
    status.holder(None);
    assert!(!status.is_standby(), "the slot is free, and it may not take it");
    status.holder(Some(SlotHolder { is_self: true, ..SlotHolder::default() }));
    status.streaming(ServerView::default());
    assert!(!status.is_standby(), "it has taken over");
    status.standby(String::from("standby"));
    status.holder(Some(SlotHolder::default()));
    status.ending(String::from("SIGTERM"));
    assert!(!status.is_standby(), "it ends");
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_only_while_changes_really_flow() {
    let status = StatusHandle::default();
    assert!(status.readiness(Instant::now()).is_err(), "not connected yet");
    status.streaming(ServerView::default());
    assert!(status.readiness(Instant::now()).is_err(), "endpoints and books are not there yet");
    status.begun();
    assert_eq!(status.readiness(Instant::now()), Ok(()));
    tokio::time::advance(SILENCE_MAX + Duration::from_secs(1)).await;
    assert!(status.readiness(Instant::now()).unwrap_err().contains("36 s"));
    status.moved(Lsn::from_raw(1));
    assert_eq!(status.readiness(Instant::now()), Ok(()));
    status.waiting(String::from("lost the connection"));
    assert_eq!(status.readiness(Instant::now()), Err(String::from("lost the connection")));
    status.waiting(String::from("still away"));
    assert_eq!(status.view().reconnects, 0);
    status.streaming(ServerView::default());
    assert_eq!(status.view().reconnects, 1, "however often it was tried");
    status.ending(String::from("the slot is gone"));
    status.ending(String::from("something that follows from it"));
    status.streaming(ServerView::default());
    assert_eq!(status.readiness(Instant::now()), Err(String::from("the slot is gone")));
    assert_eq!(status.view().state, "stopping");
}
