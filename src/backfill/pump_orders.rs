//! What the reader of a backfill tells the pump, and what the pump answers.

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::backfill::window::ReadChunk;
use crate::flow::backfill::BackfillId;
use crate::flow::relation::TableName;

/// Orders that wait for the pump. Each of them may hold a chunk.
pub(crate) const ORDERS_MAX: usize = 2;

/// The way to the pump.
pub(crate) type BackfillSender = mpsc::Sender<BackfillOrder>;

#[derive(Debug)]
pub(crate) enum BackfillOrder {
    /// Changes of the table are to be remembered; the pump answers once they are.
    Track {
        id: BackfillId,
        table: TableName,
        /// Where it is read by key: rows that get another one are, too.
        moves: Option<KeyMoves>,
        tracked: oneshot::Sender<()>,
    },
    /// Rows to be sent when the stream has come to them.
    Chunk { chunk: Box<ReadChunk>, outcome: oneshot::Sender<ChunkOutcome> },
    /// Nothing more is read; for ever, if it `is_over`.
    Forget { id: BackfillId, is_over: bool },
}

/// What there is to know of a table whose rows may get other keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyMoves {
    pub has_partitions: bool,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ChunkOutcome {
    /// Its rows are with the lanes. The ledger says when they are settled or parked.
    Released { sent: u64 },
    /// It has to be read again: too little is known of a change that its snapshot does not see.
    ReadAgain,
    /// An endpoint that it is for is not there any more.
    EndpointGone,
}
