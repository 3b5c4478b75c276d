//! Looks every few seconds whether walhook may still do what it does beside the stream: read the table
//! of `[endpoints_from]` and write outcomes back.
//!
//! A right that is taken away, or row-level security that is switched on, shows otherwise only with
//! the next change or outcome. PostgreSQL is asked for plans, which needs the same rights as the
//! statements themselves, and changes nothing.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::configuration::Settings;
use crate::pipeline::handles::SharedHandles;
use crate::preflight::endpoint_rows;
use crate::preflight::inspection::InspectionSessions;
use crate::preflight::inspection::SchemaInspection;
use crate::preflight::write_backs;
use crate::replication::catalog::CheckFinding;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::store::error::StoreError;
use crate::task::TaskOwner;
use crate::telemetry::obstacles::NamedObstacle;
use crate::telemetry::obstacles::NamedObstacles;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Starts the looks, if there is something to look at.
pub(crate) fn start(settings: &Settings, handles: &SharedHandles, tasks: &mut TaskOwner) {
    let writes = settings.events.iter().any(|rule| rule.write_back.is_some());
    if writes || settings.endpoints_from.is_some() {
        let watch = watch(settings.clone(), handles.obstacles.clone(), tasks.stop_token());
        tasks.spawn("the watch over rights", watch);
    }
}

async fn watch(
    settings: Settings,
    obstacles: NamedObstacles,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut sessions = InspectionSessions::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let looked = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            looked = look(&settings, &mut sessions) => looked,
        };
        match looked {
            Ok((endpoints, writes)) => {
                told(&obstacles, NamedObstacle::EndpointsTable, endpoints);
                told(&obstacles, NamedObstacle::WriteBacks, writes);
            }
            Err(error) => {
                // That the server is away is said by the parts that need it more.
                sessions = InspectionSessions::default();
                let error = anyhow::Error::new(error);
                tracing::debug!(error = %format!("{error:#}"), "cannot look at rights");
            }
        }
    }
}

fn told(obstacles: &NamedObstacles, obstacle: NamedObstacle, refusal: Option<SetupDiagnostic>) {
    let what = refusal.map(|refusal| refusal.to_string());
    if obstacles.set(obstacle, what.clone()) {
        match what {
            Some(what) => tracing::error!(obstacle = obstacle.name(), "{what}"),
            None => tracing::info!(obstacle = obstacle.name(), "is allowed again"),
        }
    }
}

/// What is refused to the table of endpoints, and to write-backs.
async fn look(
    settings: &Settings,
    sessions: &mut InspectionSessions,
) -> Result<(Option<SetupDiagnostic>, Option<SetupDiagnostic>), StoreError> {
    let server = &settings.postgres.server;
    let endpoints =
        endpoint_rows::refused(settings, &sessions.own_path(server).await?.client).await?;
    let facts = SchemaInspection::of_tables(settings, sessions).await?.facts;
    let findings = match &facts {
        Some(facts) => {
            let client = &mut sessions.own_path(server).await?.client;
            write_backs::findings(settings, facts, client).await?
        }
        None => Vec::new(),
    };
    // Outcomes wait for it in the state, and nothing is lost; but an operator has to put it right.
    let writes = findings.into_iter().find_map(|finding: CheckFinding| finding.refusal);
    Ok((endpoints, writes))
}
