//! What goes to the publishers of the partitions.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::flow::body::EventBody;
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
    /// The takers that no configuration file has.
    pub(crate) made: Vec<Arc<str>>,
    /// How much its owner has to know of the endpoints that several members change.
    pub(crate) known: i64,
    /// Which of the event's shapes the last one here is.
    last_shape: Option<usize>,
}

impl OutgoingEvent {
    pub(crate) fn new(place: MessagePlace, event: &Arc<Event>, known: i64) -> Self {
        let (event, made) = (Arc::clone(event), Vec::new());
        let (shapes, endpoints) = (Vec::new(), Vec::new());
        Self { place, event, shapes, endpoints, made, known, last_shape: None }
    }

    /// Adds one that takes the event in its shape with this number. Shapes come in order.
    pub(crate) fn add(
        &mut self,
        (nth, body): (usize, &EventBody),
        (endpoint, name): (EndpointIndex, Arc<str>),
    ) {
        self.endpoints.push(endpoint);
        match self.shapes.last_mut() {
            Some(shape) if self.last_shape == Some(nth) => shape.takers.push(name),
            _ => {
                self.shapes.push(RelayedShape { body: body.clone(), takers: vec![name] });
                self.last_shape = Some(nth);
            }
        }
    }
}

/// Deliveries of all partitions that were handed over and are not settled. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnsettledCount(Arc<AtomicUsize>);

impl UnsettledCount {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, deliveries: usize) {
        self.0.fetch_add(deliveries, Ordering::Relaxed);
    }

    pub(crate) fn settled(&self, deliveries: usize) {
        self.0.fetch_sub(deliveries, Ordering::Relaxed);
    }
}
