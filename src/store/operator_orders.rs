//! What operators have ordered, one row each: replays and backfills are listed and looked up alike.

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::store::sql::SqlParams;
use crate::store::state_error::StateError;

/// A table of orders.
#[derive(Clone, Copy, Debug)]
pub(super) struct OrderTable {
    pub(super) name: &'static str,
    /// What is read of each.
    pub(super) columns: &'static str,
}

impl OrderTable {
    /// The newest first, at most `limit`; with an `id`, that one.
    ///
    /// # Errors
    /// That the rows could not be read.
    pub(super) async fn list(
        self,
        client: &Client,
        slot: &str,
        id: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Row>, StateError> {
        let Self { name, columns } = self;
        let mut params = SqlParams::default();
        params.put(Type::TEXT, slot);
        params.put(Type::INT8, id);
        params.put(Type::INT8, i64::from(limit));
        let query = format!(
            "SELECT {columns} FROM walhook.{name}
              WHERE slot = $1 AND ($2::bigint IS NULL OR id = $2) ORDER BY id DESC LIMIT $3"
        );
        Ok(client.query_typed(&query, &params.list()).await?)
    }
}
