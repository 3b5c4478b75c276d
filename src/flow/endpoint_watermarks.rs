//! Endpoint watermarks: how far each endpoint has settled by itself, ahead of the slowest.
//!
//! The [`Watermark`](crate::flow::watermark::Watermark) waits for the slowest endpoint. What the others
//! settle beyond it is remembered as one position for each of them, not as one row for each delivery.

use std::collections::BTreeMap;
use std::collections::HashMap;

use crate::flow::lsn::Position;
use crate::flow::settlement::EndpointIndex;

/// Follows the deliveries of each endpoint. Memory grows with those that are not settled.
#[derive(Debug, Default)]
pub(crate) struct EndpointWatermarks {
    /// Deliveries that are not settled, by event number.
    open: HashMap<EndpointIndex, BTreeMap<u64, Position>>,
    /// Nothing more comes of the changes before this one.
    begun: Option<Position>,
}

impl EndpointWatermarks {
    /// An event of the change at `position` is owed to `takers`. Numbers and positions grow.
    pub(crate) fn open(&mut self, sequence: u64, position: Position, takers: &[EndpointIndex]) {
        self.begun = Some(position);
        for taker in takers {
            self.open.entry(*taker).or_default().insert(sequence, position);
        }
    }

    /// No more events come of the change at `position`, nor of those before it.
    pub(crate) fn through(&mut self, position: Position) {
        self.begun = Some(position.next());
    }

    /// The endpoint has settled the event with this number.
    pub(crate) fn settle(&mut self, endpoint: EndpointIndex, sequence: u64) {
        if let Some(open) = self.open.get_mut(&endpoint) {
            open.remove(&sequence);
        }
    }

    /// The endpoint has settled everything that it was owed of the changes *before* this one. It
    /// never goes back. `None` if nothing is known.
    pub(crate) fn of(&self, endpoint: EndpointIndex) -> Option<Position> {
        match self.open.get(&endpoint)?.first_key_value() {
            Some((_, position)) => Some(*position),
            None => self.begun,
        }
    }

    /// Nothing more comes of this endpoint.
    pub(crate) fn retire(&mut self, endpoint: EndpointIndex) {
        self.open.remove(&endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::lsn::Lsn;
    use proptest::prelude::*;

    const ENDPOINTS: [EndpointIndex; 2] = [EndpointIndex(0), EndpointIndex(1)];

    fn at(commit: u64) -> Position {
        Position { commit: Lsn::from_raw(commit), ordinal: 0 }
    }

    #[derive(Clone, Debug)]
    enum WatermarkStep {
        /// Takers, by bit; whether it begins another change.
        Event {
            takers: u8,
            is_next: bool,
        },
        Through,
        /// Settles one of the open deliveries.
        Settle(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<WatermarkStep>> {
        let event = (1..4u8, any::<bool>());
        let step = prop_oneof![
            3 => event.prop_map(|(takers, is_next)| WatermarkStep::Event { takers, is_next }),
            2 => Just(WatermarkStep::Through),
            3 => any::<usize>().prop_map(WatermarkStep::Settle),
        ];
        prop::collection::vec(step, 0..100)
    }

    proptest! {
        /// Nothing that is before a front is open now or opened later: it may be forgotten.
        #[test]
        fn everything_before_a_front_is_settled_for_good(steps in steps()) {
            let mut endpoint_watermarks = EndpointWatermarks::default();
            let mut open: Vec<(EndpointIndex, u64, Position)> = Vec::new();
            let (mut sequence, mut change, mut is_whole) = (0, 1, false);
            let mut before = [None; 2];
            for step in steps {
                match step {
                    WatermarkStep::Event { takers, is_next } => {
                        if is_next && !is_whole {
                            endpoint_watermarks.through(at(change));
                        }
                        change += u64::from(is_next || is_whole);
                        is_whole = false;
                        let takers: Vec<_> =
                            ENDPOINTS.into_iter().filter(|e| takers & (1 << e.0) != 0).collect();
                        endpoint_watermarks.open(sequence, at(change), &takers);
                        open.extend(takers.iter().map(|&taker| (taker, sequence, at(change))));
                        for (taker, front) in ENDPOINTS.into_iter().zip(before) {
                            let is_late = front.is_some_and(|front| at(change) < front);
                            prop_assert!(!takers.contains(&taker) || !is_late);
                        }
                        sequence += 1;
                    }
                    WatermarkStep::Through => {
                        endpoint_watermarks.through(at(change));
                        is_whole = true;
                    }
                    WatermarkStep::Settle(choice) if !open.is_empty() => {
                        let (endpoint, sequence, _) = open.swap_remove(choice % open.len());
                        endpoint_watermarks.settle(endpoint, sequence);
                    }
                    WatermarkStep::Settle(_) => {}
                }
                for (endpoint, last) in ENDPOINTS.into_iter().zip(&mut before) {
                    let front = endpoint_watermarks.of(endpoint);
                    prop_assert!(front >= *last, "it went back");
                    let mine = open.iter().filter(|(owed, ..)| *owed == endpoint);
                    for (_, _, position) in mine {
                        prop_assert!(front.is_some_and(|front| *position >= front));
                    }
                    *last = front;
                }
            }
        }
    }

    #[test]
    fn an_endpoint_that_has_settled_all_of_a_whole_change_stands_behind_it() {
        let mut endpoint_watermarks = EndpointWatermarks::default();
        endpoint_watermarks.open(0, at(5), &ENDPOINTS);
        endpoint_watermarks.settle(ENDPOINTS[0], 0);
        assert_eq!(
            endpoint_watermarks.of(ENDPOINTS[0]),
            Some(at(5)),
            "more may come of the change"
        );
        endpoint_watermarks.through(at(5));
        assert_eq!(endpoint_watermarks.of(ENDPOINTS[0]), Some(at(5).next()));
        assert_eq!(endpoint_watermarks.of(ENDPOINTS[1]), Some(at(5)));
    }
}
