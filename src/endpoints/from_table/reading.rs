//! Reads the rows of the table: those that a transaction has changed, or all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::config::settings::Endpoint;
use crate::endpoints::from_table::RETRY_CAP;
use crate::endpoints::from_table::RETRY_FIRST;
use crate::endpoints::from_table::TableFollower;
use crate::endpoints::known_keys::ChangedEndpoints;
use crate::endpoints::wanted_rows::WantedEndpoint;
use crate::endpoints::wanted_rows::wanted;
use crate::preflight::endpoint_rows::KeyedRow;
use crate::preflight::endpoint_rows::Row;
use crate::preflight::endpoint_rows::keyed_rows;
use crate::store::error::StoreError;
use crate::telemetry::obstacles::NamedObstacle;

/// Between two looks whether a transaction that is in the WAL is visible, too.
const VISIBLE_PAUSE: Duration = Duration::from_millis(2);

/// Whether the transaction with the 32-bit id $1 is still running for a new snapshot: it is among those
/// that it lists, or not before the first id that it knows nothing of. Ids go round.
const IS_RUNNING: &str = "
    SELECT ($1::int8 - xmax::text::numeric % 4294967296 + 6442450944) % 4294967296 >= 2147483648
        OR EXISTS (SELECT FROM pg_snapshot_xip(snapshot) x
                    WHERE x::text::numeric % 4294967296 = $1::int8)
      FROM (SELECT s, pg_snapshot_xmax(s) FROM pg_current_snapshot() s) now (snapshot, xmax)";

impl TableFollower {
    /// Whether nothing is open that other rows than the changed ones may have a part in.
    pub(super) fn is_by_itself(&self, changed: &ChangedEndpoints) -> bool {
        let is_named = |name: &Arc<str>| self.named.iter().any(|(named, _)| **named == **name);
        !self.is_unfinished && self.without_place == 0 && !changed.names.iter().any(is_named)
    }

    /// What the changed rows are to be; `None` if that depends on others as well.
    pub(super) async fn read_part(
        &mut self,
        xid: Option<u32>,
        changed: ChangedEndpoints,
        others: &BTreeSet<Arc<str>>,
    ) -> Option<(WantedEndpoint, ChangedEndpoints)> {
        let rows = self.read_surely(xid, Some(&changed)).await;
        let wanted = wanted(&self.from, rows, others);
        let is_other = |name: &Arc<str>| !changed.names.contains(name);
        let touches = |(name, (_, row)): (&Arc<str>, &(Endpoint, Row))| {
            let of_id = self.from.row_id(row).and_then(|id| self.saved.get(&id));
            is_other(name) && self.rows.contains_key(name) || of_id.is_some_and(is_other)
        };
        let is_by_itself = wanted.problems.is_empty() && !wanted.endpoints.iter().any(touches);
        is_by_itself.then_some((wanted, changed))
    }

    /// [`TableFollower::read`], as often as it takes.
    pub(super) async fn read_surely(
        &mut self,
        xid: Option<u32>,
        only: Option<&ChangedEndpoints>,
    ) -> Vec<KeyedRow> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let rows = loop {
            match self.read(xid, only).await {
                Ok(rows) => break rows,
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    let table = self.from.table.to_string();
                    self.metrics.endpoints_table_errors().inc();
                    // Who waits for it reads no further: the endpoints of before would be wrong.
                    let what = format!("[endpoints_from]: table {table} cannot be read: {error}");
                    if self.obstacles.set(NamedObstacle::EndpointsTable, Some(what)) {
                        tracing::warn!(
                            table,
                            error,
                            "cannot read the endpoints' table, trying again; endpoints stay as they were"
                        );
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        };
        self.obstacles.set(NamedObstacle::EndpointsTable, None);
        rows
    }

    /// The rows that have changed, or all, as of a moment when transaction `xid` is visible.
    pub(super) async fn read(
        &mut self,
        xid: Option<u32>,
        only: Option<&ChangedEndpoints>,
    ) -> Result<Vec<KeyedRow>, StoreError> {
        let mut sessions = std::mem::take(&mut self.sessions);
        // The WAL tells of a commit a moment before other sessions see it.
        while let Some(xid) = xid {
            let client = &sessions.plain(&self.server).await?.client;
            let running = client.query_one(IS_RUNNING, &[&i64::from(xid)]).await?;
            if !running.try_get::<_, bool>(0)? {
                break;
            }
            tokio::time::sleep(VISIBLE_PAUSE).await;
        }
        let client = &sessions.own_path(&self.server).await?.client;
        let key = self.keys.column.as_ref();
        let read = keyed_rows(client, &self.from, key, only.map(|changed| &changed.keys)).await?;
        self.sessions = sessions;
        Ok(read)
    }
}
