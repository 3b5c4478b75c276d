//! Sends again what one endpoint is to get: its dead letters, and what [`super::replay_page`] finds.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::flow::budget::EVENT_OVERHEAD_BYTES;
use crate::flow::budget::HeldMemory;
use crate::flow::budget::MemoryPermit;
use crate::flow::event::Event;
use crate::flow::relation::TableName;
use crate::flow::settlement::ReplayId;
use crate::lane::error::QueueError;
use crate::lane::message::ReplayedDelivery;
use crate::ledger::replayed::ReplayEnd;
use crate::redelivery::pace::ResendPace;
use crate::redelivery::service::AWAY_CAP;
use crate::redelivery::service::AWAY_FIRST;
use crate::redelivery::service::ClaimKind;
use crate::redelivery::service::POLL;
use crate::redelivery::service::PORTION_BYTES;
use crate::redelivery::service::PORTION_ROWS;
use crate::redelivery::service::ROOM_POLL;
use crate::redelivery::service::RedeliveryService;
use crate::redelivery::service::ResendError;
use crate::store::dead_letters::DeadLetterId;
use crate::store::replay_orders::ReplayTally;
use crate::store::resend;
use crate::store::resend::ClaimPortion;
use crate::store::state_error::StateError;

/// Sends dead letters and replays to one endpoint, as long as it has some.
pub(crate) struct ResendWorker<'r> {
    pub(crate) shared: &'r RedeliveryService,
    pub(crate) endpoint: Arc<str>,
    pub(crate) claim: ClaimKind,
    pub(crate) ended: watch::Receiver<()>,
    pub(crate) pace: ResendPace,
    /// How many letters may be in memory at once: as many as go out in a second. The rest can be taken back.
    pub(crate) portion_rows: usize,
    /// What became of the replays of the push log.
    pub(crate) tally: ReplayTally,
    /// What was handed to the lane and is not committed yet, with its share of the replays' budget.
    pub(crate) in_memory: HashMap<ReplayId, MemoryPermit>,
}

impl ResendWorker<'_> {
    pub(crate) async fn run(&mut self) -> anyhow::Result<()> {
        let mut away = Backoff::new(AWAY_FIRST, AWAY_CAP);
        loop {
            match self.portion().await {
                // Letters first: they were never delivered.
                Ok(0) if self.in_memory.is_empty() => match self.replay_page().await {
                    Ok(true) => away.reset(),
                    Ok(false) => return Ok(()),
                    Err(error) => match self.after(error, &mut away).await? {
                        ControlFlow::Continue(()) => {}
                        ControlFlow::Break(()) => return Ok(()),
                    },
                },
                Ok(0) => self.some_ended().await,
                Ok(letters) => {
                    away.reset();
                    tracing::info!(endpoint = %self.endpoint, letters, "sending dead letters again");
                }
                Err(error) => match self.after(error, &mut away).await? {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(()) => return Ok(()),
                },
            }
            self.settle();
        }
    }

    /// Waits where waiting can help, and says whether to go on.
    async fn after(
        &self,
        error: ResendError,
        away: &mut Backoff,
    ) -> anyhow::Result<ControlFlow<()>> {
        match error {
            // The lane is gone, and what it had is claimed again when there is one.
            ResendError::Lane(_) => {
                tokio::time::sleep(POLL).await;
                Ok(ControlFlow::Break(()))
            }
            ResendError::State(error) if error.may_be_mended() => {
                let error = anyhow::Error::new(error);
                tracing::debug!(error = %format!("{error:#}"), "cannot read what is to be sent again");
                tokio::time::sleep(away.next()).await;
                Ok(ControlFlow::Continue(()))
            }
            ResendError::State(error) => Err(error.into()),
        }
    }

    /// Claims as many letters as there is room for, and hands them to the lane. Returns how many.
    async fn portion(&mut self) -> Result<usize, ResendError> {
        let rows = self.portion_rows.saturating_sub(self.in_memory.len());
        if rows == 0 {
            return Ok(0);
        }
        let letter = |id: &ReplayId| match id {
            ReplayId::Letter(id) => Some(DeadLetterId(*id)),
            ReplayId::Logged(_) => None,
        };
        let in_memory: Vec<DeadLetterId> = self.in_memory.keys().filter_map(letter).collect();
        let claimed = {
            let mut session = self.shared.pool.session().await.map_err(StateError::from)?;
            let endpoint = Some(&*self.endpoint);
            let bytes = PORTION_BYTES;
            let portion = ClaimPortion { endpoint, in_memory: &in_memory, rows, bytes };
            resend::claim(session.client(), &self.shared.ownership, portion).await?
        };
        let letters = claimed.len();
        // All at once, as the state has them, whatever becomes of the lane meanwhile.
        for claimed in claimed.iter().filter(|claimed| claimed.unbooked) {
            self.revive(&claimed.letter.event.table);
        }
        for claimed in claimed {
            let rate = claimed.rate.unwrap_or(self.shared.settings.resend_rate);
            self.pace.set_rate(rate);
            self.portion_rows = (rate as usize).clamp(1, PORTION_ROWS);
            let mut letter = claimed.letter;
            let id = ReplayId::Letter(letter.id.0);
            self.pace.wait().await;
            let stored = if letter.is_large() { letter.body_bytes } else { 0 };
            let stored = usize::try_from(stored).unwrap_or(usize::MAX);
            let room = self.room(stored.max(letter.event.body.held_bytes())).await;
            if letter.is_large() {
                // Not before there is room for it.
                let mut session = self.shared.pool.session().await.map_err(StateError::from)?;
                if !letter.fetch_body(session.client()).await? {
                    continue;
                }
            }
            // It was read a moment ago, and nobody else has it.
            if let Some(event) = Arc::into_inner(letter.event) {
                self.send(id, event, room).await?;
            }
        }
        Ok(letters)
    }

    /// A dead letter is pending again. One that was claimed before, and got lost, is so already.
    fn revive(&self, table: &TableName) {
        let balance = self.shared.metrics.balance(&self.endpoint, table);
        balance.dead.dec();
        balance.pending.inc();
        self.claim.metrics.pending_memory.inc();
        self.claim.metrics.replays.inc();
    }

    /// Gives one event to the lane, when it is its turn and there is room for it in memory.
    pub(crate) async fn hand_over(&mut self, id: ReplayId, event: Event) -> Result<(), QueueError> {
        self.pace.wait().await;
        let room = self.room(event.body.held_bytes()).await;
        self.send(id, event, room).await
    }

    /// Waits for shares of the replays' budget and of the whole, for a body of so many bytes.
    async fn room(&mut self, body_bytes: usize) -> (MemoryPermit, MemoryPermit) {
        let bytes = body_bytes + EVENT_OVERHEAD_BYTES;
        let share = loop {
            match self.shared.own_budget.try_take(bytes) {
                Some(share) => break share,
                None => {
                    // The room may be our own: what has ended gives it back.
                    self.settle();
                    tokio::time::sleep(ROOM_POLL).await;
                }
            }
        };
        (share, self.shared.budget.take_large(bytes).await)
    }

    async fn send(
        &mut self,
        id: ReplayId,
        mut event: Event,
        (share, held): (MemoryPermit, MemoryPermit),
    ) -> Result<(), QueueError> {
        event.held = Some(HeldMemory::Own(held));
        // Letters are counted when they are claimed: until they end they are pending, wherever they are.
        let is_logged = matches!(id, ReplayId::Logged(_));
        if is_logged {
            self.claim.metrics.pending_memory.inc();
            self.claim.metrics.replays.inc();
        }
        let sent =
            self.claim.replays.send(vec![ReplayedDelivery { id, event: Arc::new(event) }]).await;
        if sent.is_err() {
            self.claim.metrics.pending_memory.sub(i64::from(is_logged));
        } else {
            self.in_memory.insert(id, share);
        }
        sent
    }

    /// Waits until at least one replay of any endpoint has ended.
    pub(crate) async fn some_ended(&mut self) {
        // The sender is the shared handle's own, so that it cannot be gone.
        self.ended.changed().await.ok();
    }

    /// Forgets what has ended.
    pub(crate) fn settle(&mut self) {
        self.ended.mark_unchanged();
        let replayed = &self.shared.replayed;
        let ends = self.in_memory.keys().filter_map(|id| Some((*id, replayed.take(*id)?)));
        let ends: Vec<(ReplayId, ReplayEnd)> = ends.collect();
        for (id, end) in ends {
            self.in_memory.remove(&id);
            if matches!(id, ReplayId::Logged(_)) {
                match end {
                    ReplayEnd::Delivered => self.tally.delivered += 1,
                    ReplayEnd::Expired => self.tally.expired += 1,
                    ReplayEnd::Failed => self.tally.failed += 1,
                }
            }
        }
    }
}
