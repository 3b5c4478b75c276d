//! What `run` and `check` look at before anything moves, and what of it is looked at again while it runs.
//!
//! | file | holds |
//! | --- | --- |
//! | `attached_partitions` | Partitions that are attached or detached while PostgreSQL 14 is read |
//! | `backfills` | What a first start will send of the tables, and whether it can be read |
//! | `broker` | Whether the broker of `[relay]` can carry events, for `walhook check` |
//! | `callback_tables` | Whether the tables that keep callbacks are there and may be written to |
//! | `channels` | Whether chat systems let their applications in, for `walhook check --channels` |
//! | `clock_offset` | How far the database's clock is from this host's |
//! | `collector` | Whether the collector of `[telemetry]` takes what it is sent, for `walhook check` |
//! | `column_types` | Whether filters and ages fit the types of their columns |
//! | `dry_run` | Tries every event on rows of its table, for `walhook check` |
//! | `endpoint_rows` | The rows of `[endpoints_from]` |
//! | `event_schemas` | The catalogue of events |
//! | `function_tables` | Functions of write-backs that name tables whose rows are hidden from them |
//! | `failover` | What primary and standbys need so that the slot outlives a promotion |
//! | `gaps` | Gaps before the start |
//! | `grants` | The statements that give a role what a statement or a view of the user's needs |
//! | `inspection` | Asks PostgreSQL for everything that a configuration needs of it |
//! | `message_tables` | Looks beforehand at the tables that say what became of messages |
//! | `old_rows` | Whether PostgreSQL sends what the events need of old rows, and what their endpoints need of rows |
//! | `orphans` | Parked deliveries of endpoints that the configuration does not have |
//! | `ownership` | Whether slot and publication are this configuration's to read and to change |
//! | `prepare` | Before the start |
//! | `reach` | Whether endpoints can be reached, for `walhook check` |
//! | `rights` | Looks every few seconds whether walhook may still do what it does beside the stream |
//! | `schema_watch` | Compares tables and publication with the configuration while walhook runs, as `check` does before |
//! | `server_observer` | The observer |
//! | `standby_block` | Notices that PostgreSQL holds changes back for a standby, and which |
//! | `state_session` | walhook's own tables |
//! | `write_back_trial` | Tries write-backs on rows that are there, for `walhook check` |
//! | `write_backs` | Joins write-backs to the ledger, and looks at them before the start |

pub(crate) mod attached_partitions;
pub(crate) mod backfills;
pub(crate) mod broker;
pub(crate) mod callback_tables;
pub(crate) mod channels;
pub(crate) mod clock_offset;
pub(crate) mod collector;
pub(crate) mod column_types;
pub(crate) mod dry_run;
pub(crate) mod endpoint_rows;
pub(crate) mod event_schemas;
pub(crate) mod failover;
pub(crate) mod function_tables;
pub(crate) mod gaps;
pub(crate) mod grants;
pub(crate) mod inspection;
pub(crate) mod message_tables;
pub(crate) mod old_rows;
pub(crate) mod orphans;
pub(crate) mod ownership;
pub(crate) mod prepare;
pub(crate) mod reach;
pub(crate) mod rights;
pub(crate) mod schema_watch;
pub(crate) mod server_observer;
pub(crate) mod standby_block;
pub(crate) mod state_session;
pub(crate) mod write_back_trial;
pub(crate) mod write_backs;
