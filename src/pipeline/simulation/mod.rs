//! The whole pipeline on one thread, against models of everything around it, on a clock that is paused.
//!
//! ```text
//! [wal] ─ source ─▶ PUMP ─▶ LANES ─▶ receiver [oracle]
//!   ▲                 └───┬───┘
//! [slot] ◀─ feedback ─ LEDGER ─▶ connection ─▶ [model_state]
//! ```
//!
//! What is in capitals is the real thing: router, pump, outbox, lanes with their backlog, ledger and the
//! state's writer. What is in brackets outlives a run of walhook, which ends by a kill at some await, or in
//! good order, a few times in each simulation. A seed draws all of it: tables, rules, endpoints, what is
//! written and when, in which order stages run, how slow everything is, what fails, what an operator does,
//! and when a run ends. At the end all is well, and everything has to arrive.
//!
//! What is checked, at each request, flush and confirmation and at the end (`oracle`, `outcome`):
//!
//! - every committed change reaches each endpoint that takes it, or is dead, expired or filtered in the books;
//! - nothing goes out before what is older and of one of its keys is settled, nor while that is in flight, and
//!   no run sends back in time;
//! - ids are those of the change, however often it comes;
//! - nothing is confirmed, or settled in the state, that was not taken and waits nowhere;
//! - nothing is sent again that is settled in the state, nor twice by one run after it was answered; and what was
//!   answered is settled within two flushes, and by a clean end;
//! - the books balance with each flush, are right at the end, and the metrics show them.
//!
//! Where one process reads and others deliver, members run side by side, each killed, frozen or stopped by itself:
//!
//! ```text
//! [wal] ─ source ─▶ PUMP ─▶ PUBLISHERS ─▶ [model_broker] ─▶ FEEDS ─▶ PUMPS ─▶ LANES ─▶ receiver [oracle]
//!                     └─ LEDGER ─▶ [model_state] ◀─ [model_leases] ─ LEDGERS ──┘
//! ```
//!
//! and nobody sends to an endpoint that another member has by then.
//!
//! Known, and let pass: what was settled or parked beyond the settled prefix before a crash, and is too old when it
//! is read again, is captured and expired in the books once more (`outcome`).
//!
//! `cargo test` runs 500 seeds. `WALHOOK_SEEDS=100000` runs so many, `WALHOOK_SEED=7` this one, with its story.
//!
//! | file | holds |
//! | --- | --- |
//! | `connection` | The way to the model of the state, which may be slow, fail, or lose its answer |
//! | `dice` | Choices that a seed makes, and makes again |
//! | `delivery` | An event on its way to one endpoint, and which others it concerns |
//! | `interleave` | Lets stages run in any order, and end at any await |
//! | `model_broker` | The broker: a stream for each partition |
//! | `model_leases` | Who owns which partition, in the state |
//! | `model_state` | The state as a flush writes it and a start reads it |
//! | `operator` | What operators do with the endpoints of a run |
//! | `oracle` | What every endpoint is owed, and what must hold of it |
//! | `outcome` | One simulation from its seed to its end |
//! | `owner` | One run of a partition's owner |
//! | `process` | One run of walhook |
//! | `receiver` | The receivers |
//! | `registry` | The endpoints of one run |
//! | `roles` | The lives of a tail and of the partitions' owners |
//! | `scenario` | What one seed sets up |
//! | `shown_books` | The books as the metrics of a run show them |
//! | `source` | The replication connection |
//! | `tail` | One run of the tail |
//! | `tests` | Runs the seeds |
//! | `wal` | The source's WAL |
//! | `world` | What outlives a run of walhook |

#![expect(clippy::print_stdout, reason = "a seed tells its story")]

mod connection;
mod delivery;
mod dice;
mod interleave;
mod model_broker;
mod model_leases;
mod model_state;
mod operator;
mod oracle;
mod outcome;
mod owner;
mod process;
mod receiver;
mod registry;
mod roles;
mod scenario;
mod shown_books;
mod source;
mod tail;
mod tests;
mod wal;
mod world;
