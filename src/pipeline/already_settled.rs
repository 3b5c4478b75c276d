//! Idempotent restart: what an earlier run has settled beyond the settled prefix, which the stream brings
//! again, is not delivered again.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::flow::event::EventId;
use crate::flow::lsn::Position;
use crate::flow::settlement::EndpointIndex;

/// What the stream brings again and must not be sent again. It becomes less while the stream goes on.
#[derive(Debug, Default)]
pub(crate) struct AlreadySettled {
    /// Each endpoint has settled everything before this change.
    endpoint_watermarks: HashMap<EndpointIndex, Position>,
    /// Single deliveries.
    beyond: HashSet<(EndpointIndex, EventId)>,
    /// Events that no endpoint took, and whose rows were told so.
    untaken: HashSet<EventId>,
}

impl AlreadySettled {
    pub(crate) fn new(
        endpoint_watermarks: impl Iterator<Item = (EndpointIndex, Position)>,
        beyond: impl Iterator<Item = (EndpointIndex, EventId)>,
    ) -> Self {
        Self {
            endpoint_watermarks: endpoint_watermarks.collect(),
            beyond: beyond.collect(),
            untaken: HashSet::new(),
        }
    }

    /// With the events that no endpoint took.
    pub(crate) fn with_untaken(self, events: impl Iterator<Item = EventId>) -> Self {
        Self { untaken: events.collect(), ..self }
    }

    /// Whether the row of an event that no endpoint takes is still to be told so.
    pub(crate) fn is_untold(&mut self, id: EventId) -> bool {
        self.untaken.is_empty() || !self.untaken.remove(&id)
    }

    /// The takers that the event is still owed to. To be asked for each event, in commit order.
    pub(crate) fn owed(
        &mut self,
        takers: Arc<[EndpointIndex]>,
        id: EventId,
    ) -> Arc<[EndpointIndex]> {
        if self.endpoint_watermarks.is_empty() && self.beyond.is_empty() {
            return takers;
        }
        // A row that a backfill reads again stands further back than it did: its place tells nothing.
        let is_read = id.position().is_none();
        self.endpoint_watermarks
            .retain(|_, front| id.position().is_none_or(|position| position < *front));
        let is_settled = |taker: EndpointIndex, beyond: &mut HashSet<_>| {
            !is_read && self.endpoint_watermarks.contains_key(&taker) || beyond.remove(&(taker, id))
        };
        let takers = takers.iter().copied();
        takers.filter(|&taker| !is_settled(taker, &mut self.beyond)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::event::IdOrigin;
    use crate::flow::lsn::Lsn;

    fn at(commit: u64) -> Position {
        Position { commit: Lsn::from_raw(commit), ordinal: 0 }
    }

    #[test]
    fn what_was_settled_is_owed_no_more_and_what_was_not_is() {
        let [slow, quick] = [EndpointIndex(0), EndpointIndex(1)];
        let id = |commit| EventId::new(at(commit), IdOrigin::new(7, "task.done"));
        let mut settled_ahead = AlreadySettled::new(
            [(quick, at(3))].into_iter(),
            [(quick, id(4)), (slow, id(2))].into_iter(),
        );
        let takers: Arc<[EndpointIndex]> = [slow, quick].into();
        let owed: Vec<_> = (1..=5)
            .map(|commit| settled_ahead.owed(Arc::clone(&takers), id(commit)).to_vec())
            .collect();
        let both = vec![slow, quick];
        assert_eq!(owed, [vec![slow], vec![], both.clone(), vec![slow], both]);
        assert!(settled_ahead.endpoint_watermarks.is_empty() && settled_ahead.beyond.is_empty());
    }
}
