//! The broker between a tail, which reads a slot, and the workers, which deliver: NATS JetStream.
//!
//! ```text
//! tail ─ message ─▶ stream of a partition ─ message ─▶ owner of the partition
//! ```
//!
//! The broker is a transport that may lose everything: the WAL stays the truth, and nothing is confirmed to
//! PostgreSQL because a broker has it. See docs/architecture.md.
//!
//! | file | holds |
//! | --- | --- |
//! | `broker` | A connection to the broker |
//! | `error` | Why the broker could not be used |
//! | `feed` | Reads the events of one partition |
//! | `inspection` | What the broker can do for us, tried out |
//! | `joined_events` | Events that go out as one message |
//! | `message` | Events as messages, and messages as events |
//! | `message_head` | The headers of a message |
//! | `nats_stream` | The stream of one partition in NATS JetStream |
//! | `outgoing` | What goes to the publishers of the partitions |
//! | `partition_stream` | The stream of one partition, as its writer and its reader use it |
//! | `place` | Where a message stands among those of its partition |
//! | `publisher` | Publishes the events of one partition |
//! | `samples` | An event, and a stream in memory, for the tests |
//! | `streams` | The streams of the partitions: their names, and what they have to be |

pub(crate) mod broker;
pub(crate) mod error;
pub(crate) mod feed;
pub(crate) mod inspection;
mod joined_events;
pub(crate) mod message;
pub(crate) mod message_head;
pub(crate) mod nats_stream;
pub(crate) mod outgoing;
pub(crate) mod partition_stream;
pub(crate) mod place;
pub(crate) mod publisher;
pub(crate) mod streams;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
