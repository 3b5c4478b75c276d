//! One walhook at a time: waiting for the slot, and taking up the state under a new epoch.
//!
//! | file | holds |
//! | --- | --- |
//! | `partition_share` | How many partitions each member takes, and which it gives back |
//! | `partition_state` | What walhook remembers of a partition, taken up by its owner |
//! | `role` | What a process does of the work for a source |
//! | `shared_source` | What the slot's holder does about the partitions that others deliver for |
//! | `standby` | Hot standby |
//! | `state` | What walhook remembers, taken up at the start |
//! | `tail_relay` | The tail's end of the broker: a publisher for each partition, and what its owners have settled |

pub(crate) mod partition_share;
pub(crate) mod partition_state;
pub(crate) mod role;
pub(crate) mod shared_source;
pub(crate) mod standby;
pub(crate) mod state;
pub(crate) mod tail_relay;
