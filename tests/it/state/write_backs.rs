//! The table of write-backs: complete once, whatever the flushes, and mended by a resend.

use std::sync::Arc;

use walhook::testing::flow::relation::TableName;
use walhook::testing::flow::write_back::TargetRow;
use walhook::testing::store::dead_letters::DeadLetterId;
use walhook::testing::store::flush::StateFlush;
use walhook::testing::store::resend::EndedLetter;
use walhook::testing::store::resend::ResentLetter;
use walhook::testing::store::write_backs::OutcomeTally;

use super::HOSTILE;
use super::NOW;
use super::State;
use super::event;
use super::letter;

fn tally(key: &str, owed: Option<u32>, delivered: u32, failed: u32) -> OutcomeTally {
    let event = event(200, 0, key);
    let value = |text: &str| Some(text.to_owned());
    let target = owed.map(|owed| TargetRow {
        key: vec!["id".into()],
        values: vec![("id".into(), value(HOSTILE)), ("status".into(), None)],
        owed,
    });
    OutcomeTally {
        event: event.id,
        event_type: event.event_type,
        table: Arc::new(TableName::new("public", "tasks")),
        target,
        delivered,
        failed,
    }
}

fn flush(tally: OutcomeTally) -> StateFlush {
    StateFlush { write_backs: vec![tally], ..StateFlush::default() }
}

const ROW: &str = "SELECT concat_ws(' ', owed, delivered, failed,
                          CASE WHEN due_at IS NULL THEN 'open' ELSE 'due' END)
                     FROM walhook.write_backs";

#[tokio::test]
async fn an_event_is_due_when_each_endpoint_has_an_outcome() {
    let mut state = State::create().await;
    // In memory, parked, and read back from the backlog by another walhook.
    let steps = [
        (tally("a", Some(3), 1, 0), "3 1 0 open"),
        (tally("a", Some(3), 0, 0), "3 1 0 open"),
        (tally("a", None, 0, 1), "3 1 1 open"),
        (tally("a", None, 1, 0), "3 2 1 due"),
    ];
    for (tally, expected) in steps {
        state.commit(&flush(tally)).await;
        assert_eq!(state.text(ROW).await, expected);
    }
    let value = "SELECT target->'values'->>'id' FROM walhook.write_backs";
    assert_eq!(state.text(value).await, HOSTILE);
}

#[tokio::test]
async fn all_outcomes_in_one_flush_are_due_at_once_and_strangers_are_not_counted() {
    let mut state = State::create().await;
    state.commit(&flush(tally("a", None, 1, 0))).await;
    assert_eq!(state.text("SELECT count(*) FROM walhook.write_backs").await, "0");
    state.commit(&flush(tally("a", Some(2), 2, 0))).await;
    assert_eq!(state.text(ROW).await, "2 2 0 due");
}

#[tokio::test]
async fn a_dead_letter_that_is_delivered_after_all_makes_the_event_due_again() {
    let mut state = State::create().await;
    let letters = ["crm", "erp"].map(|endpoint| letter(event(200, 0, "a"), endpoint));
    let dead = letters.to_vec();
    state.commit(&StateFlush { dead, ..flush(tally("a", Some(3), 1, 2)) }).await;
    let sql = state.sql().await;
    sql.batch_execute("UPDATE walhook.write_backs SET written = 'failed', due_at = NULL")
        .await
        .unwrap();
    for (endpoint, expected) in [("crm", "3 2 1 open"), ("erp", "3 3 0 due")] {
        let id = format!(
            "UPDATE walhook.dead_letters SET state = 'resending'
                           WHERE endpoint = '{endpoint}' RETURNING id"
        );
        let id: i64 = sql.query_one(&id, &[]).await.unwrap().get(0);
        let resent =
            ResentLetter { letter: DeadLetterId(id), ended: EndedLetter::Delivered, at: NOW };
        state.commit(&StateFlush { resent: vec![resent], ..StateFlush::default() }).await;
        assert_eq!(state.text(ROW).await, expected, "{endpoint}");
        // The same news twice changes nothing.
        let expired = ResentLetter { ended: EndedLetter::Expired, ..resent };
        state.commit(&StateFlush { resent: vec![expired], ..StateFlush::default() }).await;
        assert_eq!(state.text(ROW).await, expected, "{endpoint}");
    }
}
