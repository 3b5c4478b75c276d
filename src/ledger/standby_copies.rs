//! What of the state a standby has, too, so that nothing is confirmed that a promotion would forget.
//!
//! With `[postgres] failover` the server sends nothing before the standbys of `synchronized_standby_slots` have
//! it. So what has been heard of the stream says how much of the WAL they have, and the state is in the same
//! WAL: a flush that was written before a position of the stream is on the standbys when that position is heard.
//! Were it confirmed earlier, the slot's copy could stand beyond the state's copy, and what was parked
//! in between would be in neither.
//!
//! That holds for one connection. The next one may be to a standby that was promoted, whose WAL has come to the
//! same position with other contents: what was written before it is not counted, and the next flush stands for it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::flow::lsn::Lsn;

/// How far a stream has been heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HeardStream {
    /// Another number for each connection.
    pub connection: u64,
    pub received: Lsn,
}

/// Tells how far the stream has been heard at this moment.
pub(crate) type StreamListener = Arc<dyn Fn() -> HeardStream + Send + Sync>;

/// Flushes, and how far the WAL was written after each.
pub(crate) struct StandbyCopies {
    listener: StreamListener,
    /// The connection during which all of `written` was.
    connection: u64,
    /// The end of the WAL after a flush, and what may be confirmed once it was heard. Both grow.
    written: VecDeque<(Lsn, Lsn)>,
    copied: Lsn,
}

impl StandbyCopies {
    /// The state says that `stored` was confirmed, and was read when the WAL ended at `end`.
    pub(crate) fn new(listener: StreamListener, end: Lsn, stored: Lsn) -> Self {
        let connection = listener().connection;
        Self { listener, connection, written: VecDeque::from([(end, stored)]), copied: Lsn::ZERO }
    }

    /// The connection that the stream comes over now, for [`Self::wrote`]: to be asked before a flush.
    pub(super) fn connection(&self) -> u64 {
        (self.listener)().connection
    }

    /// A flush after which `confirmable` holds was begun during `connection` and committed, and the WAL ends at
    /// `end`.
    pub(super) fn wrote(&mut self, connection: u64, end: Lsn, confirmable: Lsn) {
        if connection != self.look().connection {
            return;
        }
        match self.written.back_mut() {
            Some((last, known)) if *last >= end => *known = confirmable.max(*known),
            _ => self.written.push_back((end, confirmable)),
        }
    }

    /// What may be confirmed at most.
    pub(super) fn limit(&mut self) -> Lsn {
        let heard = self.look().received;
        while let Some((_, confirmable)) = self.written.pop_front_if(|(end, _)| *end <= heard) {
            self.copied = self.copied.max(confirmable);
        }
        self.copied
    }

    /// Looks how far the stream is, and forgets what was written during another connection.
    fn look(&mut self) -> HeardStream {
        let heard = (self.listener)();
        if heard.connection != self.connection {
            self.connection = heard.connection;
            self.written.clear();
        }
        heard
    }
}

impl fmt::Debug for StandbyCopies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (written, copied) = (self.written.len(), self.copied);
        f.debug_struct("StandbyCopies").field("written", &written).field("copied", &copied).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_flush_counts_when_its_own_stream_has_come_to_its_end() {
        let lsn = Lsn::from_raw;
        let stream = Arc::new(Mutex::new((1, 0)));
        let listener: StreamListener = {
            let stream = Arc::clone(&stream);
            Arc::new(move || {
                let (connection, received) = *stream.lock().unwrap();
                HeardStream { connection, received: Lsn::from_raw(received) }
            })
        };
        let heard = |connection, received| *stream.lock().unwrap() = (connection, received);
        let mut copies = StandbyCopies::new(listener, lsn(50), lsn(10));
        assert_eq!(copies.limit(), Lsn::ZERO, "what was stored may be on the primary alone");
        heard(1, 50);
        assert_eq!(copies.limit(), lsn(10));
        copies.wrote(1, lsn(70), lsn(60));
        copies.wrote(1, lsn(90), lsn(80));
        heard(1, 89);
        assert_eq!(copies.limit(), lsn(60));
        heard(1, 90);
        assert_eq!(copies.limit(), lsn(80));
        copies.wrote(1, lsn(90), lsn(88));
        assert_eq!(copies.limit(), lsn(88));
        copies.wrote(1, lsn(95), lsn(93));
        heard(2, 100);
        assert_eq!(copies.limit(), lsn(88), "the new server may be without the last flush");
        copies.wrote(1, lsn(98), lsn(97));
        copies.wrote(2, lsn(120), lsn(110));
        assert_eq!(copies.limit(), lsn(88));
        heard(2, 120);
        assert_eq!(copies.limit(), lsn(110));
    }
}
