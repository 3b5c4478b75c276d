//! Dead letters: found, sent again once, and closed with what became of them.

use std::sync::Arc;

use walhook::testing::flow::event::EventId;
use walhook::testing::flow::verdict::FailureClass;
use walhook::testing::store::books;
use walhook::testing::store::books::BookCount;
use walhook::testing::store::books::BookEntry;
use walhook::testing::store::dead_letters::DeadLetter;
use walhook::testing::store::dead_letters::DeadLetterId;
use walhook::testing::store::dead_letters::DeathClass;
use walhook::testing::store::dead_letters::LetterFilter;
use walhook::testing::store::dead_letters::LetterState;
use walhook::testing::store::dead_letters::Share;
use walhook::testing::store::dead_letters::count;
use walhook::testing::store::dead_letters::discard;
use walhook::testing::store::dead_letters::list;
use walhook::testing::store::dead_letters::purge;
use walhook::testing::store::dead_letters::sizes;
use walhook::testing::store::dead_letters::survey;
use walhook::testing::store::dead_letters::whole;
use walhook::testing::store::flush::StateFlush;
use walhook::testing::store::progress::take;
use walhook::testing::store::resend::ClaimPortion;
use walhook::testing::store::resend::ClaimedLetter;
use walhook::testing::store::resend::EndedLetter;
use walhook::testing::store::resend::ResentLetter;
use walhook::testing::store::resend::claim;
use walhook::testing::store::resend::request;
use walhook::testing::store::resend::waiting;
use walhook::testing::store::stored_event::ReplayRow;

use super::HOSTILE;
use super::SLOT;
use super::State;
use super::after;
use super::event;
use super::fields;
use super::letter;
use super::parked;
use super::sent;
use super::session;

async fn insert(state: &mut State, dead: Vec<DeadLetter>) {
    let lines = dead.iter().map(|letter| BookEntry {
        endpoint: Arc::clone(&letter.endpoint),
        table: Arc::clone(&letter.event.table),
        count: BookCount { captured: 1, dead: 1, ..BookCount::default() },
    });
    let books = lines.collect();
    state.commit(&StateFlush { dead, books, ..StateFlush::default() }).await;
}

async fn portion(state: &mut State, in_memory: &[DeadLetterId], rows: usize) -> Vec<ClaimedLetter> {
    let State { session, ownership, .. } = state;
    let portion = ClaimPortion { endpoint: None, in_memory, rows, bytes: 1 << 20 };
    claim(&mut session.client, ownership, portion).await.unwrap()
}

fn ids(claimed: &[ClaimedLetter]) -> Vec<i64> {
    claimed.iter().map(|claimed| claimed.letter.id.0).collect()
}

async fn states(state: &State) -> String {
    state.text("SELECT string_agg(state, ' ' ORDER BY id) FROM walhook.dead_letters").await
}

async fn in_books(state: &mut State) -> (i64, i64) {
    let lines = books::load(state.client(), SLOT).await.unwrap();
    lines.iter().fold((0, 0), |(dead, pending), line| {
        (dead + line.count.dead, pending + line.count.pending())
    })
}

#[tokio::test]
async fn a_letter_is_kept_whole() {
    let mut state = State::create().await;
    let written = DeadLetter {
        reason: HOSTILE.to_owned(),
        row_key: Some(HOSTILE.to_owned()),
        class: DeathClass::Poison,
        status: None,
        ..letter(event(7, 2, HOSTILE), HOSTILE)
    };
    insert(&mut state, vec![written.clone()]).await;
    let listed = list(state.client(), SLOT, &LetterFilter::default(), None, 10).await.unwrap();
    let read = whole(state.client(), SLOT, listed[0].id).await.unwrap().unwrap();
    assert_eq!(fields(&listed[0].event), fields(&written.event));
    assert_eq!(fields(&read.event), fields(&written.event));
    assert_eq!(sent(&read.event), sent(&written.event));
    assert_eq!((&*read.endpoint, &read.row_key), (HOSTILE, &written.row_key));
    assert_eq!((read.reason.as_str(), read.class.as_str()), (HOSTILE, "poison"));
    assert_eq!((read.status, read.attempts, read.resends), (None, 4, 0));
    assert_eq!(read.first_attempt, written.first_attempt);
    assert_eq!(read.last_attempt, written.last_attempt);
    assert_eq!((read.died_at, read.closed_at), (written.died_at, None));
    assert_eq!(read.state, LetterState::Dead);
    assert!(read.body_bytes as usize > sent(&read.event).len() / 2);
    assert!(whole(state.client(), "other", read.id).await.unwrap().is_none());
    assert!(whole(state.client(), SLOT, DeadLetterId(99)).await.unwrap().is_none());
}

#[tokio::test]
async fn letters_are_found_by_what_people_know_of_them() {
    let mut state = State::create().await;
    let gone = DeadLetter { class: DeathClass::Gone, ..letter(event(2, 0, "T_2"), "erp") };
    let timeout = DeathClass::Failure(FailureClass::Timeout);
    let late =
        DeadLetter { class: timeout, died_at: after(500), ..letter(event(3, 0, "T_3"), "crm") };
    insert(&mut state, vec![letter(event(1, 0, "T_1"), "crm"), gone, late]).await;
    let text = |text: &str| Some(text.to_owned());
    let plain = LetterFilter::default;
    let some = |ids: &[i64]| Some(ids.iter().map(|&id| DeadLetterId(id)).collect());
    let second: EventId = event(2, 0, "").id;
    let cases = [
        ("all", plain(), vec!["T_3", "T_2", "T_1"]),
        ("ids", LetterFilter { ids: some(&[1, 3, 77]), ..plain() }, vec!["T_3", "T_1"]),
        ("endpoint", LetterFilter { endpoint: text("crm"), ..plain() }, vec!["T_3", "T_1"]),
        (
            "type",
            LetterFilter { event_type: text("task.done"), ..plain() },
            vec!["T_3", "T_2", "T_1"],
        ),
        ("class", LetterFilter { class: text("gone"), ..plain() }, vec!["T_2"]),
        ("from", LetterFilter { from: Some(after(500)), ..plain() }, vec!["T_3"]),
        ("before", LetterFilter { before: Some(after(500)), ..plain() }, vec!["T_2", "T_1"]),
        ("key", LetterFilter { row_key: text("T_1"), ..plain() }, vec!["T_1"]),
        ("event", LetterFilter { event: Some(second), ..plain() }, vec!["T_2"]),
        ("state", LetterFilter { states: Some(vec![LetterState::Discarded]), ..plain() }, vec![]),
        ("nul", LetterFilter { row_key: text("\0"), ..plain() }, vec![]),
        ("both", LetterFilter { row_key: text("T_1"), endpoint: text("erp"), ..plain() }, vec![]),
    ];
    for (name, filter, expected) in cases {
        let found = list(state.client(), SLOT, &filter, None, 10).await.unwrap();
        let keys: Vec<&str> =
            found.iter().map(|letter| letter.row_key.as_deref().unwrap()).collect();
        assert_eq!(keys, expected, "case: {name}");
        let counted = count(state.client(), SLOT, &filter).await.unwrap();
        assert_eq!(counted, expected.len() as u64, "case: {name}");
    }
    let below = Some(DeadLetterId(3));
    let second = list(state.client(), SLOT, &plain(), below, 1).await.unwrap();
    assert_eq!(second[0].id, DeadLetterId(2));
    let queue = sizes(state.client(), SLOT).await.unwrap();
    assert_eq!(queue, [("crm".into(), 2), ("erp".into(), 1)]);
}

#[tokio::test]
async fn a_resend_goes_out_once_in_portions_and_is_closed_by_its_outcome() {
    let mut state = State::create().await;
    insert(&mut state, (1..=5).map(|n| letter(event(n, 0, "a"), "crm")).collect()).await;
    let first_four = LetterFilter { before: None, ids: None, ..LetterFilter::default() };
    let four = LetterFilter { ids: Some((1..=4).map(DeadLetterId).collect()), ..first_four };
    assert_eq!(request(state.client(), SLOT, &four, None).await.unwrap(), 4);
    assert_eq!(
        request(state.client(), SLOT, &four, None).await.unwrap(),
        0,
        "asked twice, sent once"
    );
    let claimed = portion(&mut state, &[], 3).await;
    assert_eq!(ids(&claimed), [1, 2, 3]);
    assert!(claimed.iter().all(|claimed| claimed.unbooked && claimed.letter.resends == 1));
    assert_eq!(sent(&claimed[2].letter.event), sent(&event(3, 0, "a")));
    assert_eq!(in_books(&mut state).await, (2, 3), "what is being sent is pending again");
    let flush = StateFlush {
        resent: vec![ResentLetter {
            letter: DeadLetterId(1),
            ended: EndedLetter::Delivered,
            at: after(9),
        }],
        dead: vec![DeadLetter {
            attempts: 3,
            reason: "rejected, status: 400".to_owned(),
            died_at: after(900),
            ..letter(event(2, 0, "a"), "crm")
        }],
        ..StateFlush::default()
    };
    state.commit(&flush).await;
    assert_eq!(states(&state).await, "delivered dead resending requested dead");
    let second = whole(state.client(), SLOT, DeadLetterId(2)).await.unwrap().unwrap();
    assert_eq!((second.attempts, second.resends), (7, 1));
    assert_eq!((second.reason.as_str(), second.died_at), ("rejected, status: 400", after(900)));
    assert_eq!(waiting(state.client(), SLOT).await.unwrap(), ["crm".into()]);
    assert_eq!(ids(&portion(&mut state, &[DeadLetterId(3)], 10).await), [4]);
    assert_eq!(count(state.client(), SLOT, &LetterFilter::default()).await.unwrap(), 4);
}

#[tokio::test]
async fn a_resend_that_got_lost_with_its_holder_comes_again_unless_it_is_parked() {
    let mut state = State::create().await;
    insert(&mut state, (1..=3).map(|n| letter(event(n, 0, "a"), "crm")).collect()).await;
    let all = [Share { endpoint: "crm".into(), letters: 3, without_body: 0 }];
    let dead = [LetterState::Dead];
    assert_eq!(survey(state.client(), SLOT, &LetterFilter::default(), &dead).await.unwrap(), all);
    request(state.client(), SLOT, &LetterFilter::default(), None).await.unwrap();
    assert_eq!(survey(state.client(), SLOT, &LetterFilter::default(), &dead).await.unwrap(), []);
    assert_eq!(ids(&portion(&mut state, &[], 2).await), [1, 2]);
    let mut row = parked(event(2, 0, "a"), "crm");
    row.replay = ReplayRow::DeadLetter(DeadLetterId(2));
    state.commit(&StateFlush { parked: vec![row], ..StateFlush::default() }).await;
    // The holder dies; its heir asks.
    state.session = session(&state.database.url()).await;
    let (heir, _) = take(&mut state.session.client, SLOT, "the heir").await.unwrap();
    state.ownership = heir;
    let claimed = portion(&mut state, &[], 10).await;
    assert_eq!(ids(&claimed), [1, 3]);
    let unbooked: Vec<bool> = claimed.iter().map(|claimed| claimed.unbooked).collect();
    assert_eq!(unbooked, [false, true], "what was taken out of the books once is not again");
    assert_eq!(in_books(&mut state).await, (0, 3));
    assert_eq!(claimed[0].letter.resends, 1);
}

#[tokio::test]
async fn a_portion_is_bounded_in_bytes_but_never_empty() {
    let mut state = State::create().await;
    insert(&mut state, (1..=3).map(|n| letter(event(n, 0, "a"), "crm")).collect()).await;
    request(state.client(), SLOT, &LetterFilter::default(), None).await.unwrap();
    let State { session, ownership, .. } = &mut state;
    let one = ClaimPortion { endpoint: Some("crm"), in_memory: &[], rows: 10, bytes: 1 };
    let none = ClaimPortion { endpoint: Some("erp"), ..one };
    assert!(claim(&mut session.client, ownership, none).await.unwrap().is_empty());
    let claimed = claim(&mut session.client, ownership, one).await.unwrap();
    assert_eq!(ids(&claimed), [1]);
}

#[tokio::test]
async fn discarded_letters_are_not_sent_and_are_purged_when_their_time_is_over() {
    let mut state = State::create().await;
    insert(&mut state, (1..=4).map(|n| letter(event(n, 0, "a"), "crm")).collect()).await;
    let only = |id| LetterFilter { ids: Some(vec![DeadLetterId(id)]), ..LetterFilter::default() };
    request(state.client(), SLOT, &only(1), None).await.unwrap();
    portion(&mut state, &[], 10).await;
    request(state.client(), SLOT, &only(2), None).await.unwrap();
    // Asked for or not: only what is under way is left alone.
    let of_all =
        LetterFilter { states: Some(LetterState::ALL.to_vec()), ..LetterFilter::default() };
    assert_eq!(
        discard(state.client(), SLOT, &of_all, after(50)).await.unwrap(),
        [("crm".into(), 3)]
    );
    assert_eq!(states(&state).await, "resending discarded discarded discarded");
    assert_eq!(request(state.client(), SLOT, &of_all, None).await.unwrap(), 0);
    assert_eq!(portion(&mut state, &[DeadLetterId(1)], 10).await.len(), 0);
    assert_eq!(purge(state.client(), SLOT, after(50), 100).await.unwrap(), 0);
    assert_eq!(purge(state.client(), SLOT, after(51), 2).await.unwrap(), 2);
    assert_eq!(purge(state.client(), SLOT, after(51), 2).await.unwrap(), 1);
    assert_eq!(states(&state).await, "resending");
}

#[tokio::test]
async fn a_letter_twice_in_one_flush_is_one_letter() {
    let mut state = State::create().await;
    let second = DeadLetter { reason: "the later".to_owned(), ..letter(event(1, 0, "a"), "crm") };
    let dead = vec![letter(event(1, 0, "a"), "crm"), second, letter(event(1, 0, "a"), "erp")];
    state.commit(&StateFlush { dead, ..StateFlush::default() }).await;
    let listed = list(state.client(), SLOT, &LetterFilter::default(), None, 10).await.unwrap();
    let reasons: Vec<&str> = listed.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, ["retries exhausted, last status: 503", "the later"]);
}
