//! When the ledger flushes, and what follows: what is due, what a flush takes along, what is published after it.

use std::time::Duration;

use tokio::time::Instant;

use crate::flow::lsn::Lsn;
use crate::flow::pump_report::OpenedAs;
use crate::ledger::FlushEnd;
use crate::ledger::Ledger;
use crate::ledger::standby_copies::StandbyCopies;
use crate::ledger::writer::FlushTarget;
use crate::store::flush::StateFlush;

/// Outcomes wait at most about this long before they are committed.
const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// While only others write to the database, its WAL is confirmed in steps of this size, and not more
/// often than that: a step has to be written to the state, which is WAL again, of far fewer bytes.
const IDLE_FLUSH_BYTES: u64 = 64 * 1024;

const IDLE_FLUSH_AFTER: Duration = Duration::from_secs(1);

/// How often partitions of the push log are made ahead and dropped.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);

impl<T: FlushTarget + 'static> Ledger<T> {
    /// Looks at what the turn has changed.
    pub(super) fn after_reports(&mut self) {
        let passed = self.watermark.take_passed();
        for step in self.watermark.take_backfilled() {
            self.pending.backfilled(step);
        }
        let begun = passed.keys().filter(|note| note.opened_as == OpenedAs::Begun);
        let begun = begun.map(|note| note.endpoints_version).max();
        for (note, times) in passed {
            self.pending.noted(note, times);
        }
        if let Some(endpoints_version) = begun {
            self.pending.post(&self.names);
            self.names.forget_before(endpoints_version);
        }
        if self.pending.is_empty() {
            self.retire();
        }
        if self.pending.is_empty() && self.flushing.is_none() {
            // Keepalives, and what concerned no rule.
            if self.has_moved_far() {
                self.due_within(IDLE_FLUSH_AFTER);
            }
            if self.has_settled_more() {
                self.due_within(FLUSH_AFTER);
            }
            self.publish(self.watermark.confirmable().min(self.stored));
        } else if !self.pending.is_empty() {
            self.due_within(FLUSH_AFTER);
        }
        if self.copies.is_some() {
            // A standby may have got what it lacked.
            self.publish(self.watermark.confirmable().min(self.stored));
        }
        self.stats.set_oldest_open(self.watermark.oldest());
        if self.settled.receiver_count() > 0 {
            self.settled.send_replace(self.watermark.settled());
        }
    }

    /// There is something to commit within this time, whatever else is to be committed later.
    pub(super) fn due_within(&mut self, wait: Duration) {
        let now = Instant::now();
        let at = self.ticks.map_or(now + wait, |ticks| ticks.after(now, wait));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Whether the WAL of others has to be confirmed.
    pub(super) fn has_moved_far(&self) -> bool {
        self.watermark.confirmable().bytes_since(self.stored) >= IDLE_FLUSH_BYTES
    }

    /// Whether the tail waits for what is settled, and the state does not say all of it.
    pub(super) fn has_settled_more(&self) -> bool {
        self.settled_is_awaited && self.watermark.settled() > self.written
    }

    pub(super) fn next_deadline(&self) -> Instant {
        if self.renaming.is_some() {
            return Instant::now();
        }
        self.due.unwrap_or(self.housekeeping).min(self.housekeeping)
    }

    /// Starts a flush, or the housekeeping, if it is time and none is under way.
    pub(super) fn start_flush(&mut self, ending: bool) {
        let now = Instant::now();
        let due = self.due.is_some_and(|due| due <= now) || self.fills(1);
        let do_housekeeping = self.housekeeping <= now && !ending;
        let has_work = !self.pending.is_empty() || self.has_moved_far() || self.has_settled_more();
        let flush_now = has_work && (due || ending || do_housekeeping) || self.renaming.is_some();
        if !flush_now && !do_housekeeping {
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        if do_housekeeping {
            self.housekeeping = now + HOUSEKEEPING;
        }
        self.due = None;
        let (mut flush, replayed) = if flush_now {
            let taken = self.pending.take(&self.names, &self.watermark, &self.endpoint_watermarks);
            self.retire();
            taken
        } else {
            (StateFlush::default(), Vec::new())
        };
        if flush_now {
            self.written = flush.settled.max(self.written);
            let passed = self.sightings.pass(flush.settled, &self.event_types);
            (flush.seen, flush.forget) = (passed.values, passed.forget);
            flush.confirmed_at = flush.confirmed.and_then(|at| self.commit_times.before(at));
            flush.renames = self.rename();
        }
        self.completes = flush.completes_write_backs();
        let (resender, backfills) = (self.replayed.clone(), self.backfills.clone());
        // Without a flush nothing more is written down, and so nothing more may be confirmed.
        let confirmable = if flush_now { self.watermark.confirmable() } else { self.stored };
        let today = self.clock.now();
        let flush_seconds = self.flush_seconds.clone();
        let connection = self.copies.as_ref().map(StandbyCopies::connection);
        self.flushing = Some(Box::pin(async move {
            if do_housekeeping && let Err(error) = writer.do_housekeeping(today).await {
                // The flush makes the days that it needs; old ones go the next time.
                let error = anyhow::Error::new(error);
                tracing::warn!(error = %format!("{error:#}"), "cannot tend the push log's partitions");
            }
            let begun = Instant::now();
            let flushed = if flush_now { writer.commit(&flush).await } else { Ok(()) };
            if flush_now {
                flush_seconds.observe(begun.elapsed().as_secs_f64());
            }
            if flushed.is_ok() {
                resender.note(replayed);
                backfills.note(&flush.backfilled);
            }
            let wal_end = match connection.filter(|_| flush_now && flushed.is_ok()) {
                Some(connection) => writer.wal_end().await.map(|end| (connection, end)),
                None => None,
            };
            (writer, flushed.map(|()| FlushEnd { confirmable, wal_end }))
        }));
    }

    pub(super) fn wake_write_backs(&mut self) {
        if let Some(wake) = self.write_backs.as_ref().filter(|_| self.completes) {
            wake.send_replace(());
        }
    }

    /// Publishes what may be confirmed, if it moved.
    pub(super) fn publish(&mut self, confirmable: Lsn) {
        let limit = self.copies.as_mut().map(StandbyCopies::limit);
        let confirmable = limit.map_or(confirmable, |limit| confirmable.min(limit));
        self.confirmed.send_if_modified(|confirmed| {
            let moved = *confirmed < confirmable;
            *confirmed = confirmable.max(*confirmed);
            moved
        });
    }
}
