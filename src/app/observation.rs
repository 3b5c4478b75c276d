//! What looks at PostgreSQL while walhook runs: time and slot, events' schemas, tables and publication.

use anyhow::Context;

use crate::config::configuration::Settings;
use crate::pipeline::handles::SharedHandles;
use crate::preflight::attached_partitions::AttachedPartitions;
use crate::preflight::event_schemas;
use crate::preflight::schema_watch::SchemaWatch;
use crate::preflight::server_observer::ServerObserver;
use crate::preflight::standby_block::StandbyBlock;
use crate::store::SqlSession;
use crate::task::TaskOwner;

/// Asks the server once, so that ages are right from the first event on.
pub(super) async fn observer(
    settings: &Settings,
    handles: &SharedHandles,
    publication: Option<u32>,
) -> anyhow::Result<(ServerObserver, Option<SqlSession>)> {
    let observer = ServerObserver {
        settings: settings.postgres.clone(),
        state: settings.state.clone(),
        clock: handles.clock.clone(),
        status: handles.status.clone(),
        wal_hold: handles.wal_hold.clone(),
        metrics: handles.metrics.replication(),
        block: StandbyBlock::default(),
        partitions: AttachedPartitions::default(),
        publication,
        tables: settings.events.iter().map(|rule| rule.table.clone()).collect(),
    };
    let mut session = None;
    observer.observe(&mut session).await.context("cannot ask PostgreSQL for the time")?;
    Ok((observer, session))
}

/// Asks the server once, and then every so often.
pub(super) async fn start_observer(
    settings: &Settings,
    handles: &SharedHandles,
    publication: Option<u32>,
    tasks: &mut TaskOwner,
) -> anyhow::Result<()> {
    let (observer, session) = observer(settings, handles, publication).await?;
    let stop = tasks.stop_token();
    tasks.spawn("the observer", async move { Ok(observer.run(session, stop).await?) });
    let schemas = event_schemas::watch(handles.current.subscribe(), tasks.stop_token());
    tasks.spawn("the watch over the events' schemas", async move {
        schemas.await;
        Ok(())
    });
    let watch = SchemaWatch::new(handles.status.clone(), handles.metrics.replication());
    let watch = watch.run(handles.current.subscribe(), tasks.stop_token());
    tasks.spawn("the watch over tables and publication", async move {
        watch.await;
        Ok(())
    });
    Ok(())
}
