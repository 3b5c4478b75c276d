//! The observer: asks PostgreSQL now and then how far behind we are, and what time it is.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::DatabaseClock;
use crate::clock::since_boot;
use crate::config::settings::PostgresSettings;
use crate::config::settings::ServerSettings;
use crate::flow::relation::TableName;
use crate::lane::overflow_delay::WalHold;
use crate::preflight::attached_partitions::AttachedPartitions;
use crate::preflight::clock_offset::OffsetWatch;
use crate::preflight::gaps;
use crate::preflight::standby_block::StandbyBlock;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::gap::ChangeGap;
use crate::replication::gap::GapCause;
use crate::replication::gap_survey;
use crate::replication::retained_wal;
use crate::replication::status::StatusHandle;
use crate::store;
use crate::store::SqlSession;
use crate::store::error::StoreError;
use crate::telemetry::metrics::ReplicationMetrics;

/// Often enough for a graph and for a clock that drifts; each time one read of the catalog.
const INTERVAL: Duration = Duration::from_secs(5);

const CONFIRMED: &str = "
    SELECT confirmed_flush_lsn::text FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";

const MISSING_TABLES: &str = "
    SELECT string_agg(DISTINCT w.schema || '.' || w.name, ', ')
    FROM unnest($2::text[], $3::text[]) w (schema, name)
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_publication_tables p
        WHERE p.pubname = $1 AND p.schemaname = w.schema AND p.tablename = w.name)";

/// Who asks, and whom the answers are for.
pub(crate) struct ServerObserver {
    pub(crate) settings: PostgresSettings,
    /// What says when the last confirmed transaction was committed.
    pub(crate) state: ServerSettings,
    pub(crate) clock: DatabaseClock,
    pub(crate) status: StatusHandle,
    pub(crate) wal_hold: WalHold,
    pub(crate) metrics: ReplicationMetrics,
    /// Whether the server waits for a standby.
    pub(crate) block: StandbyBlock,
    pub(crate) partitions: AttachedPartitions,
    /// The publication's oid at the start, and what it has to publish.
    pub(crate) publication: Option<u32>,
    pub(crate) tables: Vec<TableName>,
}

impl ServerObserver {
    /// Asks until `stop`. What fails is asked again the next time: readiness is the stream's
    /// matter, not this one's.
    ///
    /// # Errors
    /// The publication is not what it was: changes are being lost.
    pub(crate) async fn run(
        mut self,
        mut session: Option<SqlSession>,
        stop: CancellationToken,
    ) -> Result<(), SourceError> {
        let (mut offset, mut is_in_danger) = (OffsetWatch::default(), false);
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // The pump, when it waits for the time, waits for nothing else.
            let is_due = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => true,
                () = self.clock.wanted() => false,
            };
            let observed = match self.observe_or_again(&mut session).await {
                Ok(()) if is_due => self.look(session.as_ref()).await,
                Ok(()) => Ok(None),
                Err(error) => Err(error),
            };
            offset.look(self.clock.ahead_seconds());
            self.look_at_limit(&mut is_in_danger);
            if let Ok(Some(gap)) = observed {
                self.status.waiting(gap.what());
                return Err(SetupDiagnostic::Gap(gap).into());
            }
            if let Err(error) = observed {
                session = None;
                let error = anyhow::Error::new(error);
                tracing::debug!(error = %format!("{error:#}"), "cannot ask for the slot's state");
            }
        }
    }

    /// Asks for the time until `stop`, and looks at nothing else: slot and publication are another's matter.
    pub(crate) async fn follow_clock(
        self,
        mut session: Option<SqlSession>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.clock.wanted() => {}
            }
            if let Err(error) = self.observe_or_again(&mut session).await {
                session = None;
                let error = anyhow::Error::new(error);
                tracing::debug!(error = %format!("{error:#}"), "cannot ask for the time");
            }
        }
    }

    /// What is looked at each time.
    async fn look(
        &mut self,
        session: Option<&SqlSession>,
    ) -> Result<Option<ChangeGap>, StoreError> {
        if let Some(SqlSession { client, .. }) = session {
            let blocked = self.block.look(client, &self.settings.slot).await?;
            self.metrics.set_blocked(blocked.is_some());
            if self.status.blocked(blocked.clone()) {
                match blocked {
                    Some(reason) => tracing::warn!(slot = self.settings.slot, "{reason}"),
                    None => tracing::info!(slot = self.settings.slot, "no standby blocks any more"),
                }
            }
            self.partitions.look(client, &self.settings.slot, &self.tables).await?;
        }
        self.publication(session).await
    }

    /// Says so when more WAL is kept than can still be written before the slot may be lost.
    fn look_at_limit(&self, was_in_danger: &mut bool) {
        let Some(wal) = self.status.view().wal else { return };
        let is_in_danger = wal.is_halfway();
        if is_in_danger && !*was_in_danger {
            tracing::warn!(
                slot = self.settings.slot,
                retained_bytes = wal.retained_bytes,
                safe_bytes = wal.safe_bytes,
                "the slot may soon be lost: see what its endpoints wait for, or raise \
                 max_slot_wal_keep_size"
            );
        }
        *was_in_danger = is_in_danger;
    }

    /// Asks; once more over a new session if an old one has failed.
    async fn observe_or_again(&self, session: &mut Option<SqlSession>) -> Result<(), StoreError> {
        let was_open = session.is_some();
        match self.observe(session).await {
            Err(_lost) if was_open => {
                *session = None;
                self.observe(session).await
            }
            outcome => outcome,
        }
    }

    /// What the publication does not send any more.
    async fn publication(
        &self,
        session: Option<&SqlSession>,
    ) -> Result<Option<ChangeGap>, StoreError> {
        let Some(SqlSession { client, .. }) = session else { return Ok(None) };
        let publication = self.settings.publication.clone();
        let view = self.status.view();
        let gap = async |cause| {
            // What this process has confirmed is nothing yet, or less than one before it has.
            let own = view.confirmed_lsn.parse().unwrap_or_default();
            let slot = client.query_opt(CONFIRMED, &[&self.settings.slot]).await?;
            let stored: Option<String> = slot.map(|row| row.try_get(0)).transpose()?.flatten();
            let from = stored.and_then(|lsn| lsn.parse().ok()).max(Some(own)).unwrap_or(own);
            let to = view.wal.as_ref().and_then(|wal| wal.current.parse().ok());
            let since = Box::pin(gaps::confirmed_at(&self.state, &self.settings.slot)).await;
            Ok(Some(ChangeGap { cause, from, since, to, found: self.clock.now() }))
        };
        if gap_survey::publication(client, &publication).await? != self.publication {
            return gap(GapCause::PublicationMadeAgain { publication }).await;
        }
        let schemas: Vec<&str> = self.tables.iter().map(|table| table.schema.as_str()).collect();
        let names: Vec<&str> = self.tables.iter().map(|table| table.name.as_str()).collect();
        let row = client.query_one(MISSING_TABLES, &[&publication, &schemas, &names]).await?;
        match row.try_get(0)? {
            Some(tables) => gap(GapCause::TablesLeft { publication, tables }).await,
            None => Ok(None),
        }
    }

    /// Asks once, over `session` or a new one.
    ///
    /// # Errors
    /// The server cannot be reached or does not answer.
    pub(crate) async fn observe(&self, session: &mut Option<SqlSession>) -> Result<(), StoreError> {
        let open =
            SqlSession::take_or_connect(session, &self.settings.server, store::ANSWER_SOON).await?;
        let client = &session.insert(open).client;
        let asked = since_boot();
        let (time, wal) = retained_wal::ask(client, &self.settings.slot).await?;
        self.clock.measured(asked, time, since_boot());
        self.metrics.set_retained_wal(wal.retained_bytes);
        self.metrics.set_safe_wal(wal.safe_bytes);
        // Where the server would drop the slot's WAL one day, half of the way is far enough.
        self.wal_hold.note_retained(if wal.is_halfway() { u64::MAX } else { wal.lag_bytes });
        self.status.wal(wal);
        Ok(())
    }
}
