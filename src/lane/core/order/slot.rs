//! The name of an event in the order of its lane.

/// Names an event in the lane until the event is removed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct OrderSlot(pub(super) u32);
