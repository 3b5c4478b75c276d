//! Joins the inbound listener to what it needs.
//!
//! It needs no slot: a standby answers callbacks, too.

use std::sync::Arc;

use serde_json::json;

use crate::config::configuration::Settings;
use crate::config::settings::InboundSettings;
use crate::inbound::callback_store;
use crate::inbound::listener::InboundListener;
use crate::inbound::source::RunningSource;
use crate::pipeline::handles::SharedHandles;
use crate::task::TaskOwner;

/// Opens the listener and starts its tasks.
///
/// # Errors
/// The address is in use, or the certificate cannot be used.
pub(super) fn start(
    settings: &Settings,
    inbound: &InboundSettings,
    handles: &SharedHandles,
    tasks: &mut TaskOwner,
) -> anyhow::Result<()> {
    let (writer, writing) = callback_store::open(settings.postgres.server.clone());
    let sources: Vec<Arc<RunningSource>> = inbound
        .sources
        .iter()
        .map(|source| RunningSource::new(source.clone(), handles.metrics.inbound(&source.name)))
        .collect();
    let status = handles.status.clone();
    let status = move || {
        let version = env!("CARGO_PKG_VERSION");
        json!({ "success": true, "data": { "version": version, "streaming": status.is_streaming() } })
    };
    let listener = InboundListener::open(inbound, &sources, writer, status)?;
    tracing::info!(inbound = %listener.address()?, "callbacks are answered");
    let stop = tasks.stop_token();
    tasks.spawn("the inbound listener", async move {
        listener.serve(stop).await;
        Ok(())
    });
    let stop = tasks.stop_token();
    tasks.spawn("the writer of callbacks", async move {
        writing.run(stop).await;
        Ok(())
    });
    Ok(())
}
