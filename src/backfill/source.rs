//! Where rows are read: on the source, or on a standby of it.

use tokio_postgres::Client;
use tokio_postgres::Row;

use crate::backfill::context::BackfillContext;
use crate::backfill::read_error::ReadError;
use crate::backfill::wal_end;
use crate::backfill::wal_end::WalEnd;
use crate::flow::lsn::Lsn;
use crate::store;
use crate::store::SqlSession;
use crate::store::error::StoreError;

/// Of which system it is, and what a chunk has to fear there. A role without `pg_monitor` sees no
/// `received_tli`; the control file follows with the next restart point.
const LOOK: &str = "
    SELECT s.system_identifier, greatest(c.timeline_id, coalesce((SELECT r.received_tli
            FROM pg_catalog.pg_stat_wal_receiver r), 0))::int4,
        pg_catalog.pg_is_in_recovery(),
        pg_catalog.current_setting('hot_standby_feedback')::bool,
        (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'max_standby_streaming_delay')
    FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c";

/// Why rows cannot be read on the server of `[backfill] url`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StandbyError {
    #[error(
        "it is no standby but takes writes itself, so its rows need not be the source's: name a standby, or \
         take `url` out"
    )]
    NotInRecovery,
    #[error(
        "it is of another database system ({found}) than the source ({expected}): name a standby of the source"
    )]
    OtherSystem { expected: i64, found: i64 },
    #[error(
        "it follows timeline {found} and the source is on {expected}: after a failover it has to follow the \
         new primary"
    )]
    OtherTimeline { expected: i32, found: i32 },
    #[error("cannot ask it")]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for StandbyError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ServerKinship {
    system: i64,
    timeline: i32,
    is_in_recovery: bool,
    /// `hot_standby_feedback`.
    pub has_feedback: bool,
    /// `max_standby_streaming_delay` in milliseconds; -1: for ever.
    pub delay_millis: i64,
}

/// Looks at a server that is to be a standby of the source.
///
/// # Errors
/// What makes it unfit, or that one of the two could not be asked.
pub(crate) async fn standby_of(
    source: &Client,
    standby: &Client,
) -> Result<ServerKinship, StandbyError> {
    let (source, standby) = (ask(source).await?, ask(standby).await?);
    if source.system != standby.system {
        let (expected, found) = (source.system, standby.system);
        return Err(StandbyError::OtherSystem { expected, found });
    }
    if !standby.is_in_recovery {
        return Err(StandbyError::NotInRecovery);
    }
    if source.timeline != standby.timeline {
        let (expected, found) = (source.timeline, standby.timeline);
        return Err(StandbyError::OtherTimeline { expected, found });
    }
    Ok(standby)
}

async fn ask(client: &Client) -> Result<ServerKinship, StoreError> {
    let row: Row = client.query_one(LOOK, &[]).await?;
    Ok(ServerKinship {
        system: row.try_get(0)?,
        timeline: row.try_get(1)?,
        is_in_recovery: row.try_get(2)?,
        has_feedback: row.try_get(3)?,
        delay_millis: row.try_get(4)?,
    })
}

/// The sessions of a backfill.
pub(super) struct RowSource {
    /// Where its rows are read.
    rows: SqlSession,
    /// The source, where that is another server.
    source: Option<SqlSession>,
    is_standby: bool,
}

impl RowSource {
    /// Logs in.
    ///
    /// # Errors
    /// That a server lets nobody in, or is not what it has to be.
    pub(super) async fn open(context: &BackfillContext) -> Result<Self, StandbyError> {
        let source = store::connect(&context.source).await?;
        let Some(server) = &context.standby else {
            let question = "SELECT pg_catalog.pg_is_in_recovery()";
            let is_standby = source.client.query_one(question, &[]).await?.try_get(0)?;
            return Ok(Self { rows: source, source: None, is_standby });
        };
        let rows = store::connect(server).await?;
        standby_of(&source.client, &rows.client).await?;
        Ok(Self { rows, source: Some(source), is_standby: true })
    }

    /// Where rows are read.
    pub(super) fn rows(&self) -> &Client {
        &self.rows.client
    }

    /// The source.
    pub(super) fn source(&self) -> &Client {
        &self.source.as_ref().unwrap_or(&self.rows).client
    }

    /// Whether rows are read on a standby, be it the source itself.
    pub(super) fn is_standby(&self) -> bool {
        self.is_standby
    }

    /// Where the source is by now.
    pub(super) async fn end(&self) -> Result<Lsn, ReadError> {
        Ok(wal_end::position(self.source()).await?.lsn)
    }

    /// How far the standby has replayed.
    pub(super) async fn replayed(&self) -> Result<Lsn, ReadError> {
        let WalEnd { lsn, is_standby } = wal_end::position(self.rows()).await?;
        if is_standby { Ok(lsn) } else { Err(ReadError::Promoted) }
    }
}
