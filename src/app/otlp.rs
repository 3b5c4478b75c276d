//! Starts what goes to a collector of OpenTelemetry, if there is to be one.

use anyhow::Context;

use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::pipeline::handles::SharedHandles;
use crate::task::TaskOwner;
use crate::telemetry::otlp::exporter::OtlpExporter;

/// Without a collector nothing is made, and nobody is given a tracer.
///
/// # Errors
/// TLS cannot be set up.
pub(super) fn start(
    settings: &Settings,
    handles: &mut SharedHandles,
    tasks: &mut TaskOwner,
) -> anyhow::Result<()> {
    let Some(collector) = &settings.telemetry.collector else { return Ok(()) };
    // No two processes of a service have it in common; the slot tells one service from another.
    let instance = format!("{}-{:016x}", settings.postgres.slot, fastrand::u64(..));
    let made = OtlpExporter::new(collector, &handles.metrics, &instance, host_now);
    let (exporter, tracer) = made.context("cannot set up [telemetry]")?;
    handles.tracer = tracer;
    let close = tasks.close_token();
    tasks.spawn_last("the telemetry", async move {
        exporter.run(close.clone()).await;
        close.cancelled().await; // it must not end the others
        Ok(())
    });
    Ok(())
}
