//! The words that all stages share: plain values, handed from stage to stage.
//!
//! Floor 0: nothing here does I/O, reads a clock or draws a random number, so that every rule about
//! positions, keys, verdicts and settlement can be tested with values alone.
//!
//! | file | holds |
//! | --- | --- |
//! | `backfill` | How far backfills have come, and rows that have moved |
//! | `backlog` | Parked deliveries: positions and pages of the backlog |
//! | `body` | Bodies of events, as bytes or as JSON still to be written |
//! | `budget` | A limit in bytes on the rows that are in memory at once, over all lanes |
//! | `change` | What the source hands over |
//! | `commit_times` | When the transactions were committed that positions of the WAL lie behind |
//! | `compact` | JSON text without the white space between its tokens |
//! | `dead_letter_reason` | Why a delivery was given up |
//! | `endpoint_watermarks` | How far each endpoint has come by itself |
//! | `event` | Events: one row change under one rule, as endpoints get it |
//! | `exit_status` | How a command ends |
//! | `headers` | Headers as they are kept for people to read |
//! | `hex` | Hexadecimal digits, PostgreSQL's text of a bytea, as base64 |
//! | `key` | Ordering keys: which deliveries have to be in order |
//! | `lease` | One request to make |
//! | `lsn` | Positions in PostgreSQL's write-ahead log |
//! | `nearest_name` | Which of the known names a misspelt one was meant to be |
//! | `park_reason` | Why a delivery was parked |
//! | `partition` | The parts that a source's endpoints fall into |
//! | `pump_report` | What the pump tells the ledger of each change |
//! | `quote` | Identifiers and texts in SQL |
//! | `raw_json` | A body within a JSON document, as it is |
//! | `relation` | What a table looked like when a row of it was written |
//! | `report_queue` | The way of reports to the ledger |
//! | `secret_header` | Which headers hold secrets |
//! | `seen` | Values that events were raised with, for rules that raise each once |
//! | `settlement` | What became of an event at an endpoint |
//! | `time` | Points in time as walhook carries them |
//! | `trace` | Trace contexts, as W3C's Trace Context writes them |
//! | `unique_json` | JSON whose objects have each key once |
//! | `verdict` | What one attempt came to |
//! | `watermark` | Up to where everything is settled |
//! | `write_back` | What a row is told of its deliveries |

pub(crate) mod backfill;
pub(crate) mod backlog;
pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod change;
pub(crate) mod commit_times;
pub(crate) mod compact;
pub(crate) mod dead_letter_reason;
pub(crate) mod endpoint_watermarks;
pub(crate) mod event;
pub(crate) mod exit_status;
pub(crate) mod headers;
pub(crate) mod hex;
pub(crate) mod key;
pub(crate) mod lease;
pub(crate) mod lsn;
pub(crate) mod nearest_name;
pub(crate) mod park_reason;
pub(crate) mod partition;
pub(crate) mod pump_report;
pub(crate) mod quote;
pub(crate) mod raw_json;
pub(crate) mod relation;
pub(crate) mod report_queue;
pub(crate) mod secret_header;
pub(crate) mod seen;
pub(crate) mod settlement;
pub(crate) mod time;
pub(crate) mod trace;
pub(crate) mod unique_json;
pub(crate) mod verdict;
pub(crate) mod watermark;
pub(crate) mod write_back;
