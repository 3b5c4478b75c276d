//! `walhook tail`: shows events without delivering them.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::DatabaseClock;
use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::endpoints::admin::record::EndpointRecord;
use crate::endpoints::admin::record::NamedEventTypes;
use crate::endpoints::admin::record::RecordSeal;
use crate::event::plan::AsideBody;
use crate::event::plan::RoutedEvent;
use crate::event::plan::ShapedBody;
use crate::event::route::EventRouter;
use crate::flow::budget::MemoryBudget;
use crate::flow::change::CapturedItem;
use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::dead_letter_reason::PoisonReason;
use crate::flow::event::Event;
use crate::flow::lsn::Lsn;
use crate::preflight::endpoint_rows;
use crate::replication::catalog;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::connection::SlotUse;
use crate::replication::connection::SourceTerms;
use crate::replication::slot_ownership::SlotOwnership;
use crate::replication::status::StatusHandle;
use crate::replication::stream::ReplicationSource;
use crate::replication::wire::feedback::SlotRelease;
use crate::store;
use crate::store::endpoints;

/// No endpoint has this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no endpoint {name:?}; there are: {}", names.join(", "))]
pub(crate) struct NoEndpoint {
    name: String,
    names: Vec<Arc<str>>,
}

/// The endpoint of this name: of the file, of the table of `[endpoints_from]`, or made at run time.
///
/// # Errors
/// [`NoEndpoint`]; that PostgreSQL or the state cannot be asked, or that its secrets cannot be opened.
pub(crate) async fn endpoint(settings: &Settings, name: &str) -> anyhow::Result<Endpoint> {
    if let Some(found) = settings.endpoints.iter().find(|endpoint| &*endpoint.name == name) {
        return Ok(found.clone());
    }
    let mut names: Vec<Arc<str>> =
        settings.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.name)).collect();
    if let Some(from) = &settings.endpoints_from {
        let session =
            store::connect_with_own_path(&settings.postgres.server, store::ANSWER_MAX).await?;
        let (found, others) = endpoint_rows::find(from, &session.client, name).await?;
        if let Some(found) = found {
            return Ok(found);
        }
        names.extend(others);
    }
    let session = store::connect(&settings.state).await?;
    let stored = endpoints::load_if_any(&session.client, &settings.postgres.slot).await?;
    names.extend(stored.iter().map(|row| Arc::from(row.name.as_str())));
    match stored.into_iter().find(|row| row.name == name) {
        Some(row) => {
            let read = EndpointRecord::of_row(row, &RecordSeal::new(settings))?;
            Ok(read.endpoint(settings, host_now(), NamedEventTypes::MayBeGone)?)
        }
        None => Err(NoEndpoint { name: name.to_owned(), names }.into()),
    }
}

/// Calls `show` for every event from now on, or for those that the endpoint `only` would get, as it
/// would get them, until `stop` is cancelled or `show` fails. Reads from a temporary slot, which
/// vanishes with the connection, and touches nothing else.
///
/// # Errors
/// PostgreSQL's refusals, or what `show` gives.
pub(crate) async fn tail(
    mut settings: Settings,
    only: Option<Endpoint>,
    clock: DatabaseClock,
    stop: CancellationToken,
    mut show: impl FnMut(Arc<Event>) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let is_whole = only.is_none();
    if let Some(only) = only {
        settings.endpoints = vec![only];
    }
    let is_taken = |rule: &EventRule| {
        is_whole || settings.endpoints.iter().any(|endpoint| endpoint.takes(rule))
    };
    let taken: Vec<bool> = settings.events.iter().map(is_taken).collect();
    // An endpoint that takes events by a value of their row is named with each one that it gets.
    let is_named = !is_whole && settings.endpoints.iter().all(|endpoint| endpoint.only.is_some());
    let own_slot = settings.postgres.slot;
    settings.postgres.slot = format!("walhook_tail_{:08x}", fastrand::u32(..));
    // PostgreSQL itself speaks of a missing publication only with the first change.
    let session = store::connect(&settings.postgres.server).await?;
    catalog::require(&session.client, &WantedObjects::new(&settings)).await?;
    drop(session);
    let (confirmed_in, confirmed) = watch::channel(Lsn::ZERO);
    let (_writable_in, writable) = watch::channel(true);
    let terms = SourceTerms {
        settings: settings.postgres.clone(),
        slot_use: SlotUse::Temporary,
        own_slot,
        budget: MemoryBudget::new(settings.memory.queued_bytes),
        status: StatusHandle::default(),
        start: Lsn::ZERO,
        skip_transaction: None,
        tables: settings.events.iter().map(|event| event.table.clone()).collect(),
        confirmed,
        writable,
        let_go: SlotRelease::default(),
        slot_ownership: SlotOwnership::new(settings.postgres.wal_sender_timeout),
        feedback_on: Handle::current(),
    };
    let mut source = ReplicationSource::open(terms).await?;
    let mut router =
        EventRouter::new(source.identity().system, &settings.events, &settings.endpoints);
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
                CapturedItem::Change(change) => {
                    router.route(&change, clock.now(), |rule, routed| {
                        let is_for_nobody = is_named && matches!(routed, RoutedEvent::Event(_));
                        if shown.is_ok() && taken.get(rule.0) == Some(&true) && !is_for_nobody {
                            shown = each_shape(routed, &mut show);
                        }
                    })
                }
                CapturedItem::Commit { end, .. } | CapturedItem::Idle { end } => {
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

/// Shows an event in each shape that an endpoint gets it in.
fn each_shape(
    routed: RoutedEvent,
    show: &mut impl FnMut(Arc<Event>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let (event, others) = match routed {
        RoutedEvent::Event(event) => return show(Arc::from(event)),
        RoutedEvent::Partly { event, endpoints, others, aside } => {
            for AsideBody { why, .. } in aside {
                tracing::warn!(event_id = %event.id, reason = %DeathReason::Poison(why), "an event is set aside");
            }
            let event = Arc::from(event);
            let in_other: usize = others.iter().map(|other| other.endpoints.len()).sum();
            if endpoints.len() > in_other {
                show(Arc::clone(&event))?;
            }
            (event, others)
        }
        RoutedEvent::Poison(event) => {
            tracing::warn!(event_id = %event.id, "an event cannot be rendered");
            return Ok(());
        }
        RoutedEvent::Costly(event) => {
            tracing::warn!(event_id = %event.id, reason = %DeathReason::Poison(PoisonReason::Costly), "an event is set aside");
            return Ok(());
        }
        RoutedEvent::Filtered | RoutedEvent::Repeat { .. } | RoutedEvent::Expired { .. } => {
            return Ok(());
        }
    };
    for ShapedBody { body, .. } in others {
        show(Arc::new(event.shaped(body, None)))?;
    }
    Ok(())
}
