//! Sends delivered events again, as operators order it: page by page along the push log.
//!
//! A page is done when all of it has come to its end and that is noted in the order. So an order goes
//! on after a crash, and repeats at most one page.

use crate::backoff::Backoff;
use crate::flow::settlement::ReplayId;
use crate::redelivery::service::AWAY_CAP;
use crate::redelivery::service::AWAY_FIRST;
use crate::redelivery::service::PORTION_BYTES;
use crate::redelivery::service::PORTION_ROWS;
use crate::redelivery::service::ResendError;
use crate::redelivery::worker::ResendWorker;
use crate::store::replay_orders;
use crate::store::replay_orders::ReplayCursor;
use crate::store::replay_orders::ReplayOrder;
use crate::store::replay_orders::ReplayTally;
use crate::store::state_error::StateError;

impl ResendWorker<'_> {
    /// Sends the next page of the endpoint's oldest order and waits for its end. Returns whether
    /// there was an order.
    pub(crate) async fn replay_page(&mut self) -> Result<bool, ResendError> {
        let Some((order, page)) = self.next_page().await? else { return Ok(false) };
        self.pace.set_rate(order.per_second);
        self.tally = ReplayTally::default();
        let last = page.last().map(|logged| logged.at);
        for logged in page {
            match logged.event {
                Some(event) => self.hand_over(ReplayId::Logged(logged.at.id), event).await?,
                None => self.tally.without_body += 1,
            }
        }
        while !self.in_memory.is_empty() {
            self.some_ended().await;
            self.settle();
        }
        self.note(&order, last).await?;
        self.pace.set_rate(self.shared.settings.resend_rate);
        Ok(true)
    }

    async fn next_page(
        &self,
    ) -> Result<Option<(ReplayOrder, Vec<replay_orders::LoggedDelivery>)>, StateError> {
        let (rows, bytes) = (PORTION_ROWS, PORTION_BYTES);
        let slot = self.shared.ownership.slot();
        let mut session = self.shared.pool.session().await?;
        let order = replay_orders::next(session.client(), slot, &self.endpoint).await?;
        let Some(order) = order else { return Ok(None) };
        let page = replay_orders::page(session.client(), slot, &order, rows, bytes).await?;
        Ok(Some((order, page)))
    }

    /// Notes how far the order has come. Tried until it works: the page would be sent again.
    async fn note(
        &self,
        order: &ReplayOrder,
        last: Option<ReplayCursor>,
    ) -> Result<(), StateError> {
        let mut away = Backoff::new(AWAY_FIRST, AWAY_CAP);
        loop {
            let noted = async {
                let mut session = self.shared.pool.session().await?;
                let (ownership, now) = (&self.shared.ownership, self.shared.clock.now());
                replay_orders::advance(session.client(), ownership, order.id, last, self.tally, now)
                    .await
            };
            match noted.await {
                Err(error) if error.may_be_mended() => {
                    let error = anyhow::Error::new(error);
                    tracing::debug!(error = %format!("{error:#}"), "cannot note a replay's progress");
                    tokio::time::sleep(away.next()).await;
                }
                outcome => break outcome?,
            }
        }
        if last.is_none() {
            tracing::info!(endpoint = %self.endpoint, replay = order.id, "replay is done");
        }
        Ok(())
    }
}
