//! What the demo starts around walhook: private servers, the table, and a receiver that checks signatures.

use std::time::Duration;

use anyhow::Context;
use http::StatusCode;

use crate::cli::receive::server::ReceiverBehaviour;
use crate::cli::receive::signature::VerificationKey;
use crate::cli::terminal;
use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::preflight::ownership::StartConsent;
use crate::preflight::prepare::prepare;
use crate::sandbox::broker::SandboxBroker;
use crate::sandbox::cluster::ClusterOptions;
use crate::sandbox::cluster::SandboxCluster;
use crate::sandbox::find;
use crate::sandbox::find_broker::find_broker;
use crate::sandbox::surroundings::Surroundings;
use crate::store;
use crate::store::SqlSession;

/// The table, as a user of `ocr-wallet` has it.
const TABLE: &str = include_str!("../../../sql/ocr-wallet.sql");

/// A secret for signatures that only the demo's own receiver checks.
pub(super) const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Blocks.
pub(super) fn start_postgres() -> anyhow::Result<SandboxCluster> {
    let installation = find::find_with(&Surroundings::read(), &mut tell)?;
    terminal::line(&format!("PostgreSQL   {}", installation.why()))?;
    Ok(SandboxCluster::start(&installation, ClusterOptions::default())?)
}

/// Blocks.
pub(super) fn start_broker() -> anyhow::Result<SandboxBroker> {
    let at = Surroundings::read();
    let installation = find_broker(&at, &mut tell)?;
    terminal::line(&format!("NATS         {}", installation.why()))?;
    Ok(SandboxBroker::start(&installation, &at)?)
}

/// Makes the table and whatever walhook needs. The session is the writer's.
pub(super) async fn make_table(settings: &Settings) -> anyhow::Result<SqlSession> {
    let session =
        store::connect_with_own_path(&settings.postgres.server, store::ANSWER_MAX).await?;
    session.client.batch_execute(TABLE).await.context("cannot make the demo's table")?;
    prepare(settings, StartConsent::default()).await?;
    Ok(session)
}

/// Answers 200 at once, and checks signatures.
pub(super) fn receiver_behaviour() -> anyhow::Result<ReceiverBehaviour> {
    Ok(ReceiverBehaviour {
        status: StatusCode::OK,
        delay: Duration::ZERO,
        keys: vec![VerificationKey::parse(SECRET)?],
        clock: host_now,
    })
}

/// Progress for the user who waits; if nobody reads it, the fetch goes on all the same.
fn tell(text: &str) {
    drop(terminal::note(text));
}
