//! What an operator does to the lane, and crashes.

use super::*;

impl World {
    pub(super) fn switch(&mut self, enabled: bool) {
        match enabled {
            true => self.lane.enable(),
            false => self.lane.disable(self.time()),
        }
        self.is_disabled = !enabled;
        self.is_gone &= !enabled;
        self.note_settled();
    }

    pub(super) fn pause(&mut self, paused: bool) {
        match paused {
            true => self.lane.pause(self.time()),
            false => self.lane.resume(),
        }
        self.is_paused = paused;
        self.note_settled();
    }

    /// Whatever was tried of what is not in flight counts no more.
    pub(super) fn try_now(&mut self) {
        let flying: HashSet<u64> =
            self.leases.iter().flat_map(|l| l.events.iter().map(|e| e.sequence)).collect();
        for (number, attempts) in &mut self.attempts {
            if matches!(self.at[number], At::Owed { .. }) && !flying.contains(number) {
                *attempts = 0;
                // That its row is told is for `live_tests`: it may not have been taken in yet.
                self.reported.entry(*number).and_modify(|reported| *reported = 0);
            }
        }
        self.anew = Some(self.last_lease);
        self.is_gone = false;
        self.lane.try_now(self.time());
        self.note_settled();
    }

    /// As the operator's settings come, without the lane's share of memory.
    pub(super) fn reconfigure(&mut self, settings: LaneSettings) {
        let places = |settings: &LaneSettings| settings.capacity.get().cast_signed();
        self.own_free += places(&settings) - places(&self.settings);
        self.batch_max = self.batch_max.max(settings.batch.size.get());
        if settings.ordering != self.settings.ordering {
            let begun = self.attempts.iter().filter(|(_, attempts)| **attempts > 0);
            self.begun_before = begun.map(|(number, _)| *number).collect();
            self.begun_before.extend(&self.failed);
        }
        let share_bytes = self.settings.share_bytes;
        self.settings = LaneSettings { share_bytes, ..settings.clone() };
        self.lane.reconfigure(LaneSettings { share_bytes: usize::MAX, ..settings }, self.time());
        self.is_gone = false;
        if self.settings.parking.as_ref().unwrap().terms.breaker.is_none() {
            self.probes.clear();
        }
        self.note_settled();
    }

    pub(super) fn delete(&mut self) {
        self.lane.delete();
        self.is_deleted = true;
        self.note_settled();
    }

    pub(super) fn crash(&mut self) {
        let newest = self.rows.keys().next_back().map(|at| at.position);
        let is_out = self.lane.breaker(self.now) != BreakerState::Closed;
        let standing =
            newest.map(|newest| BacklogStanding { rows: self.rows.len(), newest, is_out });
        let mut settings = self.settings.clone();
        settings.parking.as_mut().unwrap().standing = standing;
        let fresh = Self::new(settings.clone());
        let known = std::mem::take(&mut self.known);
        let rows = std::mem::take(&mut self.rows);
        let (start, now, last_row) = (self.start, self.now, self.last_row);
        let (is_disabled, is_paused) = (self.is_disabled, self.is_paused);
        let is_deleted = self.is_deleted;
        let caught_up_at = known.len();
        *self = Self { start, now, known, rows, last_row, caught_up_at, ..fresh };
        // A page that was read before the crash never comes.
        self.settings = settings;
        if is_deleted {
            self.delete();
        } else {
            if is_disabled {
                self.switch(false);
            }
            self.pause(is_paused);
        }
    }
}
