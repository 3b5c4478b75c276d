//! The invariants of a lane with a backlog, checked after each step of the model.

use super::*;

impl World {
    pub(super) fn check_lease(&self, lease: &Lease) {
        assert!(self.leases.len() < self.settings.concurrency.get());
        assert!(!self.is_disabled && !self.is_paused, "a request while nothing is to be sent");
        assert!(!self.is_doomed(), "a request to an endpoint that is no more");
        let is_again = lease.events.iter().any(|event| self.failed.contains(&event.sequence));
        let size = if is_again { self.batch_max } else { self.settings.batch.size.get() };
        assert!(!lease.events.is_empty() && lease.events.len() <= size);
        let state = self.lane.breaker(self.now);
        assert_ne!(state, BreakerState::Open, "a request while the breaker is open");
        let members: Vec<u64> = lease.events.iter().map(|event| event.sequence).collect();
        let flying = self.leases.iter().flat_map(|lease| &lease.events);
        let flying = flying.filter(|event| !self.begun_before.contains(&event.sequence));
        let flying: Vec<&Arc<Event>> = flying.collect();
        for event in &lease.events {
            let number = event.sequence;
            let is_alone = flying.iter().all(|other| !self.are_ordered(event, other));
            assert!(
                is_alone || self.begun_before.contains(&number),
                "{number} is sent while another one with its key is in flight"
            );
            assert_eq!(lease.replay, number >= REPLAYS_FROM, "replays and others are mixed");
            assert!(matches!(self.at[&number], At::Owed { .. }), "{number} is settled");
            let is_over = event.expiry.is_some_and(|e| e.is_over(self.time().database));
            assert!(!is_over, "{number} has expired");
            assert_eq!(self.attempts[&number] + 1, lease.attempt, "attempts of {number}");
            for ahead in self.ahead_of(number) {
                assert!(members.contains(&ahead), "{number} overtakes {ahead}");
            }
        }
    }

    /// Whether everything is given up.
    pub(super) fn is_doomed(&self) -> bool {
        self.is_gone || self.is_deleted
    }

    fn keys(&self, event: &Event) -> Vec<KeyHash> {
        match self.settings.ordering {
            KeyOrdering::Key => event.keys.iter().collect(),
            KeyOrdering::Strict => vec![KeyHash::from_raw(99)],
            KeyOrdering::None => Vec::new(),
        }
    }

    /// Whether two events go one after the other: all are of one table.
    fn are_ordered(&self, one: &Event, other: &Event) -> bool {
        let has_barrier = one.keys.is_barrier() || other.keys.is_barrier();
        let keys = self.keys(one);
        self.settings.ordering == KeyOrdering::Key && has_barrier
            || self.keys(other).iter().any(|key| keys.contains(key))
    }

    /// Events of earlier changes with a common key that are still owed, in memory or not.
    pub(super) fn ahead_of(&self, number: u64) -> Vec<u64> {
        let Ok(place) = usize::try_from(number) else { return Vec::new() };
        let Some(known) = self.known.get(place) else { return Vec::new() };
        if self.begun_before.contains(&number) {
            return Vec::new();
        }
        let is_ahead = |&(earlier, other): &(u64, &Known)| {
            let is_settled = other.is_final || self.at.get(&earlier) == Some(&At::Settled);
            let is_earlier = other.event.position < known.event.position;
            is_earlier && !is_settled && self.are_ordered(&known.event, &other.event)
        };
        let earlier = (0..number).zip(&self.known).filter(is_ahead);
        earlier.map(|(earlier, _)| earlier).collect()
    }

    /// Every place is held or free, and memory keeps to the capacity.
    pub(super) fn check_places(&self) {
        let counts = self.lane.counts();
        let in_memory = counts.queued + counts.in_flight + counts.retrying;
        let held = in_memory + self.lane.reserved();
        let capacity = self.settings.capacity.get().cast_signed();
        assert_eq!(held.cast_signed() + self.own_free, capacity, "{counts:?}");
        let is_resting = self.is_disabled && !self.is_doomed();
        assert!(!is_resting || self.lane.reserved() == 0, "places for rows that do not come");
        let each = self.settings.weight(&event_of(0, EventKeys::NONE, None));
        assert_eq!(self.weight, ((in_memory - counts.replays) * each).cast_signed());
        assert_eq!(self.overflow_free, OVERFLOW);
        assert_eq!(counts.replays + self.replays_free, REPLAYS);
        let in_flight: usize = self.leases.iter().map(|lease| lease.events.len()).sum();
        assert_eq!(counts.in_flight, in_flight);
        let owed = |number: u64| matches!(self.at.get(&number), Some(At::Owed { .. }));
        let pending = (0..).zip(&self.known).filter(|(number, known)| {
            owed(*number) || known.is_confirmed && !known.is_final && !self.at.contains_key(number)
        });
        let replays = self.replays.keys().filter(|number| owed(**number)).count();
        assert_eq!(
            (pending.count(), replays),
            (in_memory - counts.replays + counts.outside, counts.replays)
        );
    }

    /// Nothing holds the WAL for longer than it may.
    pub(super) fn check_wal(&self) {
        let flying: HashSet<u64> =
            self.leases.iter().flat_map(|l| l.events.iter().map(|e| e.sequence)).collect();
        let is_open = self.lane.breaker(self.now) != BreakerState::Closed;
        let is_out = self.is_disabled || self.is_paused || self.is_doomed() || is_open;
        let mut durable_in = 0;
        for (number, holds) in &self.durable_in {
            let At::Owed { since } = self.at[number] else { continue };
            let is_told = self.reported.get(number) == self.attempts.get(number);
            let is_parked = *holds == DurableIn::Backlog && !flying.contains(number);
            assert!(is_told || !is_parked, "the row of {number} does not know of its attempts");
            if *holds != DurableIn::Wal {
                continue;
            }
            durable_in += 1;
            if flying.contains(number) {
                continue;
            }
            assert!(!is_out, "{number} holds the WAL while nothing is sent");
            let is_in_tail = self.lane.counts().outside > 0
                && self.lane.spill.as_ref().unwrap().tail.iter().any(|e| e.sequence == *number);
            assert!(!is_in_tail || self.now < since + TAIL_PATIENCE, "{number} is stuck");
            for ahead in self.ahead_of(*number) {
                let is_parked = self.durable_in.get(&ahead) == Some(&DurableIn::Backlog);
                assert!(!is_parked || is_in_tail, "{number} waits for {ahead}, which is parked");
            }
        }
        assert_eq!(self.lane.is_durable(), durable_in == 0);
    }
}
