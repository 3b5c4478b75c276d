//! Assembles the HTTP surface: health, metrics, API and page, with handles to what they show.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::allowed_hosts::AllowedHosts;
use crate::api::live_readers::LiveReaders;
use crate::api::refusals::RefusalCounter;
use crate::api::requests::message_queries::MessageQueries;
use crate::api::requests::state_queries::StateQueries;
use crate::api::surface::HttpSurface;
use crate::app::scrape::MetricsScrape;
use crate::config::configuration::Settings;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::partition_snapshots::PartitionSnapshots;
use crate::endpoints::registry::snapshot;
use crate::listen_socket;
use crate::pipeline::handles::SharedHandles;

pub(super) fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let taken = || format!("cannot listen on {address}: free it, or change [http] listen");
    listen_socket::open(address).with_context(taken)
}

/// What is behind the HTTP surface.
pub(super) fn surface(
    settings: &Settings,
    handles: &SharedHandles,
    scrape: Arc<MetricsScrape>,
    (registry, partitions): (Arc<OnceLock<RegistryHandle>>, PartitionSnapshots),
    (admin, backfills): (
        api::requests::endpoint_calls::AdminSender,
        api::requests::backfill_calls::BackfillRequestSender,
    ),
    stop: CancellationToken,
) -> HttpSurface {
    let configured: Vec<_> = settings.endpoints.iter().map(snapshot::not_begun).collect();
    let queries = StateQueries::new(
        settings.state.clone(),
        settings.postgres.slot.clone(),
        Arc::clone(&handles.asked),
        settings.push_log.bodies,
    );
    HttpSurface {
        metrics: handles.metrics.clone(),
        stats: Arc::clone(&handles.stats),
        source: handles.status.clone(),
        sockets: handles.sockets.clone(),
        clock: handles.clock.clone(),
        write_backs: handles.write_backs.clone(),
        refused: handles.refused.clone(),
        missing: handles.missing.clone(),
        state: handles.state.clone(),
        obstacles: handles.obstacles.clone(),
        refresh: Arc::new(move || scrape.refresh()),
        events: settings.events.iter().map(|rule| Arc::clone(&rule.event_type)).collect(),
        endpoints: Arc::new(move || match registry.get() {
            Some(registry) => registry.snapshot().view(),
            None => partitions.view(&configured),
        }),
        admin,
        backfills,
        token: settings.http.token.clone(),
        hosts: AllowedHosts::new(settings.http.listen, &settings.http.hosts),
        refusals: RefusalCounter::new(handles.metrics.clone()),
        queries: Arc::new(queries),
        feed: handles.feed.clone(),
        samples: handles.samples.clone(),
        live: LiveReaders::new(stop),
        current: handles.current.subscribe(),
        messages: MessageQueries::new(&settings.postgres.server, settings.messages.as_ref()),
    }
}
