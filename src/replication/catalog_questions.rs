//! What the stream does not tell, asked over a session of plain SQL: types, primary keys, and how far
//! the server has come.
//!
//! The session is opened with the first question and made anew when it is gone.

use std::time::Duration;

use crate::config::settings::ServerSettings;
use crate::flow::lsn::Lsn;
use crate::replication::error::SourceError;
use crate::replication::types;
use crate::replication::types::TypeAnswers;
use crate::replication::types::TypeQuestions;
use crate::store;
use crate::store::SqlSession;

/// How far the server has come; on a standby how far it has replayed or received.
const WAL_END: &str = "
    SELECT (CASE WHEN pg_catalog.pg_is_in_recovery()
                 THEN greatest(pg_catalog.pg_last_wal_replay_lsn(),
                               pg_catalog.pg_last_wal_receive_lsn())
                 ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text";

/// Whether the transaction with the 32-bit id `$1` is still running for a new snapshot: it is among
/// those that it lists, or not before the first id that it knows nothing of. Ids go round.
const IS_RUNNING: &str = "
    SELECT ($1::int8 - xmax::text::numeric % 4294967296 + 6442450944) % 4294967296 >= 2147483648
        OR EXISTS (SELECT FROM pg_catalog.pg_snapshot_xip(snapshot) x
                    WHERE x::text::numeric % 4294967296 = $1::int8)
      FROM (SELECT s, pg_catalog.pg_snapshot_xmax(s) FROM pg_catalog.pg_current_snapshot() s)
           now (snapshot, xmax)";

/// The WAL tells of a commit before other sessions see it: so often is looked whether they do, and
/// so long is waited in between. What takes longer hangs on a synchronous standby, where types have
/// to be taken as they are.
const VISIBLE_TRIES: u32 = 250;
const VISIBLE_PAUSE: Duration = Duration::from_millis(2);

/// Asks the catalog what the stream does not tell, and remembers the answers.
#[derive(Debug, Default)]
pub(super) struct CatalogAnswers {
    session: Option<SqlSession>,
}

impl CatalogAnswers {
    /// The next question is asked over a new session.
    pub(super) fn close(&mut self) {
        self.session = None;
    }

    /// What a Relation message leaves open, as the transaction `xid` has left it.
    pub(super) async fn answer(
        &mut self,
        server: &ServerSettings,
        questions: &TypeQuestions,
        xid: Option<u32>,
    ) -> Result<TypeAnswers, SourceError> {
        if questions.is_empty() {
            return Ok(TypeAnswers::default());
        }
        let session = self.open(server).await?;
        if let Some(xid) = xid {
            for _ in 0..VISIBLE_TRIES {
                let row = session.client.query_one(IS_RUNNING, &[&i64::from(xid)]).await?;
                if !row.try_get::<_, bool>(0)? {
                    break;
                }
                tokio::time::sleep(VISIBLE_PAUSE).await;
            }
        }
        Ok(types::answer(&session.client, questions).await?)
    }

    /// How far the server has come.
    pub(super) async fn wal_end(&mut self, server: &ServerSettings) -> Result<Lsn, SourceError> {
        let session = self.open(server).await?;
        let row = session.client.query_one(WAL_END, &[]).await?;
        let text: &str = row.try_get(0)?;
        text.parse().map_err(|_| SourceError::Protocol { what: format!("a position {text:?}") })
    }

    async fn open(&mut self, server: &ServerSettings) -> Result<&SqlSession, SourceError> {
        let open =
            SqlSession::take_or_connect(&mut self.session, server, store::ANSWER_SOON).await?;
        Ok(self.session.insert(open))
    }
}
