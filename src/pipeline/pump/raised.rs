//! What a change raises: events for whom they are owed to, and notes of those that nobody takes.

use std::sync::Arc;

use crate::event::plan::AsideBody;
use crate::event::plan::RoutedEvent;
use crate::event::plan::ShapedBody;
use crate::flow::body::EventBody;
use crate::flow::budget::EVENT_OVERHEAD_BYTES;
use crate::flow::budget::HeldMemory;
use crate::flow::budget::MemoryPermit;
use crate::flow::change::CommittedChange;
use crate::flow::dead_letter_reason::PoisonReason;
use crate::flow::event::Event;
use crate::flow::event::RuleIndex;
use crate::flow::pump_report::FilteredNote;
use crate::flow::pump_report::OpenedAs;
use crate::flow::pump_report::PumpReport;
use crate::flow::settlement::EndpointIndex;
use crate::pipeline::crash_guard::KeptBody;
use crate::pipeline::pump::EventPump;
use crate::pipeline::pump::waiting_rows::narrow;
use crate::pipeline::pump::waiting_rows::narrowed;

/// What an event makes of a large row beside it, for which it takes a share of its own. Names of columns
/// come to less.
const MORE_BYTES_MIN: usize = 64 * 1024;

impl EventPump {
    /// Notes that an event of the rule was raised, and who chose it beside `everybody`, those who take
    /// all of its events: it counts as filtered for the others, whom nobody has to go through.
    pub(super) fn note_takers(
        &self,
        rule: RuleIndex,
        (everybody, takers): (usize, &[EndpointIndex]),
        notes: &mut Vec<FilteredNote>,
    ) {
        if takers.is_empty() || takers.len() < self.books.endpoints() {
            notes.push(self.note(rule, OpenedAs::Raised));
            let chosen = takers.iter().skip(everybody);
            notes.extend(chosen.map(|&taker| self.note(rule, OpenedAs::Chosen(taker))));
        }
    }

    /// Those whose filters or payloads take too much get a dead letter.
    pub(super) fn set_aside(
        &mut self,
        aside: Vec<AsideBody>,
        event: &Event,
        poison: Option<PoisonReason>,
    ) {
        for AsideBody { why, shaped: ShapedBody { body, endpoints } } in aside {
            let why = poison.unwrap_or(why);
            let takers = self.already_settled.owed(endpoints.into(), event.id);
            if !takers.is_empty() {
                self.outbox.set_aside(Box::new(event.shaped(body, None)), takers, why);
            }
        }
    }

    /// All of none have taken it, and its row is told so.
    pub(super) fn tell_untaken(&mut self, mut event: Box<Event>) {
        event.body = EventBody::default();
        if self.tells_untaken
            && event.write_back.is_some()
            && self.already_settled.is_untold(event.id)
        {
            self.outbox.opened.push(PumpReport::Untaken(Arc::from(event)));
        }
    }

    /// A share of the memory for an event in all its shapes: that of its row, with more for what they
    /// make of it, or one of its own.
    pub(super) async fn take_memory(
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

    pub(super) fn record(&self, change: &CommittedChange, event: &Event, takers: &[EndpointIndex]) {
        if let Some(spans) = &self.spans {
            spans.record(change, event, takers.len(), self.read_at);
        }
    }

    pub(super) async fn change(&mut self, mut change: CommittedChange) -> anyhow::Result<()> {
        let mut routed = std::mem::take(&mut self.routed);
        let convicted = self.crash_guard.convicts(change.position);
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
                    notes.push(self.note(rule, OpenedAs::Filtered));
                    continue;
                }
                RoutedEvent::Repeat { id, facts } => {
                    self.books.repeated(rule, id, &facts);
                    notes.push(self.note(rule, OpenedAs::Filtered));
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
            let takers = self.already_settled.owed(takers, event.id);
            if takers.is_empty() {
                continue;
            }
            if let Some(why) = poison {
                self.outbox.set_aside_shaped(event, &takers, others, why);
                continue;
            }
            event.held = Some(self.take_memory(row.as_ref(), &event, &others).await?);
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
