//! The pump: reads from the source, routes, and hands events to the lanes.
//!
//! ```text
//! source ─ CapturedItem ─▶ route ─ Event ─▶ lanes
//!                        └─ PumpReport ─▶ ledger (first, so that it knows what is owed)
//! ```
//!
//! Runs on the source's thread. While a lane or the memory budget is full it waits, and so nothing
//! is read from PostgreSQL; feedback goes on beside it. Between two changes it takes a [`EndpointUpdate`]: other
//! endpoints, which lanes and ledger know already.

mod backfill;
mod expiry;
pub(crate) mod outbox;
mod raised;
pub(crate) mod relay_outbox;
pub(crate) mod relay_pump;
pub(crate) mod spans;
mod waiting_rows;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backfill::pump_orders::BackfillOrder;
use crate::clock::DatabaseClock;
use crate::clock::since_boot;
use crate::event::plan::RoutedEvent;
use crate::event::route::EventRouter;
use crate::failpoint;
use crate::flow::backfill::BackfillId;
use crate::flow::budget::MemoryBudget;
use crate::flow::change::CapturedItem;
use crate::flow::change::CommittedChange;
use crate::flow::event::RuleIndex;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::pump_report::EndpointsVersion;
use crate::flow::pump_report::FilteredNote;
use crate::flow::pump_report::OpenedAs;
use crate::flow::pump_report::PumpReport;
use crate::flow::relation::TableName;
use crate::pipeline::already_settled::AlreadySettled;
use crate::pipeline::captured_stream::CapturedStream;
use crate::pipeline::crash_guard::CrashGuard;
use crate::pipeline::endpoint_row_changes::ChangedRows;
use crate::pipeline::endpoint_update::EndpointUpdate;
use crate::pipeline::endpoint_update::RefreshRequest;
use crate::pipeline::endpoint_update::WatchedTables;
use crate::pipeline::pump::outbox::PumpOutbox;
use crate::pipeline::pump::spans::ChangeSpans;
use crate::pipeline::pump::waiting_rows::PumpBackfills;
use crate::pipeline::shutdown::is_stopped_soon;
use crate::pipeline::table_counters::TableCounters;

/// What the pump needs beside the source.
pub(crate) struct EventPump {
    router: EventRouter,
    books: TableCounters,
    clock: DatabaseClock,
    budget: MemoryBudget,
    outbox: PumpOutbox,
    /// The last change that was taken: PostgreSQL sends again what was not confirmed when the
    /// connection is made anew, and a crash of the server may move the slot back.
    seen: Option<Position>,
    /// Deliveries that an earlier run has settled and will see again.
    already_settled: AlreadySettled,
    /// The lanes are told when the stream has passed this: what is older than their backlogs, and
    /// has to go first, has come then.
    parked: Option<Position>,
    /// The stream holds nothing more before this position.
    passed: Lsn,
    /// Whether a transaction was begun and its commit has not come yet.
    in_transaction: bool,
    routed: Vec<(RuleIndex, RoutedEvent)>,
    crash_guard: CrashGuard,
    /// Not while nothing is pushed at all: then nobody taking an event says nothing.
    tells_untaken: bool,
    updates: mpsc::Receiver<EndpointUpdate>,
    endpoints_version: EndpointsVersion,
    watched: Option<WatchedTables>,
    /// `None` where nothing is traced.
    spans: Option<ChangeSpans>,
    backfills: PumpBackfills,
    /// What is being handed on was read before this, since boot.
    read_at: std::time::Duration,
    stop: CancellationToken,
}

impl EventPump {
    pub(crate) fn new(
        router: EventRouter,
        books: TableCounters,
        clock: DatabaseClock,
        budget: MemoryBudget,
        updates: mpsc::Receiver<EndpointUpdate>,
        outbox: PumpOutbox,
    ) -> Self {
        Self {
            router,
            books,
            clock,
            budget,
            outbox,
            seen: None,
            already_settled: AlreadySettled::default(),
            parked: None,
            passed: Lsn::ZERO,
            in_transaction: false,
            routed: Vec::new(),
            crash_guard: CrashGuard::None,
            tells_untaken: false,
            updates,
            endpoints_version: EndpointsVersion::default(),
            watched: None,
            spans: None,
            backfills: PumpBackfills::default(),
            read_at: std::time::Duration::ZERO,
            stop: CancellationToken::new(),
        }
    }

    /// Has the endpoints refreshed after each transaction that changes this table.
    pub(crate) fn watching(mut self, watched: Option<WatchedTables>) -> Self {
        self.watched = watched;
        self
    }

    /// Records events that are traced.
    pub(crate) fn recording(mut self, spans: Option<ChangeSpans>) -> Self {
        self.spans = spans;
        self
    }

    /// Sends rows that backfills have read between the changes. Those of `watched` are under way.
    pub(crate) fn backfilling(
        mut self,
        orders: mpsc::Receiver<BackfillOrder>,
        watched: Vec<(BackfillId, TableName)>,
    ) -> Self {
        self.backfills.listen(orders, watched);
        self
    }

    /// Rows that backfills have read stand behind this position: those of an earlier run are known by their places
    /// elsewhere.
    pub(crate) fn sending_rows_beyond(mut self, beyond: Lsn) -> Self {
        self.backfills.beyond = beyond;
        self
    }

    /// Whether rows are told of events that no endpoint takes.
    pub(crate) fn telling_untaken(mut self, tells: bool) -> Self {
        self.tells_untaken = tells;
        self
    }

    /// As the crashes before this run ask for.
    pub(crate) fn cautious(mut self, crash_guard: CrashGuard) -> Self {
        self.crash_guard = crash_guard;
        self
    }

    /// Where an earlier run had come: changes up to `seen` are settled, and so are the deliveries
    /// of `already_settled` beyond it. Nothing newer than `parked` is in the backlog.
    pub(crate) fn resumed(
        mut self,
        seen: Option<Position>,
        already_settled: AlreadySettled,
        parked: Option<Position>,
    ) -> Self {
        self.seen = seen;
        self.already_settled = already_settled;
        self.parked = parked;
        self
    }

    /// Pumps until `stop` is cancelled; then on to the end of the transaction that is under way,
    /// so that nothing of it has to be sent again, but for no longer than `limit`. Drops the
    /// lanes' senders when it ends: that is what tells the lanes to drain.
    ///
    /// # Errors
    /// When the source cannot go on, or a lane or the ledger has ended.
    pub(crate) async fn run(
        mut self,
        source: &mut impl CapturedStream,
        stop: CancellationToken,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let mut captured = Vec::new();
        let mut deadline = None;
        self.stop = stop.clone();
        loop {
            let slice = self.next_slice();
            if stop.is_cancelled() {
                let until = *deadline.get_or_insert_with(|| Instant::now() + limit);
                if !self.in_transaction || Instant::now() >= until {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled(), if deadline.is_none() => continue,
                () = sleep_until(deadline) => return Ok(()),
                Some(update) = self.updates.recv() => {
                    self.take_update(update);
                    continue;
                }
                order = self.backfills.next() => {
                    let taken = self.take_order(order).await;
                    if taken.is_err() && is_stopped_soon(&stop).await {
                        return Ok(());
                    }
                    taken?;
                    continue;
                }
                read = source.next(&mut captured) => read?,
                () = pause(slice) => {
                    let sent = self.send_slice().await;
                    if sent.is_err() && is_stopped_soon(&stop).await {
                        return Ok(());
                    }
                    sent?;
                    continue;
                }
            }
            self.read_at = since_boot();
            let fed = self.feed(&mut captured, source.expects_more()).await;
            if fed.is_err() && is_stopped_soon(&stop).await {
                // A lane that was full has been cut off. What it did not take comes again.
                return Ok(());
            }
            fed?;
        }
    }

    /// Everything that was read has been handed over, so the update is between two changes.
    pub(crate) fn take_update(&mut self, update: EndpointUpdate) {
        if let Some(events) = update.events {
            self.router.rewrite(&events);
        }
        self.router.serve(update.takers.iter().map(|(index, endpoint)| (*index, &**endpoint)));
        if let Some(relay) = &mut self.outbox.relay {
            relay.know(&update.counted, &update.made);
        }
        self.books.keep_for(update.counted);
        for (index, lane) in update.opened {
            self.outbox.open(index, lane);
        }
        for index in update.closed {
            self.outbox.lanes.remove(&index);
        }
        self.endpoints_version = update.endpoints_version;
        self.outbox.opened.push(PumpReport::Note(self.note(RuleIndex(0), OpenedAs::Begun)));
        update.taken.send(()).ok(); // the registry may not wait for it
    }

    fn note(&self, rule: RuleIndex, opened_as: OpenedAs) -> FilteredNote {
        FilteredNote { endpoints_version: self.endpoints_version, rule, opened_as }
    }

    /// `expects_more`: the source knows of more than this.
    async fn feed(
        &mut self,
        captured: &mut Vec<CapturedItem>,
        expects_more: bool,
    ) -> anyhow::Result<()> {
        for captured in captured.drain(..) {
            self.take(captured).await?;
        }
        self.outbox.hand_over().await?;
        // The owner of a partition knows by a mark alone that nothing more comes of its last change.
        if !self.in_transaction && (!expects_more || self.outbox.relay.is_some()) {
            self.outbox.rest().await?;
        }
        if self.parked.is_some_and(|parked| self.passed > parked.commit) {
            self.parked = None;
            for lane in self.outbox.lanes.values() {
                lane.caught_up().await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, captured: CapturedItem) -> anyhow::Result<()> {
        match captured {
            CapturedItem::Change(change) => {
                if !self.in_transaction {
                    self.send_rows_before(change.position.commit).await?;
                }
                self.in_transaction = true;
                failpoint::reached("in_transaction");
                self.note_moves(&change);
                if self.seen.is_none_or(|seen| seen < change.position) {
                    self.seen = Some(change.position);
                    if let Some(watched) = &mut self.watched {
                        watched.note(&change);
                    }
                    self.backfills.observe(&change);
                    if self.crash_guard.is_one_by_one() {
                        self.change_alone(change).await?;
                    } else {
                        self.change(change).await?;
                    }
                }
            }
            CapturedItem::Commit { end, xid, committed, .. } => {
                failpoint::reached("commit_seen");
                self.in_transaction = false;
                self.passed = end;
                self.outbox.boundary(end, Some(committed));
                self.refresh(xid).await?;
                self.send_rows().await?;
            }
            CapturedItem::Idle { end } => {
                // Of a transaction that was left out, no commit comes.
                self.in_transaction = false;
                self.passed = end;
                self.outbox.boundary(end, None);
                self.send_rows().await?;
            }
        }
        Ok(())
    }

    /// Waits until the endpoints are as the transaction `xid` left them, if it changed their table.
    async fn refresh(&mut self, xid: u32) -> anyhow::Result<()> {
        let Some(watched) = &mut self.watched else { return Ok(()) };
        let rows = std::mem::take(&mut watched.changed);
        if rows == ChangedRows::None {
            return Ok(());
        }
        let (done_in, mut done) = oneshot::channel();
        let refresh = RefreshRequest { xid, rows, done: done_in };
        // What was read before is for the endpoints as they were.
        self.outbox.hand_over().await?;
        if watched.refreshes.send(refresh).await.is_err() {
            return Ok(()); // it ends only with everything else
        }
        loop {
            tokio::select! {
                biased;
                _ = &mut done => return Ok(()),
                Some(update) = self.updates.recv() => self.take_update(update),
            }
        }
    }

    /// One of the changes among which walhook has crashed.
    async fn change_alone(&mut self, change: CommittedChange) -> anyhow::Result<()> {
        let position = change.position;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => anyhow::bail!("it is not taken any more"),
            () = self.crash_guard.approach(position) => {}
        }
        self.crash_guard.before_rendering(position).await;
        self.change(change).await?;
        self.crash_guard.before_sending(position).await;
        self.outbox.hand_over().await?;
        self.crash_guard.wait(position).await;
        Ok(())
    }
}

/// Lets others go first, who may have work: the stream's socket among them.
async fn pause(time: Option<Duration>) {
    match time {
        Some(Duration::ZERO) => tokio::task::yield_now().await,
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
