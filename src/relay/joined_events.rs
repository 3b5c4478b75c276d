//! Joins small events of a partition into one message of the broker.

use crate::relay::error::RelayInterruption;
use crate::relay::message;
use crate::relay::outgoing::OutgoingEvent;

/// Events are put into one message up to so many bytes: each message is published, acknowledged and read by itself,
/// which costs more than a small event does.
pub(crate) const JOINED_BYTES: usize = 32 * 1024;

/// Events that go out as one message.
#[derive(Default)]
pub(super) struct JoinedEvents {
    pub(super) payload: Vec<u8>,
    pub(super) events: Vec<OutgoingEvent>,
}

impl JoinedEvents {
    /// Adds an event, or gives it back as the first of the next message where both are too long for one.
    pub(super) fn add(
        &mut self,
        outgoing: OutgoingEvent,
    ) -> Result<Option<Self>, RelayInterruption> {
        let OutgoingEvent { place, event, shapes, made, known, .. } = &outgoing;
        let before = self.payload.len();
        message::encode(event, (*place, shapes), (made, *known), &mut self.payload).map_err(
            |cause| RelayInterruption::Unsendable { event: event.id.to_string(), cause },
        )?;
        if before > 0 && self.payload.len() > JOINED_BYTES {
            let payload = self.payload.split_off(before);
            return Ok(Some(Self { payload, events: vec![outgoing] }));
        }
        self.events.push(outgoing);
        Ok(None)
    }
}
