//! Which positions of the stream are believed.
//!
//! What is confirmed to the server is gone for ever, so a position that a damaged message shows must
//! not be: one flipped bit of a keepalive would move the slot by a terabyte. A row's message tells
//! its position twice and a commit three times; these have to agree. A keepalive tells it once: it
//! is believed up to where the server was known to be, and beyond that only once the server has
//! been asked. Pure: the caller asks.

use crate::flow::lsn::Lsn;
use crate::replication::pgoutput::PgOutput;

/// How far the server is known to have come, on one connection.
#[derive(Debug)]
pub(super) struct StreamPositions {
    known: Lsn,
}

/// A position that cannot be true.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum ImplausiblePosition {
    #[error("a message says that it stands at {start} and at {end}")]
    Header { start: Lsn, end: Lsn },
    #[error("a commit says that it ends at {end}, and its message stands at {at}")]
    Commit { end: Lsn, at: Lsn },
    #[error("a keepalive says that the server is at {end}, and the server says {server}")]
    Beyond { end: Lsn, server: Lsn },
}

impl StreamPositions {
    /// `wal_end` is what IDENTIFY_SYSTEM reported on this connection.
    pub(super) fn new(wal_end: Lsn) -> Self {
        Self { known: wal_end }
    }

    /// Judges a message of the stream, which begins at `start` and for which the server was at `end`.
    pub(super) fn data(
        &mut self,
        start: Lsn,
        end: Lsn,
        message: Option<&PgOutput>,
    ) -> Result<(), ImplausiblePosition> {
        // The walsender writes the same position twice, and none for descriptions of tables.
        if start != end {
            return Err(ImplausiblePosition::Header { start, end });
        }
        if let Some(PgOutput::Commit { end_lsn, .. }) = message
            && *end_lsn != end
            && end > Lsn::ZERO
        {
            return Err(ImplausiblePosition::Commit { end: *end_lsn, at: end });
        }
        self.known = self.known.max(end);
        Ok(())
    }

    /// Whether the server is known to have come so far.
    pub(super) fn covers(&self, end: Lsn) -> bool {
        end <= self.known
    }

    /// The server says where it is, later than it said `end`.
    pub(super) fn asked(&mut self, end: Lsn, server: Lsn) -> Result<(), ImplausiblePosition> {
        self.known = self.known.max(server);
        if self.covers(end) { Ok(()) } else { Err(ImplausiblePosition::Beyond { end, server }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::time::Timestamp;

    fn lsn(raw: u64) -> Lsn {
        Lsn::from_raw(raw)
    }

    fn commit(end: u64) -> PgOutput {
        let committed = Timestamp::from_micros(0);
        PgOutput::Commit { commit_lsn: lsn(end - 8), end_lsn: lsn(end), committed }
    }

    #[test]
    fn no_flipped_bit_is_believed() {
        let mut positions = StreamPositions::new(lsn(1000));
        assert_eq!(positions.data(lsn(1100), lsn(1100), Some(&commit(1100))), Ok(()));
        assert!(positions.covers(lsn(1100)) && !positions.covers(lsn(1101)));
        for bit in 0..64 {
            let flipped = 1100 ^ (1 << bit);
            assert!(positions.data(lsn(flipped), lsn(1100), None).is_err(), "start, bit {bit}");
            assert!(positions.data(lsn(1100), lsn(flipped), None).is_err(), "end, bit {bit}");
            let damaged = PgOutput::Commit {
                commit_lsn: lsn(1092),
                end_lsn: lsn(flipped),
                committed: Timestamp::from_micros(0),
            };
            assert!(positions.data(lsn(1100), lsn(1100), Some(&damaged)).is_err(), "bit {bit}");
            if flipped > 1100 {
                assert!(!positions.covers(lsn(flipped)), "keepalive, bit {bit}");
                assert!(positions.asked(lsn(flipped), lsn(1100)).is_err());
            }
        }
        assert!(!positions.covers(lsn(1101)), "nothing damaged has moved it");
        assert_eq!(positions.asked(lsn(1200), lsn(1500)), Ok(()));
        assert!(positions.covers(lsn(1500)));
    }

    #[test]
    fn messages_without_a_position_say_nothing() {
        let mut positions = StreamPositions::new(lsn(5));
        assert_eq!(positions.data(Lsn::ZERO, Lsn::ZERO, None), Ok(()));
        assert!(positions.covers(lsn(5)) && !positions.covers(lsn(6)));
    }
}
