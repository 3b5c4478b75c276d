//! Before a change is taken for too old, the database's clock is measured anew: whichever clock was
//! set meanwhile, what is fresh is not dropped.

use crate::event::plan::RoutedEvent;
use crate::flow::change::CommittedChange;
use crate::flow::event::Event;
use crate::flow::event::RuleIndex;
use crate::flow::time::Timestamp;
use crate::pipeline::crash_guard::KeptBody;
use crate::pipeline::pump::EventPump;

impl EventPump {
    /// Appends to `routed` what the change comes to. One over whose rendering walhook has crashed is
    /// not rendered.
    ///
    /// # Errors
    /// That walhook is to stop, and the server has not told the time.
    pub(super) async fn route(
        &mut self,
        change: &CommittedChange,
        convicted: Option<KeptBody>,
        routed: &mut Vec<(RuleIndex, RoutedEvent)>,
    ) -> anyhow::Result<()> {
        if let Some(kept @ (KeptBody::Standard | KeptBody::None)) = convicted {
            let keeps_row = kept == KeptBody::Standard;
            self.router.set_aside(change, keeps_row, |rule, outcome| routed.push((rule, outcome)));
            return Ok(());
        }
        let now = self.clock.now();
        self.router.route(change, now, |rule, outcome| routed.push((rule, outcome)));
        self.books.sent_as_text(&change.relation.table, self.router.unfit(change));
        if self.clock.is_renewed(self.read_at)
            || !routed.iter().any(|(_, outcome)| is_too_old(outcome, now))
        {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => anyhow::bail!("the time is not known"),
            () = self.clock.renewed(self.read_at) => {}
        }
        // Nothing of it counts twice: values are the same at the same position.
        routed.clear();
        let now = self.clock.now();
        self.router.route(change, now, |rule, outcome| routed.push((rule, outcome)));
        Ok(())
    }
}

fn is_too_old(routed: &RoutedEvent, now: Timestamp) -> bool {
    let is_over = |event: &Event| event.expiry.is_some_and(|expiry| expiry.is_over(now));
    match routed {
        RoutedEvent::Expired { .. } => true,
        // With a write-back, a lane says that it was too old.
        RoutedEvent::Event(event) | RoutedEvent::Partly { event, .. } => is_over(event),
        RoutedEvent::Filtered
        | RoutedEvent::Repeat { .. }
        | RoutedEvent::Poison(_)
        | RoutedEvent::Costly(_) => false,
    }
}
