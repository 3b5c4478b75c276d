//! One walhook at a time: waiting for the slot, and taking up the state under a new epoch.
//!
//! | file | holds |
//! | --- | --- |
//! | `standby` | Hot standby |
//! | `state` | What walhook remembers, taken up at the start |

pub(crate) mod standby;
pub(crate) mod state;
