//! Changes that are lost, or may be: why, from where to where, and what to do.

use std::fmt;

use crate::flow::lsn::Lsn;
use crate::flow::time::Timestamp;

/// Changes that nobody will ever send us, or may not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChangeGap {
    pub cause: GapCause,
    /// Up to here everything is known.
    pub from: Lsn,
    /// When the last transaction before that was committed.
    pub since: Option<Timestamp>,
    /// From here on the server sends again; `None` if it has not come that far.
    pub to: Option<Lsn>,
    /// When this was found, on the server's clock.
    pub found: Timestamp,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GapCause {
    /// The state knows the slot, and it does not exist.
    SlotGone { slot: String },
    /// The slot stands beyond what was settled, and nobody has read from it.
    SlotMadeAgain { slot: String },
    /// The slot stands beyond what was settled, and was read.
    SlotMoved { slot: String },
    /// The slot was read, and the state knows nothing of it.
    StateUnknown { slot: String, database: String },
    /// The server has never been where the state is.
    ServerBehind { server: Lsn },
    /// The server's history does not lead through what was settled.
    OtherHistory { known: u32, found: u32 },
    /// Another publication of the same name, or none.
    PublicationMadeAgain { publication: String },
    /// Tables have been taken out while walhook ran.
    TablesLeft { publication: String, tables: String },
}

impl ChangeGap {
    /// What is wrong, without the way out.
    pub fn what(&self) -> String {
        let cause = match &self.cause {
            GapCause::SlotGone { slot } => format!("slot {slot} was dropped"),
            GapCause::SlotMadeAgain { slot } => format!("slot {slot} was dropped and made again"),
            GapCause::SlotMoved { slot } => format!(
                "slot {slot} stands beyond what this state knows: it was read with another state, \
                 or was dropped and made again"
            ),
            GapCause::StateUnknown { slot, database } => format!(
                "slot {slot} was read before, and the state in database {database} knows nothing of \
                 it: what was parked, or dead, is in another state or lost"
            ),
            GapCause::ServerBehind { server } => {
                format!(
                    "the server's WAL ends at {server}, before what was settled: a backup was restored"
                )
            }
            GapCause::OtherHistory { known, found } => format!(
                "the server is on timeline {found}, which does not lead through what was settled on timeline {known}"
            ),
            GapCause::PublicationMadeAgain { publication } => {
                format!("publication {publication} was dropped or made again")
            }
            GapCause::TablesLeft { publication, tables } => {
                format!("publication {publication} does not publish {tables} any more")
            }
        };
        let (from, found) = (dated(self.from, self.since), self.found.iso_millis());
        match (&self.cause, self.to) {
            (GapCause::StateUnknown { .. }, _) => {
                format!("{cause}; changes from {from} on come, some of them again (found {found})")
            }
            (_, Some(to)) => {
                format!("{cause}: changes between {from} and {to} (before {found}) are lost")
            }
            (_, None) => format!("{cause}: changes after {from} (found {found}) may be lost"),
        }
    }

    /// What to do.
    pub fn fix(&self) -> String {
        match self.cause {
            GapCause::TablesLeft { .. } => String::from(
                "add them again, or start walhook, which does so where it may; `walhook backfill TABLE` \
                 sends what the tables hold",
            ),
            GapCause::StateUnknown { .. } | GapCause::SlotMoved { .. } => String::from(
                "set [state] url to where the state of this slot is; if another system reads the \
                 slot, choose one of your own in [postgres] slot; `walhook run --accept-gap` goes \
                 on from where the slot stands, and nothing of another state is sent",
            ),
            _ => String::from(
                "find out why; `walhook run --accept-gap` goes on from where the server stands, and \
                 what is missing has to be sent from the tables: `walhook backfill TABLE`",
            ),
        }
    }
}

impl fmt::Display for ChangeGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())
    }
}

/// A position, and when the last transaction before it was committed.
pub(super) fn dated(at: Lsn, committed: Option<Timestamp>) -> String {
    match committed {
        Some(committed) => format!("{at} (committed {})", committed.iso_millis()),
        None => at.to_string(),
    }
}
