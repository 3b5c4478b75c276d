//! Counts outcomes of events with a write-back between two flushes.
//!
//! Pure. What is counted here is added to the rows of `walhook.write_backs` by the flush that
//! commits the same outcomes, so nothing is counted twice and nothing has to be remembered.

use std::collections::HashMap;

use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::flow::settlement::Settlement;
use crate::store::write_backs::OutcomeTally;

/// Outcomes of events that have a write-back, until all of their endpoints have one.
#[derive(Debug, Default)]
pub(crate) struct OutcomeTallies {
    open: HashMap<EventId, OutcomeTally>,
}

impl OutcomeTallies {
    /// Takes in what became of a delivery. An event that was parked does not know any more whether
    /// its rule has a write-back: it is counted, and the table does without those it does not know.
    pub(crate) fn settled(&mut self, settlement: &Settlement) {
        let event = &settlement.event;
        let target = event.write_back.as_deref();
        let (delivered, failed) = match (settlement.durable_in, &settlement.outcome) {
            // A resend is counted when its dead letter is closed.
            (DurableIn::Replay(_), _) => return,
            (_, DeliveryOutcome::Delivered { .. }) => (1, 0),
            (_, DeliveryOutcome::Expired | DeliveryOutcome::Dead { .. }) => (0, 1),
            // The endpoint has no say in it.
            (_, DeliveryOutcome::Filtered) => (1, 0),
            // From here on the row of the table alone knows what is owed.
            (DurableIn::Wal, DeliveryOutcome::Parked { .. }) => (0, 0),
            (DurableIn::Backlog, DeliveryOutcome::Parked { .. }) => return,
        };
        if target.is_none() && settlement.durable_in == DurableIn::Wal {
            return; // its rule has none
        }
        let tally = self.open.entry(event.id).or_insert_with(|| OutcomeTally {
            event: event.id,
            event_type: event.event_type.clone(),
            table: event.table.clone(),
            target: None,
            delivered: 0,
            failed: 0,
        });
        if tally.target.is_none() {
            tally.target = target.cloned();
        }
        tally.delivered += delivered;
        tally.failed += failed;
    }

    /// Takes in an event that no endpoint takes: all of none have taken it.
    pub(crate) fn untaken(&mut self, event: &Event) {
        self.open.entry(event.id).or_insert_with(|| OutcomeTally {
            event: event.id,
            event_type: event.event_type.clone(),
            table: event.table.clone(),
            target: event.write_back.as_deref().cloned(),
            delivered: 0,
            failed: 0,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// All of them, in the order of their events.
    pub(crate) fn into_rows(self) -> Vec<OutcomeTally> {
        let mut rows: Vec<OutcomeTally> = self.open.into_values().collect();
        rows.sort_unstable_by_key(|tally| tally.event);
        rows
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::flow::body::EventBody;
    use crate::flow::dead_letter_reason::DeathReason;
    use crate::flow::event::EventFacts;
    use crate::flow::event::IdOrigin;
    use crate::flow::key::EventKeys;
    use crate::flow::lsn::Lsn;
    use crate::flow::lsn::Position;
    use crate::flow::park_reason::ParkReason;
    use crate::flow::relation::TableName;
    use crate::flow::settlement::EndpointIndex;
    use crate::flow::settlement::ReplayId;
    use crate::flow::time::Timestamp;
    use crate::flow::write_back::TargetRow;

    const ENDPOINTS: u32 = 3;

    /// `refilled`: as the backlog gives it back.
    fn event(number: u64, refilled: bool) -> Arc<Event> {
        let position = Position { commit: Lsn::from_raw(number + 1), ordinal: 0 };
        let target = TargetRow { key: Vec::new(), values: Vec::new(), owed: ENDPOINTS };
        Arc::new(Event {
            id: EventId::new(position, IdOrigin::new(1, "e")),
            sequence: number,
            position,
            event_type: "e".into(),
            table: Arc::new(TableName::new("public", "t")),
            committed: Timestamp::default(),
            keys: EventKeys::NONE,
            expiry: None,
            body: EventBody::default(),
            facts: EventFacts::default(),
            write_back: (!refilled).then(|| Box::new(target)),
            held: None,
        })
    }

    fn settlement(
        event: Arc<Event>,
        durable_in: DurableIn,
        outcome: DeliveryOutcome,
    ) -> Settlement {
        let endpoint = EndpointIndex(0);
        Settlement { event, endpoint, outcome, durable_in, attempts: 1, history: None }
    }

    fn delivered() -> DeliveryOutcome {
        DeliveryOutcome::Delivered { status: 200, took: Duration::ZERO }
    }

    fn dead() -> DeliveryOutcome {
        DeliveryOutcome::Dead { reason: DeathReason::BacklogFull }
    }

    fn parked() -> DeliveryOutcome {
        DeliveryOutcome::Parked { next_attempt: None, reason: ParkReason::Outage }
    }

    #[test]
    fn resends_and_events_without_a_write_back_are_not_counted() {
        let mut tallies = OutcomeTallies::default();
        let letter = DurableIn::Replay(ReplayId::Letter(1));
        tallies.settled(&settlement(event(1, false), letter, delivered()));
        tallies.settled(&settlement(event(2, true), DurableIn::Wal, delivered()));
        tallies.settled(&settlement(event(3, false), DurableIn::Backlog, parked()));
        assert!(tallies.is_empty());
    }

    proptest! {
        /// Whatever lies between two flushes: the sums are those of the outcomes, and an event that
        /// is in the backlog is known to the table since it was parked.
        #[test]
        fn the_flushes_of_an_event_add_up_to_its_outcomes(
            steps in prop::collection::vec((0..4_u64, 0..4_u8, any::<bool>(), any::<bool>()), 0..80),
        ) {
            let (mut tallies, mut rows, mut expected) =
                (OutcomeTallies::default(), HashMap::new(), HashMap::new());
            let mut add = |tallies: OutcomeTallies| {
                for row in tallies.into_rows() {
                    let known = row.target.is_some();
                    let sum: &mut (bool, u32, u32) = rows.entry(row.event).or_default();
                    prop_assert!(known || sum.0, "counted before it was in the table");
                    *sum = (sum.0 || known, sum.1 + row.delivered, sum.2 + row.failed);
                }
                Ok(())
            };
            for (number, what, good, flush) in steps {
                let outcome = if good { delivered() } else { dead() };
                let outcomes = match what {
                    // At once, or after it was parked: still in memory, or read back.
                    0 => vec![(DurableIn::Wal, false, outcome)],
                    1 => vec![(DurableIn::Wal, false, parked()), (DurableIn::Backlog, false, outcome)],
                    2 => vec![(DurableIn::Wal, false, parked()), (DurableIn::Backlog, true, outcome)],
                    _ => vec![(DurableIn::Wal, false, parked()), (DurableIn::Backlog, true, parked())],
                };
                for (durable_in, refilled, outcome) in outcomes {
                    tallies.settled(&settlement(event(number, refilled), durable_in, outcome));
                    if flush {
                        add(std::mem::take(&mut tallies))?;
                    }
                }
                let sum: &mut (bool, u32, u32) =
                    expected.entry(event(number, false).id).or_default();
                let counts = u32::from(what < 3);
                let (won, lost) = if good { (counts, 0) } else { (0, counts) };
                *sum = (true, sum.1 + won, sum.2 + lost);
            }
            add(tallies)?;
            prop_assert_eq!(rows, expected);
        }
    }
}
