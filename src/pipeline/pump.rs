//! The pump: reads from the source, routes, and hands events to the lanes.
//!
//! ```text
//! source ─ Captured ─▶ route ─ Event ─▶ lanes
//!                        └─ Opened ─▶ ledger (first, so that it knows what is owed)
//! ```
//!
//! Runs on the source's thread. While a lane or the memory budget is full it waits, and so nothing
//! is read from PostgreSQL; feedback goes on beside it. Between two changes it takes a [`EndpointUpdate`]: other
//! endpoints, which lanes and ledger know already.

mod backfill;
mod expiry;
pub(crate) mod outbox;
pub(crate) mod relay_outbox;
pub(crate) mod relay_pump;
pub(crate) mod spans;
mod waiting_rows;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backfill::pump_orders::BackfillOrder;
use crate::clock::DatabaseClock;
use crate::clock::since_boot;
use crate::event::plan::AsideBody;
use crate::event::plan::RoutedEvent;
use crate::event::plan::ShapedBody;
use crate::event::route::EventRouter;
use crate::failpoint;
use crate::flow::backfill::BackfillId;
use crate::flow::body::EventBody;
use crate::flow::budget::HeldMemory;
use crate::flow::budget::MemoryBudget;
use crate::flow::budget::MemoryPermit;
use crate::flow::change::CapturedItem;
use crate::flow::change::CommittedChange;
use crate::flow::dead_letter_reason::PoisonReason;
use crate::flow::event::Event;
use crate::flow::event::RuleIndex;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::flow::watermark::EndpointsVersion;
use crate::flow::watermark::FilteredNote;
use crate::flow::watermark::OpenFate;
use crate::flow::watermark::PumpReport;
use crate::pipeline::already_settled::AlreadySettled;
use crate::pipeline::captured_stream::CapturedStream;
use crate::pipeline::crash_guard::CrashGuard;
use crate::pipeline::crash_guard::KeptBody;
use crate::pipeline::endpoint_row_changes::ChangedRows;
use crate::pipeline::endpoint_update::EndpointUpdate;
use crate::pipeline::endpoint_update::RefreshRequest;
use crate::pipeline::endpoint_update::WatchedTables;
use crate::pipeline::pump::outbox::PumpOutbox;
use crate::pipeline::pump::spans::ChangeSpans;
use crate::pipeline::pump::waiting_rows::PumpBackfills;
use crate::pipeline::pump::waiting_rows::narrow;
use crate::pipeline::pump::waiting_rows::narrowed;
use crate::pipeline::shutdown::is_stopped_soon;
use crate::pipeline::table_counters::TableCounters;
use crate::store::crash_records::WorkStage;

/// What an event costs in memory beside its body: its own fields, and its place in each lane.
const EVENT_OVERHEAD_BYTES: usize = 512;

/// What an event makes of a large row beside it, for which it takes a share of its own. Names of columns
/// come to less.
const MORE_BYTES_MIN: usize = 64 * 1024;

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
    ahead: AlreadySettled,
    /// The lanes are told when the stream has passed this: what is older than their backlogs, and
    /// has to go first, has come then.
    parked: Option<Position>,
    /// The stream holds nothing more before this position.
    passed: Lsn,
    /// Whether a transaction was begun and its commit has not come yet.
    in_transaction: bool,
    routed: Vec<(RuleIndex, RoutedEvent)>,
    caution: CrashGuard,
    /// Not while nothing is pushed at all: then nobody taking an event says nothing.
    tells_untaken: bool,
    turns: mpsc::Receiver<EndpointUpdate>,
    edition: EndpointsVersion,
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
        turns: mpsc::Receiver<EndpointUpdate>,
        outbox: PumpOutbox,
    ) -> Self {
        Self {
            router,
            books,
            clock,
            budget,
            outbox,
            seen: None,
            ahead: AlreadySettled::default(),
            parked: None,
            passed: Lsn::ZERO,
            in_transaction: false,
            routed: Vec::new(),
            caution: CrashGuard::None,
            tells_untaken: false,
            turns,
            edition: EndpointsVersion::default(),
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

    /// Whether rows are told of events that no endpoint takes.
    pub(crate) fn telling_untaken(mut self, tells: bool) -> Self {
        self.tells_untaken = tells;
        self
    }

    /// As the crashes before this run ask for.
    pub(crate) fn cautious(mut self, caution: CrashGuard) -> Self {
        self.caution = caution;
        self
    }

    /// Where an earlier run had come: changes up to `seen` are settled, and so are the deliveries
    /// of `ahead` beyond it. Nothing newer than `parked` is in the backlog.
    pub(crate) fn resumed(
        mut self,
        seen: Option<Position>,
        ahead: AlreadySettled,
        parked: Option<Position>,
    ) -> Self {
        self.seen = seen;
        self.ahead = ahead;
        self.parked = parked;
        self
    }

    /// Pumps until `stop` is cancelled; then on to the end of the transaction that is under way,
    /// so that nothing of it has to be sent again, but for no longer than `patience`. Drops the
    /// lanes' senders when it ends: that is what tells the lanes to drain.
    ///
    /// # Errors
    /// When the source cannot go on, or a lane or the ledger has ended.
    pub(crate) async fn run(
        mut self,
        source: &mut impl CapturedStream,
        stop: CancellationToken,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let mut captured = Vec::new();
        let mut deadline = None;
        self.stop = stop.clone();
        loop {
            let slice = self.next_slice();
            if stop.is_cancelled() {
                let until = *deadline.get_or_insert_with(|| Instant::now() + patience);
                if !self.in_transaction || Instant::now() >= until {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled(), if deadline.is_none() => continue,
                () = sleep_until(deadline) => return Ok(()),
                Some(turn) = self.turns.recv() => {
                    self.turn(turn);
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

    /// Everything that was read has been handed over, so the turn is between two changes.
    pub(crate) fn turn(&mut self, turn: EndpointUpdate) {
        if let Some(events) = turn.events {
            self.router.rewrite(&events);
        }
        self.router.serve(turn.takers.iter().map(|(index, endpoint)| (*index, &**endpoint)));
        if let Some(relay) = &mut self.outbox.relay {
            relay.know(&turn.counted);
        }
        self.books.keep_for(turn.counted);
        for (index, lane) in turn.opened {
            self.outbox.open(index, lane);
        }
        for index in turn.closed {
            self.outbox.lanes.remove(&index);
        }
        self.edition = turn.edition;
        self.outbox.opened.push(PumpReport::Note(self.note(RuleIndex(0), OpenFate::Begun)));
        turn.taken.send(()).ok(); // whoever changed the endpoints may have ended
    }

    fn note(&self, rule: RuleIndex, fate: OpenFate) -> FilteredNote {
        FilteredNote { edition: self.edition, rule, fate }
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
                    if self.caution.is_one_by_one() {
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
                Some(turn) = self.turns.recv() => self.turn(turn),
            }
        }
    }

    /// One of the changes among which walhook has crashed.
    async fn change_alone(&mut self, change: CommittedChange) -> anyhow::Result<()> {
        let position = change.position;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => anyhow::bail!("it is not taken any more"),
            () = self.caution.approach(position) => {}
        }
        self.caution.mark(position, WorkStage::Rendering).await;
        self.change(change).await?;
        self.caution.mark(position, WorkStage::Sending).await;
        self.outbox.hand_over().await?;
        self.caution.wait(position).await;
        Ok(())
    }

    /// Notes that an event of the rule was raised, and who chose it beside `everybody`, those who take
    /// all of its events: it counts as filtered for the others, whom nobody has to go through.
    fn note_takers(
        &self,
        rule: RuleIndex,
        (everybody, takers): (usize, &[EndpointIndex]),
        notes: &mut Vec<FilteredNote>,
    ) {
        if takers.is_empty() || takers.len() < self.books.endpoints() {
            notes.push(self.note(rule, OpenFate::Raised));
            let chosen = takers.iter().skip(everybody);
            notes.extend(chosen.map(|&taker| self.note(rule, OpenFate::Chosen(taker))));
        }
    }

    /// Those whose filters or payloads take too much get a dead letter.
    fn set_aside(&mut self, aside: Vec<AsideBody>, event: &Event, poison: Option<PoisonReason>) {
        for AsideBody { why, shaped: ShapedBody { body, endpoints } } in aside {
            let why = poison.unwrap_or(why);
            let takers = self.ahead.owed(endpoints.into(), event.id);
            if !takers.is_empty() {
                self.outbox.set_aside(Box::new(event.shaped(body, None)), takers, why);
            }
        }
    }

    /// All of none have taken it, and its row is told so.
    fn tell_untaken(&mut self, mut event: Box<Event>) {
        event.body = EventBody::default();
        if self.tells_untaken && event.write_back.is_some() && self.ahead.is_untold(event.id) {
            self.outbox.opened.push(PumpReport::Untaken(Arc::from(event)));
        }
    }

    /// A share of the memory for an event in all its shapes: that of its row, with more for what they
    /// make of it, or one of its own.
    async fn hold(
        &mut self,
        row: Option<&Arc<MemoryPermit>>,
        event: &Event,
        others: &[ShapedBody],
    ) -> anyhow::Result<HeldMemory> {
        let bodies = others.iter().map(|other| &other.body).chain([&event.body]);
        if let Some(row) = row {
            let own: usize = bodies.map(EventBody::own_bytes).sum();
            let more = self.budget.beside(row, own.saturating_sub(row.bytes()));
            if more < MORE_BYTES_MIN {
                return Ok(HeldMemory::Row(Arc::clone(row)));
            }
            let more = match self.budget.try_take(more) {
                Some(more) => more,
                None => {
                    self.outbox.hand_over().await?;
                    self.budget.take_pressing(more).await
                }
            };
            return Ok(HeldMemory::RowAndMore(Arc::clone(row), Arc::new(more)));
        }
        let row = event.write_back.as_ref().map_or(0, |row| row.held_bytes());
        let overhead = row + EVENT_OVERHEAD_BYTES;
        let bytes = bodies.map(|body| body.held_bytes() + overhead).sum();
        let permit = self.outbox.share(&self.budget, bytes).await?;
        Ok(match others.is_empty() {
            true => HeldMemory::Own(permit),
            // One share for all of its bodies: a part of it must not wait for the rest.
            false => HeldMemory::Row(Arc::new(permit)),
        })
    }

    fn record(&self, change: &CommittedChange, event: &Event, takers: &[EndpointIndex]) {
        if let Some(spans) = &self.spans {
            spans.record(change, event, takers.len(), self.read_at);
        }
    }

    async fn change(&mut self, mut change: CommittedChange) -> anyhow::Result<()> {
        let mut routed = std::mem::take(&mut self.routed);
        let convicted = self.caution.convicts(change.position);
        let chosen = self.chosen(&change);
        self.route(&change, convicted, &mut routed).await?;
        self.outbox.opened.extend(self.router.take_seen().map(PumpReport::Seen));
        let row = change.held.take().map(Arc::new);
        let mut notes = Vec::new();
        for (rule, outcome) in routed.drain(..) {
            let everybody = self.router.everybody(rule);
            let mut poison = convicted.map(|kept| match kept {
                KeptBody::Standard => PoisonReason::CrashesInRendering,
                KeptBody::Own | KeptBody::None => PoisonReason::Crashes,
            });
            let mut aside = Vec::new();
            let (mut event, takers, others) = match outcome {
                RoutedEvent::Filtered => {
                    self.books.filtered(rule);
                    notes.push(self.note(rule, OpenFate::Filtered));
                    continue;
                }
                RoutedEvent::Repeat { id, facts } => {
                    self.books.repeated(rule, id, &facts);
                    notes.push(self.note(rule, OpenFate::Filtered));
                    continue;
                }
                RoutedEvent::Expired { id, facts, chosen: late } => {
                    let late = (&*everybody, late);
                    self.note_late(rule, (id, &facts), late, chosen.as_ref(), &mut notes);
                    continue;
                }
                RoutedEvent::Event(event) => (event, Arc::clone(&everybody), Vec::new()),
                RoutedEvent::Partly { event, endpoints, others, aside: unsent } => {
                    aside = unsent;
                    (event, endpoints.into(), others)
                }
                RoutedEvent::Costly(event) => {
                    poison = poison.or(Some(PoisonReason::Costly));
                    (event, self.router.of_unknown(rule), Vec::new())
                }
                RoutedEvent::Poison(event) => {
                    poison = poison.or(Some(PoisonReason::Unrenderable));
                    (event, self.router.of_unknown(rule), Vec::new())
                }
            };
            self.books.raised(rule);
            let takers = narrowed(takers, chosen.as_ref());
            narrow(&mut aside, chosen.as_ref());
            let owed = owed(&everybody, &takers, &aside);
            let all = chosen.is_none().then_some(everybody.len());
            self.note_owed(rule, (all, &owed), &mut notes);
            if let Some(row) = &mut event.write_back {
                row.owed = u32::try_from(owed.len()).unwrap_or(u32::MAX);
            }
            self.set_aside(aside, &event, poison);
            if owed.is_empty() && poison.is_none() {
                self.tell_untaken(event);
                continue;
            }
            let takers = self.ahead.owed(takers, event.id);
            if takers.is_empty() {
                continue;
            }
            if let Some(why) = poison {
                self.outbox.set_aside_shaped(event, &takers, others, why);
                continue;
            }
            event.held = Some(self.hold(row.as_ref(), &event, &others).await?);
            self.record(&change, &event, &takers);
            self.outbox.raise(rule, event, takers, others);
        }
        self.routed = routed;
        self.outbox.close(notes, change.position);
        Ok(())
    }
}

/// Everybody whom the event is for, those first that get every event of its rule.
fn owed(
    everybody: &[EndpointIndex],
    takers: &[EndpointIndex],
    aside: &[AsideBody],
) -> Vec<EndpointIndex> {
    let unsent = aside.iter().flat_map(|aside| &aside.shaped.endpoints);
    let mut owed: Vec<EndpointIndex> = takers.iter().chain(unsent).copied().collect();
    if aside.iter().any(|aside| aside.why == PoisonReason::Oversize) {
        owed.sort_by_key(|taker| !everybody.contains(taker));
    }
    owed
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
