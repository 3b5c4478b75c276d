//! Refills a lane from the backlog: which page to read, and what becomes of its rows.

use std::time::Instant;

use crate::flow::backlog::RefilledRow;
use crate::lane::core::DeliveryPhase;
use crate::lane::core::LaneNow;
use crate::lane::core::LaneState;
use crate::lane::core::spill::RefillWanted;

impl LaneState {
    /// How many deliveries of the backlog the lane would take now.
    pub fn refill_room(&self, now: Instant) -> usize {
        match &self.spill {
            Some(spill) if spill.next_page.is_none_or(|at| at <= now) => self.refill_wish(now),
            _ => 0,
        }
    }

    /// Gives the lane more places for deliveries of the backlog, and tells which page to read into
    /// all it has; `None` if it has none. [`LaneState::refilled`] or [`LaneState::refill_failed`] must follow.
    pub fn start_refill(&mut self, granted: usize, now: Instant) -> Option<RefillWanted> {
        let room = self.refill_wish(now);
        let spill = self.spill.as_mut()?;
        spill.reserved += granted;
        let rows = spill.reserved.min(room);
        if rows == 0 {
            return None;
        }
        (spill.is_loading, spill.may_pass_through) = (true, false);
        let (after, passed) = spill.cursor.read_on();
        // Of what has left memory, rows stand between others that are there still.
        let held = if spill.cursor.is_complete() { 0 } else { self.order.len() };
        Some(RefillWanted { after, limit: rows + passed + held })
    }

    /// Takes in a page of the backlog.
    pub fn refilled(&mut self, page: Vec<RefilledRow>, now: LaneNow) {
        if self.phase == DeliveryPhase::Stopped {
            return;
        }
        let mut has_new_rows = false;
        for row in page {
            let Some(spill) = &mut self.spill else { return };
            if spill.cursor.has_passed(&row.event) {
                continue;
            }
            let has_place = spill.outside > 0 && spill.reserved > 0;
            if !has_place
                || spill.is_ahead_of_expected(&row)
                || spill.cursor.is_ahead_of_evicted(&row.event)
            {
                break;
            }
            let resume = spill.cursor.come_in(&row.event, row.at.row);
            spill.expected.remove(&(row.event.position, row.event.id));
            (spill.outside, spill.reserved) = (spill.outside - 1, spill.reserved - 1);
            has_new_rows = true;
            self.take_in(row, resume, now);
        }
        if let Some(spill) = &mut self.spill {
            spill.pace_pages(has_new_rows, now.instant);
        }
        self.close_seam(now);
        self.end_spilling_if_done(now);
        self.sweep_refilled(now);
    }

    /// The backlog could not be read.
    pub fn refill_failed(&mut self, now: Instant) {
        if let Some(spill) = &mut self.spill {
            spill.pace_pages(false, now);
        }
    }
}
