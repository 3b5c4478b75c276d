//! Rows that were there before, sent as events between the changes of the stream.
//!
//! ```text
//! table ─ chunk, snapshot, LSN ─▶ [reader] ─▶ pump's [window]: merged with what streams by ─▶ events
//!   ▲                                                                                          │
//!   └────── cursor in walhook.backfills ◀── flush ◀── settled or parked ◀── lanes ◀────────────┘
//! ```
//!
//! One transaction a chunk, read-only and short: first its snapshot, then the WAL's position, then the rows.
//! The rows wait until the stream has passed that position, and take up meanwhile what the snapshot does not
//! see. So a row is never older than an event of its key that went before it. What the chunk is worth is
//! decided without I/O (`snapshot`, `row_buffer`, `window`); see `docs/backfill.md`.
//!
//! | file | holds |
//! | --- | --- |
//! | `admit` | What is looked at before a backfill is ordered |
//! | `text_answers` | What the server answers, as texts |
//! | `context` | What every backfill needs |
//! | `cursor` | Where a backfill reads on |
//! | `first_start` | Backfills that the configuration asks for |
//! | `handed_chunk` | A chunk on its way through the pump, the lanes and the ledger |
//! | `looked_keys` | Which rows that have got another key have to be looked for |
//! | `moved_rows` | Reads rows that have got another key where they are |
//! | `moves` | Which rows get another key |
//! | `pause_or_cancel` | Whether an operator has paused or cancelled it |
//! | `pump_orders` | What the reader tells the pump, and what the pump answers |
//! | `pace` | How much a chunk may be, and when the next is due |
//! | `query` | The statements that read rows |
//! | `read_error` | Why rows cannot be read |
//! | `reader` | Reads chunks of a table |
//! | `row_buffer` | The rows of a chunk, and what is merged into them |
//! | `run` | One backfill, chunk by chunk |
//! | `run_error` | Why one does not go on |
//! | `scheduler` | All backfills of this walhook |
//! | `snapshot` | What a snapshot sees |
//! | `source` | Where rows are read: on the source, or on a standby of it |
//! | `table` | What the catalog says of a table |
//! | `wal_end` | Where the WAL of a server ends |
//! | `window` | What the pump remembers, and when rows may go |

pub(crate) mod admit;
pub(crate) mod context;
pub(crate) mod cursor;
pub(crate) mod first_start;
mod handed_chunk;
pub(crate) mod looked_keys;
pub(crate) mod moved_rows;
pub(crate) mod moves;
pub(crate) mod pace;
mod pause_or_cancel;
pub(crate) mod pump_orders;
pub(crate) mod query;
pub(crate) mod read_error;
pub(crate) mod reader;
pub(crate) mod row_buffer;
pub(crate) mod run;
pub(crate) mod run_error;
pub(crate) mod scheduler;
pub(crate) mod snapshot;
pub(crate) mod source;
pub(crate) mod table;
mod text_answers;
pub(crate) mod wal_end;
pub(crate) mod window;
