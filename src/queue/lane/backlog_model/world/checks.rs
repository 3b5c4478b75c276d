//! The promises, checked after each step.

use super::*;

impl World {
    pub(super) fn check_lease(&self, lease: &Lease) {
        assert!(self.leases.len() < self.settings.concurrency.get());
        assert!(!self.is_paused, "a request while the endpoint is disabled");
        assert!(!lease.events.is_empty() && lease.events.len() <= self.settings.batch.size.get());
        let state = self.lane.breaker(self.now);
        assert_ne!(state, BreakerState::Open, "a request while the breaker is open");
        let members: Vec<u64> = lease.events.iter().map(|event| event.sequence).collect();
        for event in &lease.events {
            let number = event.sequence;
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

    /// Events of earlier changes with a common key that are still owed, in memory or not.
    pub(super) fn ahead_of(&self, number: u64) -> Vec<u64> {
        let Ok(place) = usize::try_from(number) else { return Vec::new() };
        let Some(known) = self.known.get(place) else { return Vec::new() };
        let is_ahead = |&(earlier, other): &(u64, &Known)| {
            let is_settled = other.is_final || self.at.get(&earlier) == Some(&At::Settled);
            let is_earlier = other.event.position < known.event.position;
            is_earlier && !is_settled && known.keys.iter().any(|key| other.keys.contains(key))
        };
        let earlier = (0..number).zip(&self.known).filter(is_ahead);
        earlier.map(|(earlier, _)| earlier).collect()
    }

    /// Every place is held by somebody, and memory keeps to the capacity.
    pub(super) fn check_places(&self) {
        let counts = self.lane.counts();
        let in_memory = counts.queued + counts.in_flight + counts.retrying;
        let held = in_memory + self.lane.reserved();
        assert_eq!(held + self.own_free, self.settings.capacity.get(), "{counts:?}");
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
        let is_out = self.is_paused || self.lane.breaker(self.now) != BreakerState::Closed;
        let mut holding = 0;
        for (number, holds) in &self.holding {
            let At::Owed { since } = self.at[number] else { continue };
            let is_told = self.reported.get(number) == self.attempts.get(number);
            let is_parked = *holds == Holding::Backlog && !flying.contains(number);
            assert!(is_told || !is_parked, "the row of {number} does not know of its attempts");
            if *holds != Holding::Wal {
                continue;
            }
            holding += 1;
            if flying.contains(number) {
                continue;
            }
            assert!(!is_out, "{number} holds the WAL while nothing is sent");
            let is_in_tail = self.lane.counts().outside > 0
                && self.lane.spill.as_ref().unwrap().tail.iter().any(|e| e.sequence == *number);
            assert!(!is_in_tail || self.now < since + TAIL_PATIENCE, "{number} is stuck");
            for ahead in self.ahead_of(*number) {
                let is_parked = self.holding.get(&ahead) == Some(&Holding::Backlog);
                assert!(!is_parked || is_in_tail, "{number} waits for {ahead}, which is parked");
            }
        }
        assert_eq!(self.lane.is_durable(), holding == 0);
    }
}
