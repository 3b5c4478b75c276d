//! Ends a session whose server owes an answer and says nothing.
//!
//! A firewall or a balancer may forget a connection without a word, and a host may freeze: TCP then
//! waits for minutes, or for ever where something in between still takes the bytes. So a session that
//! asks for something waits for a limited time for the next byte of the answer; each byte, in either
//! direction, begins that time anew.
//!
//! What is owed is counted from the messages: a Query or a Sync is answered by one ReadyForQuery, but
//! for a Sync that the server is told with before it takes in a COPY, which it ignores (PostgreSQL
//! manual, "Message Flow").

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::Sleep;

/// How long an answer may be owed without a byte. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct AnswerLimit(Arc<AtomicU64>);

impl AnswerLimit {
    pub(crate) fn new(limit: Duration) -> Self {
        let answer_limit = Self(Arc::default());
        answer_limit.set(limit);
        answer_limit
    }

    /// From the next question on.
    pub(crate) fn set(&self, limit: Duration) {
        self.0.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// The process id of a login's BackendKeyData: that of the server's process, or a number that a pooler makes up. Clones
/// are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendKeyPid(Arc<AtomicI32>);

impl BackendKeyPid {
    /// `None` before the login has said it.
    pub(crate) fn pid(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }
}

/// One connection's questions and answers.
#[derive(Debug)]
pub(crate) struct AnswerWatch {
    answer_limit: AnswerLimit,
    process: BackendKeyPid,
    sent: AnswerMessages,
    heard: AnswerMessages,
    owed: u64,
    /// The last byte, in either direction.
    moved: Instant,
    timer: Pin<Box<Sleep>>,
}

impl AnswerWatch {
    pub(crate) fn new(answer_limit: AnswerLimit, process: BackendKeyPid) -> Self {
        Self {
            answer_limit,
            process,
            // The start-up message alone has no tag.
            sent: AnswerMessages { tagless: true, ..AnswerMessages::default() },
            heard: AnswerMessages::default(),
            owed: 0,
            moved: Instant::now(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    pub(crate) fn sent(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        let owed = &mut self.owed;
        self.sent.take(bytes, |tag| *owed += u64::from(matches!(tag, b'Q' | b'S' | b'F')));
        self.moved = Instant::now();
        // The sender may not come by again before there is something to read.
        drop(self.poll_silent(cx));
    }

    pub(crate) fn heard(&mut self, bytes: &[u8]) {
        let owed = &mut self.owed;
        self.heard.take(bytes, |tag| {
            // CopyInResponse: the Sync that came with the command is not answered.
            *owed = owed.saturating_sub(u64::from(matches!(tag, b'Z' | b'G')));
        });
        if let Some(pid) = self.heard.process.take() {
            self.process.0.store(pid, Ordering::Relaxed);
        }
        self.moved = Instant::now();
    }

    /// Ready when the server has owed an answer for too long.
    pub(crate) fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.owed > 0 {
            let limit = self.answer_limit.limit();
            let until = self.moved + limit;
            if self.timer.deadline() != until {
                self.timer.as_mut().reset(until);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.moved.elapsed() >= limit {
                let what = format!("the server has not answered for {} s", limit.as_secs_f64());
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, what));
            }
        }
        Poll::Pending
    }
}

/// Finds the tags of messages in bytes that come in pieces.
#[derive(Debug, Default)]
struct AnswerMessages {
    header: [u8; 5],
    filled: usize,
    /// Bytes of the message that are still to come.
    skip: usize,
    /// The next message begins with its length.
    tagless: bool,
    /// What has come of the first number of a BackendKeyData, while one is coming.
    key: Option<Vec<u8>>,
    /// That number, once it is there.
    process: Option<i32>,
}

impl AnswerMessages {
    fn take(&mut self, mut bytes: &[u8], mut begins: impl FnMut(u8)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let here = self.skip.min(bytes.len());
                self.skip -= here;
                self.read_key(bytes.get(..here).unwrap_or_default());
                bytes = bytes.get(here..).unwrap_or_default();
                continue;
            }
            if self.tagless && self.filled == 0 {
                self.filled = 1;
            }
            let wanted = self.header.len() - self.filled;
            let here = wanted.min(bytes.len());
            let (now, rest) = bytes.split_at(here);
            for (place, byte) in self.header.iter_mut().skip(self.filled).zip(now) {
                *place = *byte;
            }
            self.filled += here;
            bytes = rest;
            if self.filled == self.header.len() {
                let [tag, a, b, c, d] = self.header;
                // The length counts itself.
                let length = u32::from_be_bytes([a, b, c, d]).saturating_sub(4);
                self.skip = usize::try_from(length).unwrap_or(usize::MAX);
                self.filled = 0;
                if !std::mem::take(&mut self.tagless) {
                    self.key = (tag == b'K').then(Vec::new);
                    begins(tag);
                }
            }
        }
    }

    /// Takes a piece of a message's body.
    fn read_key(&mut self, piece: &[u8]) {
        let Some(key) = &mut self.key else { return };
        key.extend(piece.iter().take(4 - key.len()));
        if let [a, b, c, d] = key[..] {
            self.process = Some(i32::from_be_bytes([a, b, c, d]));
            self.key = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    fn tags(messages: &mut AnswerMessages, pieces: &[&[u8]]) -> Vec<u8> {
        let mut tags = Vec::new();
        pieces.iter().for_each(|piece| messages.take(piece, |tag| tags.push(tag)));
        tags
    }

    proptest! {
        #[test]
        fn tags_are_found_however_the_bytes_are_cut(
            bodies in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..9)), 0..9),
            cut in 1_usize..7,
        ) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            let expected: Vec<u8> = bodies.iter().map(|(tag, _)| *tag).collect();
            prop_assert_eq!(tags(&mut AnswerMessages::default(), &pieces), expected);
        }
    }

    #[test]
    fn the_start_up_message_is_no_question() {
        let mut messages = AnswerMessages { tagless: true, ..AnswerMessages::default() };
        let start_up = [&9_u32.to_be_bytes()[..], b"SQZFS"].concat();
        let query = message(b'Q', b"SELECT 1\0");
        assert_eq!(tags(&mut messages, &[&start_up[..3], &start_up[3..], &query]), [b'Q']);
    }

    #[test]
    fn the_process_is_read_from_the_login_however_it_is_cut() {
        let login = [message(b'R', &[0; 4]), message(b'K', &[0, 1, 0, 7, 9, 9, 9, 9])].concat();
        for cut in 1..=login.len() {
            let mut messages = AnswerMessages::default();
            login.chunks(cut).for_each(|piece| messages.take(piece, |_| {}));
            assert_eq!(messages.process, Some(65_543), "in pieces of {cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_that_is_owed_is_missed() {
        let mut answers =
            AnswerWatch::new(AnswerLimit::new(Duration::from_secs(10)), BackendKeyPid::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let silent =
            |answers: &mut AnswerWatch, cx: &mut Context<'_>| answers.poll_silent(cx).is_ready();
        answers.sent(&8_u32.to_be_bytes(), &mut cx);
        answers.sent(&[0; 4], &mut cx);
        answers.heard(&message(b'Z', b"I"));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(!silent(&mut answers, &mut cx), "nothing was asked");
        answers.sent(&message(b'Q', b"SELECT 1\0"), &mut cx);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!silent(&mut answers, &mut cx));
        answers.heard(&message(b'D', b"row"));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!silent(&mut answers, &mut cx), "a row has come meanwhile");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(silent(&mut answers, &mut cx));
        answers.heard(&message(b'Z', b"I"));
        assert!(!silent(&mut answers, &mut cx), "it has come after all");
    }

    /// A dead session of a walhook that runs, on a clock that only this test moves.
    #[tokio::test(start_paused = true)]
    async fn a_dead_session_ends_exactly_when_its_patience_does() {
        for dead in [crate::store::ANSWER_SOON, crate::store::ANSWER_MAX] {
            let mut answers = AnswerWatch::new(AnswerLimit::new(dead), BackendKeyPid::default());
            let start_up = [&8_u32.to_be_bytes()[..], &[0; 4]].concat();
            let began = Instant::now();
            let ended = std::future::poll_fn(|cx| {
                if answers.owed == 0 {
                    answers.sent(&start_up, cx);
                    answers.sent(&message(b'Q', b"COMMIT\0"), cx);
                }
                answers.poll_silent(cx)
            });
            let error = ended.await;
            assert_eq!(began.elapsed().as_secs(), dead.as_secs());
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_owes_one_answer() {
        let mut answers =
            AnswerWatch::new(AnswerLimit::new(Duration::from_secs(10)), BackendKeyPid::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        answers.sent(&8_u32.to_be_bytes(), &mut cx);
        answers.sent(&[0; 4], &mut cx);
        answers.sent(&message(b'E', b"\0\0\0\0\0"), &mut cx);
        answers.sent(&message(b'S', b""), &mut cx);
        answers.heard(&message(b'G', b"\0\0\0"));
        answers.sent(&message(b'd', b"rows"), &mut cx);
        answers.sent(&message(b'c', b""), &mut cx);
        answers.sent(&message(b'S', b""), &mut cx);
        answers.heard(&message(b'C', b"COPY 1\0"));
        assert_eq!(answers.owed, 1);
        answers.heard(&message(b'Z', b"I"));
        assert_eq!(answers.owed, 0);
    }
}
