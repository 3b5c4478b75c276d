//! What goes to the publishers of the partitions.

use std::sync::Arc;

use crate::flow::event::Event;
use crate::flow::lsn::Lsn;
use crate::flow::settlement::EndpointIndex;
use crate::relay::message::RelayedShape;
use crate::relay::place::MessagePlace;

/// Handed over in commit order.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Event(OutgoingEvent),
    /// Nothing more comes of what is before this position for now.
    Mark(Lsn),
}

/// An event for some endpoints of one partition.
#[derive(Debug)]
pub(crate) struct OutgoingEvent {
    pub(crate) place: MessagePlace,
    pub(crate) event: Arc<Event>,
    pub(crate) shapes: Vec<RelayedShape>,
    /// The takers of all shapes, as the tail counts them.
    pub(crate) endpoints: Vec<EndpointIndex>,
}
