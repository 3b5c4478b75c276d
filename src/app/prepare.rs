//! Before the start: looks at the server, makes what is missing.

use crate::config::settings::Settings;
use crate::delivery::guard;
use crate::source::catalog;
use crate::source::catalog::Finding;
use crate::source::catalog::Report;
use crate::source::catalog::Wanted;
use crate::source::error::SourceError;
use crate::source::wire::command;
use crate::store;

/// Makes the publication and the slot if they are missing.
///
/// # Errors
/// Everything that stands in the way, at once, before anything is changed.
pub async fn prepare(settings: &Settings) -> Result<(), SourceError> {
    let postgres = &settings.postgres;
    let session = store::connect(&postgres.server).await?;
    let wanted = Wanted::new(settings);
    let prepared = catalog::prepare(&session.client, postgres, &wanted).await?;
    for step in prepared.ran {
        tracing::info!(sql = step, "made");
    }
    if let Some(start) = prepared.slot_made {
        tracing::info!(slot = postgres.slot, %start, "made the slot: changes count from here");
    }
    for Finding { what, fix, .. } in prepared.warnings {
        tracing::warn!(fix, "{what}");
    }
    Ok(())
}

/// Looks at everything that [`prepare`] and the endpoints need. Changes nothing.
///
/// # Errors
/// The server cannot be asked at all.
pub async fn check(settings: &Settings) -> Result<Report, SourceError> {
    let session = store::connect(&settings.postgres.server).await?;
    let mut report = catalog::inspect(&session.client, &Wanted::new(settings)).await?;
    if report.problems().is_empty() {
        // The catalog can be right and the door closed all the same: pg_hba.conf, for one.
        let timeout = settings.postgres.wal_sender_timeout;
        match command::connect(&settings.postgres.server, timeout).await {
            Ok(connection) => {
                connection.close().await;
                report.findings.push(Finding::ok(String::from("replication connections work")));
            }
            Err(error) => return Err(error),
        }
    }
    for endpoint in &settings.endpoints {
        report.findings.push(match guard::check_host(endpoint.url.reveal(), endpoint.addresses) {
            Ok(()) => Finding::ok(format!("endpoint {}: {}", endpoint.name, endpoint.shown_url())),
            Err(refusal) => Finding::warning(
                format!("endpoint {}: {refusal}", endpoint.name),
                String::from("nothing will be delivered to it: correct its URL"),
            ),
        });
    }
    Ok(report)
}
