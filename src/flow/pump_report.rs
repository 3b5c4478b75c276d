//! What the pump tells the ledger of each change, in commit order: events, notes of what was filtered, boundaries.
//!
//! ```text
//! one change:   Seen* · Moved* · (Event | Poison | Untaken | Note)* · Through { position }
//! between two:  Backfilled* · Boundary { end }
//! ```
//!
//! `Through` says that nothing more comes of the change at its position: only then may the watermark pass it.

use std::sync::Arc;

use crate::flow::backfill::BackfillStep;
use crate::flow::backfill::MovedRow;
use crate::flow::dead_letter_reason::PoisonReason;
use crate::flow::event::Event;
use crate::flow::event::RuleIndex;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::seen::SeenValues;
use crate::flow::settlement::EndpointIndex;
use crate::flow::time::Timestamp;

/// What the pump tells the watermark, in commit order, before the lanes hear of it.
#[derive(Clone, Debug)]
pub enum PumpReport {
    /// An event is about to be handed to the lanes of `takers`.
    Event {
        position: Position,
        committed: Timestamp,
        table: Arc<TableName>,
        takers: Arc<[EndpointIndex]>,
    },
    /// An event that is set aside: owed to `takers`, and dead before any lane has seen it.
    Poison { event: Arc<Event>, takers: Arc<[EndpointIndex]>, why: PoisonReason },
    /// Something about a change that no lane is going to settle. The books count it once
    /// everything before it is settled, so that a crash counts nothing twice.
    Note(FilteredNote),
    /// An event that no endpoint takes, and whose row is told so at once. Comes before `Through`.
    Untaken(Arc<Event>),
    /// An event was raised with these values. Comes before `Through`.
    Seen(SeenValues),
    /// All rows of a chunk of a backfill have gone out.
    Backfilled(BackfillStep),
    /// A row has got another key while a backfill reads its table. Comes before `Through`.
    Moved(MovedRow),
    /// That was all about the change at this position; one change may raise several events.
    Through { position: Position },
    /// See [`Watermark::boundary`](crate::flow::watermark::Watermark::boundary). `committed`: when the last transaction before it was committed, if
    /// there was one since the boundary before.
    Boundary { end: Lsn, committed: Option<Timestamp> },
}

/// What became of a change before it reached any lane, under one event rule.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FilteredNote {
    pub endpoints_version: EndpointsVersion,
    pub rule: RuleIndex,
    pub opened_as: OpenedAs,
}

/// Counts the sets of endpoints that there have been since walhook started: who takes what may
/// change between two changes, and notes tell of the set that was there.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EndpointsVersion(pub u32);

/// As what a change counts that no lane is going to settle.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OpenedAs {
    /// The rule's filter kept it back from every endpoint.
    Filtered,
    /// It was too old; endpoints that do not take all of the rule's events count it as filtered.
    Expired,
    /// It became an event; this counts for the endpoints that do not take all of the rule's events.
    Raised,
    /// It became an event for this endpoint, which chooses by the row: `Raised` does not count for it
    /// this time, but its own settlement.
    Chosen(EndpointIndex),
    /// This endpoint would have chosen it: it counts as expired for it, and not as filtered.
    TooLate(EndpointIndex),
    /// No change: the version begins, and no note of an earlier one follows. The rule has no meaning.
    Begun,
}
