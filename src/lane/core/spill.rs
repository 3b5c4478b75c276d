//! The seam between memory and backlog: which deliveries are *outside*, in the backlog only, and
//! how they come back.
//!
//! ```text
//!   in memory, also parked     │ outside             │ tail: in memory, holds the WAL
//!   ───────────────────────────┼─────────────────────┼───────────────────────────────▶ commits
//!                              cursor
//! ```
//!
//! Memory always holds the oldest deliveries. While something is outside the lane *spills*: what
//! arrives is parked at once and goes outside as well, because it is newer. Pages of the backlog are
//! read from the cursor on, whenever less than half of the memory is in use.
//!
//! With events arriving all the time there would always be some whose rows are not committed yet,
//! and the spilling would never end. So once a page shows that only such are left, the seam *closes*:
//! what arrives stays in memory as the tail, and lines up behind the last row. Some places are kept
//! for rows meanwhile. If it takes too long, the tail goes outside after all, and the lane waits
//! before it tries again: its sender may have been waiting too.
//!
//! Rows become visible in the order in which they were parked, but for what arrives again after a
//! crash: an event that had not been parked then can be older than rows that are there already. It
//! comes before walhook has caught up with [`BacklogStanding::newest`]; until then nothing is read, and
//! after that the cursor does not pass an event that is expected and not there yet. Only events of
//! one and the same change may change their order that way: rows stand in the order of parking there.

mod refill;

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::config::settings::BacklogLimits;
use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::BacklogStanding;
use crate::flow::backlog::RefilledRow;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::lsn::Position;
use crate::flow::park_reason::ParkReason;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::lane::core::DeliveryPhase;
use crate::lane::core::LaneNow;
use crate::lane::core::LaneState;
use crate::lane::core::breaker::BreakerState;
use crate::lane::core::counts::DeliveryPlace;
use crate::lane::core::cursor::LaneCursor;
use crate::lane::core::order::ArrivedEvent;
use crate::lane::core::pace::later;
use crate::lane::core::retry_queue::AttemptCount;
use crate::lane::core::retry_queue::ResumedDelivery;
use crate::lane::settings::LaneParking;

/// Rows of a page: enough to keep an endpoint busy while the next one is read.
pub(super) const PAGE_ROWS_MAX: usize = 512;

/// Waits after a page without a new row, growing: it may take a moment until what was parked is
/// committed.
const EMPTY_PAGE_WAIT: Duration = Duration::from_millis(25);
const EMPTY_PAGE_WAIT_MAX: Duration = Duration::from_secs(2);

/// The seam is not closed while more than so many times the lane's capacity is outside: a page may
/// be short for other reasons.
const CLOSING_MAX: usize = 10;

/// Waits after the seam could not be closed, growing.
const CLOSING_WAIT: Duration = Duration::from_secs(1);
const CLOSING_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long the seam may take to close: so long may the tail hold the WAL.
pub(super) const TAIL_PATIENCE: Duration = Duration::from_secs(2);

/// What to ask the backlog for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RefillWanted {
    /// Rows after this one; `None` means from the first.
    pub after: Option<BacklogPosition>,
    pub limit: usize,
}

#[derive(Debug)]
pub(super) struct BacklogSpill {
    /// A longer wait for the next attempt parks the delivery.
    pub(super) after: Duration,
    pub(super) limits: BacklogLimits,
    /// Deliveries that are in the backlog only, with those whose rows are not committed yet.
    pub(super) outside: usize,
    pub(super) cursor: LaneCursor,
    /// Until an event beyond this position arrives, events can be older than rows.
    catching_up: Option<Position>,
    expected: BTreeSet<(Position, EventId)>,
    pub(super) tail: VecDeque<Arc<Event>>,
    /// Until then the seam is closing: what arrives goes into the tail.
    closing: Option<Instant>,
    /// The seam is not closed before; `None` means as soon as it can be.
    next_closing: Option<Instant>,
    closing_wait: Duration,
    is_loading: bool,
    /// Places that are kept free for rows.
    reserved: usize,
    /// No page is read before; `None` means at once.
    next_page: Option<Instant>,
    page_wait: Duration,
    pub(super) sweep_at: Option<Instant>,
    /// Whether rows may come in to be looked at although the endpoint is out of order.
    pub(super) may_pass_through: bool,
}

impl BacklogSpill {
    pub(super) fn new(parking: &LaneParking) -> Self {
        let standing = parking.standing.filter(|standing| standing.rows > 0);
        Self {
            after: parking.terms.after,
            limits: parking.terms.backlog,
            outside: standing.map_or(0, |standing| standing.rows),
            cursor: LaneCursor::default(),
            catching_up: standing.map(|BacklogStanding { newest, .. }| newest),
            expected: BTreeSet::new(),
            tail: VecDeque::new(),
            closing: None,
            next_closing: None,
            closing_wait: CLOSING_WAIT,
            is_loading: false,
            reserved: 0,
            next_page: None,
            page_wait: EMPTY_PAGE_WAIT,
            sweep_at: None,
            may_pass_through: false,
        }
    }

    /// A page has come, or failed to. Without a new row it is not asked for again at once.
    fn pace_pages(&mut self, has_new_rows: bool, now: Instant) {
        self.is_loading = false;
        if has_new_rows {
            (self.next_page, self.page_wait) = (None, EMPTY_PAGE_WAIT);
        } else {
            self.next_page = Some(later(now, self.page_wait));
            // While the seam closes, what is missing is about to be committed.
            let factor = if self.closing.is_some() { 1 } else { 2 };
            self.page_wait = (self.page_wait * factor).min(EMPTY_PAGE_WAIT_MAX);
        }
    }

    /// Whether all that can be older than rows has arrived.
    pub(super) fn is_caught_up(&self) -> bool {
        self.catching_up.is_none() && self.expected.is_empty()
    }

    /// The next page is read at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.cursor.restart(now);
        (self.next_page, self.page_wait) = (None, EMPTY_PAGE_WAIT);
    }

    /// Whether an event that was parked after this row's, and is older, is not there yet.
    fn is_ahead_of_expected(&self, row: &RefilledRow) -> bool {
        let first = self.expected.first();
        first.is_some_and(|(first, _)| *first < row.at.position)
    }
}

impl LaneState {
    /// Whether something is outside, so that what arrives cannot simply be kept.
    pub fn is_spilling(&self) -> bool {
        self.outside() > 0
    }

    /// Whether the lane takes what arrives into memory, if there is room.
    pub fn is_taking(&self) -> bool {
        self.spill.as_ref().is_none_or(|spill| spill.outside == 0 || spill.closing.is_some())
    }

    /// All events that had been taken before walhook started have been offered again.
    pub fn caught_up(&mut self) {
        if let Some(spill) = &mut self.spill {
            spill.catching_up = None;
        }
    }

    /// Takes in an event that cannot be kept: because others are outside, or for want of a place.
    pub(super) fn offer_outside(&mut self, event: Arc<Event>, place: DeliveryPlace, now: LaneNow) {
        // It cannot stay, so that what is in memory cannot be newer. An empty tail is no hindrance:
        // then the event was on its way already when the seam began to close.
        if place == DeliveryPlace::Overflow && self.tail_len() > 0 {
            self.end_tail(now);
        }
        let held_off = self.held_off();
        let Some(spill) = &mut self.spill else {
            debug_assert!(false, "nothing overflows where nothing can be parked");
            return self.keep_arrival(event, now);
        };
        if spill.closing.is_some() && place == DeliveryPlace::Own {
            spill.tail.push_back(event);
            return;
        }
        match spill.catching_up {
            Some(newest) if event.position <= newest => {
                spill.expected.insert((event.position, event.id));
            }
            _ => spill.catching_up = None,
        }
        let reason = match (held_off, place) {
            (Some(reason), _) => reason,
            (None, DeliveryPlace::Overflow) => ParkReason::Full,
            (None, DeliveryPlace::Own) => ParkReason::Behind,
        };
        self.free(place, &event);
        self.put_outside(event, reason);
    }

    /// Places that the lane keeps free for deliveries of the backlog.
    pub fn reserved(&self) -> usize {
        self.spill.as_ref().map_or(0, |spill| spill.reserved)
    }

    /// Of places that have become free, keeps what it wants for deliveries of the backlog; returns
    /// the others.
    pub fn keep_positions(&mut self, places: usize, now: Instant) -> usize {
        let goal = self.reserve_goal(now);
        let Some(spill) = &mut self.spill else { return places };
        let kept = places.min(goal.saturating_sub(spill.reserved));
        spill.reserved += kept;
        places - kept
    }

    pub(super) fn outside(&self) -> usize {
        self.spill.as_ref().map_or(0, |spill| spill.outside)
    }

    pub(super) fn tail_len(&self) -> usize {
        self.spill.as_ref().map_or(0, |spill| spill.tail.len())
    }

    pub(super) fn pop_tail(&mut self) -> Option<Arc<Event>> {
        self.spill.as_mut()?.tail.pop_front()
    }

    /// When a page may be read, the seam has not closed in time, or the limits are looked at; what
    /// waits for a place or an outcome has no time.
    pub(super) fn next_care_at(&self, now: Instant) -> Option<Instant> {
        let spill = self.spill.as_ref()?;
        let page = spill.next_page.filter(|&at| at > now && self.refill_wish(now) > 0);
        [page, spill.closing, spill.sweep_at].into_iter().flatten().min()
    }

    pub(super) fn end_tail_if_due(&mut self, now: LaneNow) {
        let closing = self.spill.as_ref().and_then(|spill| spill.closing);
        if closing.is_some_and(|until| until <= now.instant) {
            self.end_tail(now);
        }
    }

    /// The tail does not wait any longer: it goes outside.
    pub(super) fn end_tail(&mut self, now: LaneNow) {
        let Some(spill) = &mut self.spill else { return };
        if spill.closing.take().is_some() {
            spill.next_closing = Some(later(now.instant, spill.closing_wait));
            spill.closing_wait = (spill.closing_wait * 2).min(CLOSING_WAIT_MAX);
        }
        while let Some(event) = self.pop_tail() {
            self.free(DeliveryPlace::Own, &event);
            self.put_outside(event, ParkReason::Behind);
        }
    }

    /// How many rows the lane would take if a page could be read at once.
    fn refill_wish(&self, now: Instant) -> usize {
        match &self.spill {
            Some(spill) if !spill.is_loading => self.reserve_goal(now),
            _ => 0,
        }
    }

    /// How many places the lane wants to have for rows; never more than there are rows outside.
    fn reserve_goal(&self, now: Instant) -> usize {
        let Some(spill) = &self.spill else { return 0 };
        if spill.catching_up.is_some() || self.phase == DeliveryPhase::Stopped {
            return 0;
        }
        let capacity = self.settings.capacity.get();
        let page = spill.outside.min(PAGE_ROWS_MAX).min(capacity);
        if self.doom().is_some() {
            return page;
        }
        if self.is_disabled {
            return 0;
        }
        if spill.closing.is_some() {
            return page.min(capacity.div_ceil(2));
        }
        let held = self.order.len() + spill.tail.len();
        let page = page.min(capacity.saturating_sub(held));
        // Retries wait where they are: they must not keep out what can be sent meanwhile.
        let has_room = (held - self.retries.events()) * 2 < capacity;
        if self.is_paused {
            // To be looked at only.
            return if has_room && spill.may_pass_through { page } else { 0 };
        }
        match self.breaker.state(now) {
            BreakerState::Closed if has_room => page,
            BreakerState::Open if has_room && spill.may_pass_through => page,
            BreakerState::HalfOpen if self.needs_probe(now) => {
                page.min(self.settings.batch.size.get())
            }
            BreakerState::Closed | BreakerState::Open | BreakerState::HalfOpen => 0,
        }
    }

    /// Whether a probe may be sent, and nothing in memory can be it.
    fn needs_probe(&self, now: Instant) -> bool {
        let has_due_retry = self.retries.next_due().is_some_and(|due| due <= now);
        self.breaker.free_at(now).is_some() && self.ready.is_empty() && !has_due_retry
    }

    fn put_outside(&mut self, event: Arc<Event>, reason: ParkReason) {
        let parked = DeliveryOutcome::Parked { next_attempt: None, reason };
        self.settle(event, DurableIn::Wal, &AttemptCount::default(), parked);
        if let Some(spill) = &mut self.spill {
            spill.outside += 1;
        }
        self.freed.outside += 1;
    }

    /// `resume` is what the lane itself knows of the row's attempts.
    fn take_in(&mut self, row: RefilledRow, resume: Option<ResumedDelivery>, now: LaneNow) {
        let RefilledRow { event, parked, attempts, due, history, .. } = row;
        self.loaded += self.settings.weight(&event);
        let (mut tries, known_due) = match resume {
            Some(ResumedDelivery { tries, due }) => (tries, Some(due)),
            None => (AttemptCount { attempts, unspent: 0, history }, None),
        };
        let mut wait = due.map_or(Duration::ZERO, |due| due.since(now.database));
        let is_told = self.anew.is_some() && known_due.is_none();
        let begins_anew = is_told && (tries.attempts > 0 || !wait.is_zero());
        if begins_anew {
            tries.restart();
            wait = Duration::ZERO;
        }
        if let Some(reason) = self.doom() {
            self.free(DeliveryPlace::Own, &event);
            self.settle(event, DurableIn::Backlog, &tries, DeliveryOutcome::Dead { reason });
            return;
        }
        let continues =
            tries.attempts > 0 || tries.history.is_some() || known_due.is_some() || !wait.is_zero();
        let due = known_due.unwrap_or_else(|| later(now.instant, wait));
        let resume = continues.then(|| ResumedDelivery { tries: tries.clone(), due });
        let slot =
            self.keep(ArrivedEvent { event, durable_in: DurableIn::Backlog, parked, resume }, now);
        if begins_anew {
            let reason = self.held_off().unwrap_or(ParkReason::Retry);
            self.report_parked(slot, &tries, Some(now.database), reason);
        }
    }

    /// If the page has left places over, only rows that are not committed yet are outside.
    fn close_seam(&mut self, now: LaneNow) {
        let most = self.settings.capacity.get().saturating_mul(CLOSING_MAX);
        let is_held_off = self.held_off().is_some();
        let Some(spill) = &mut self.spill else { return };
        let may_close = !is_held_off
            && (1..=most).contains(&spill.outside)
            && spill.closing.is_none()
            && spill.reserved > 0
            && spill.expected.is_empty()
            && spill.cursor.is_complete()
            && spill.next_closing.is_none_or(|at| at <= now.instant);
        if may_close {
            spill.closing = Some(now.instant + TAIL_PATIENCE);
            spill.page_wait = EMPTY_PAGE_WAIT;
            let goal = self.reserve_goal(now.instant);
            self.release_reserved(goal);
        }
    }

    /// Gives back the places for rows that are more than this.
    pub(super) fn release_reserved(&mut self, goal: usize) {
        let Some(spill) = &mut self.spill else { return };
        let excess = spill.reserved.saturating_sub(goal);
        spill.reserved -= excess;
        self.freed.own += excess;
    }

    fn end_spilling_if_done(&mut self, now: LaneNow) {
        let Some(spill) = &mut self.spill else { return };
        if spill.outside > 0 {
            return;
        }
        debug_assert_eq!(spill.reserved, 0, "places are reserved for what is outside only");
        (spill.closing, spill.next_closing) = (None, None);
        spill.closing_wait = CLOSING_WAIT;
        // Nothing is outside any more: the tail follows.
        while let Some(event) = self.pop_tail() {
            self.keep_arrival(event, now);
        }
    }
}
