//! `walhook tail`: shows events without delivering them.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::DatabaseClock;
use crate::config::settings::EventRule;
use crate::config::settings::Settings;
use crate::event::route::Routed;
use crate::event::route::Router;
use crate::event::route::Shaped;
use crate::flow::budget::Budget;
use crate::flow::change::Captured;
use crate::flow::event::Event;
use crate::flow::lsn::Lsn;
use crate::source::catalog;
use crate::source::catalog::Wanted;
use crate::source::hold::Hold;
use crate::source::status::StatusHandle;
use crate::source::stream::SlotUse;
use crate::source::stream::Source;
use crate::source::stream::Terms;
use crate::source::wire::feedback::LetGo;
use crate::store;

/// Calls `show` for every event from now on, or for those that the endpoint `only` would get, as it
/// would get them, until `stop` is cancelled or `show` fails. Reads from a
/// temporary slot, which vanishes with the connection, and touches nothing else.
///
/// # Errors
/// PostgreSQL's refusals, or what `show` gives.
pub async fn tail(
    mut settings: Settings,
    only: Option<&str>,
    clock: DatabaseClock,
    stop: CancellationToken,
    mut show: impl FnMut(Arc<Event>) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    if let Some(name) = only {
        settings.endpoints.retain(|endpoint| &*endpoint.name == name);
    }
    let is_taken = |rule: &EventRule| {
        only.is_none() || settings.endpoints.iter().any(|endpoint| endpoint.takes(rule))
    };
    let taken: Vec<bool> = settings.events.iter().map(is_taken).collect();
    let own_slot = settings.postgres.slot;
    settings.postgres.slot = format!("walhook_tail_{:08x}", fastrand::u32(..));
    // PostgreSQL itself speaks of a missing publication only with the first change.
    let session = store::connect(&settings.postgres.server).await?;
    catalog::require(&session.client, &Wanted::new(&settings)).await?;
    drop(session);
    let (confirmed_in, confirmed) = watch::channel(Lsn::ZERO);
    let (_writable_in, writable) = watch::channel(true);
    let terms = Terms {
        settings: settings.postgres.clone(),
        slot_use: SlotUse::Temporary,
        own_slot,
        budget: Budget::new(settings.memory.queued_bytes),
        status: StatusHandle::default(),
        confirmed,
        writable,
        let_go: LetGo::default(),
        hold: Hold::new(settings.postgres.wal_sender_timeout),
        feedback_on: Handle::current(),
    };
    let mut source = Source::open(terms).await?;
    let mut router = Router::new(source.identity().system, &settings.events, &settings.endpoints);
    let mut captured = Vec::new();
    let mut shown = Ok(());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            read = source.next(&mut captured) => read?,
        }
        for captured in captured.drain(..) {
            match captured {
                Captured::Change(change) => router.route(&change, clock.now(), |rule, routed| {
                    if shown.is_ok() && taken.get(rule.0) == Some(&true) {
                        shown = each_shape(routed, &mut show);
                    }
                }),
                Captured::Commit { end, .. } | Captured::Idle { end } => {
                    confirmed_in.send_replace(end);
                }
            }
        }
        if shown.is_err() {
            break;
        }
    }
    source.finish().await;
    Ok(shown?)
}

/// Shows an event in each shape that somebody gets it in.
fn each_shape(
    routed: Routed,
    show: &mut impl FnMut(Arc<Event>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let (event, others) = match routed {
        Routed::Event(event) => return show(Arc::from(event)),
        Routed::Partly { event, endpoints, others } => {
            let event = Arc::from(event);
            let in_other: usize = others.iter().map(|other| other.endpoints.len()).sum();
            if endpoints.len() > in_other {
                show(Arc::clone(&event))?;
            }
            (event, others)
        }
        Routed::Poison(event) => {
            tracing::warn!(event_id = %event.id, "an event cannot be rendered");
            return Ok(());
        }
        Routed::Filtered | Routed::Repeat { .. } | Routed::Expired { .. } => return Ok(()),
    };
    for Shaped { body, .. } in others {
        show(Arc::new(event.shaped(body, None)))?;
    }
    Ok(())
}
