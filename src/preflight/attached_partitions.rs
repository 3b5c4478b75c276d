//! Partitions that are attached or detached while PostgreSQL 14 is read: its walsender does not notice.
//!
//! From version 15 on a walsender looks anew at a table whose partitioning has changed. One of 14 keeps what it
//! found when it decoded the table's first row: rows of a table that was filled and then attached are passed over,
//! and those of a partition that was detached go on coming as rows of its table. A new walsender finds what there
//! is. (PostgreSQL 14, `rel_sync_cache_relation_cb` in `pgoutput.c`.)

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::flow::relation::TableName;
use crate::store::error::StoreError;

/// The leaves of the tables, where the server does not notice by itself, and whether each was a table of its own
/// before: then its row type, which nothing alters, is of another transaction than the last link to its table.
const LEAVES: &str = "
    SELECT w.schema || '.' || w.name, n.nspname || '.' || c.relname,
           (SELECT i.xmin FROM pg_catalog.pg_partition_ancestors(c.oid) a
              JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.relid
             ORDER BY pg_catalog.age(i.xmin) LIMIT 1) <> t.xmin
      FROM unnest($1::text[], $2::text[]) w (schema, name)
      JOIN pg_catalog.pg_namespace rn ON rn.nspname = w.schema
      JOIN pg_catalog.pg_class r ON r.relnamespace = rn.oid AND r.relname = w.name AND r.relkind = 'p'
     CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.oid) p
      JOIN pg_catalog.pg_class c ON c.oid = p.relid
      JOIN pg_catalog.pg_type t ON t.oid = c.reltype
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE p.isleaf AND p.level > 0
       AND pg_catalog.current_setting('server_version_num')::int < 150000";

/// The stream is connected again by itself.
const END_WALSENDER: &str = "
    SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots
     WHERE slot_name = $1 AND active_pid IS NOT NULL";

/// A table and one of its partitions.
type PartitionOf = (String, String);

/// Compares the partitions with those of the last look.
#[derive(Debug, Default)]
pub(crate) struct AttachedPartitions {
    /// By table and partition, whether it was a table of its own before; `None` before the first look.
    leaves: Option<BTreeMap<PartitionOf, bool>>,
}

impl AttachedPartitions {
    /// Looks once. Where a partition has come or gone the server has a new walsender, and the log says which rows
    /// it may have passed over.
    ///
    /// # Errors
    /// The server cannot be asked, or the walsender is another role's.
    pub(crate) async fn look(
        &mut self,
        client: &Client,
        slot: &str,
        tables: &[TableName],
    ) -> Result<(), StoreError> {
        let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let rows = client.query(LEAVES, &[&schemas, &names]).await?;
        let leaf = |row: &tokio_postgres::Row| {
            Ok::<_, StoreError>(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))
        };
        let leaves = rows.iter().map(leaf).collect::<Result<BTreeMap<_, _>, _>>()?;
        let Some(before) = &self.leaves else {
            self.leaves = Some(leaves);
            return Ok(());
        };
        let (attached, detached) = changed(before, &leaves);
        if !attached.is_empty() || !detached.is_empty() {
            client.query(END_WALSENDER, &[&slot]).await?;
        }
        for (table, partition) in &attached {
            tracing::warn!(
                table,
                partition,
                fix = format!("walhook backfill {table}"),
                "PostgreSQL 14 does not notice that a table with rows was attached: those that were written into \
                 it since, up to now, may be missing, and a backfill sends them; from now on they come"
            );
        }
        for (table, partition) in &detached {
            tracing::warn!(
                table,
                partition,
                "PostgreSQL 14 does not notice that a partition was detached: rows that were written into it \
                 since, up to now, may have come as rows of the table"
            );
        }
        self.leaves = Some(leaves);
        Ok(())
    }
}

/// Which were attached, with rows that they may have had, and which were detached.
fn changed(
    before: &BTreeMap<PartitionOf, bool>,
    now: &BTreeMap<PartitionOf, bool>,
) -> (BTreeSet<PartitionOf>, BTreeSet<PartitionOf>) {
    let new = now.iter().filter(|(leaf, was_table)| **was_table && !before.contains_key(*leaf));
    let gone = before.keys().filter(|leaf| !now.contains_key(*leaf));
    (new.map(|(leaf, _)| leaf.clone()).collect(), gone.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_a_table_before_counts_as_attached() {
        let leaf = |name: &str| (String::from("public.t"), format!("public.{name}"));
        let before = BTreeMap::from([(leaf("t_1"), false), (leaf("t_2"), true)]);
        let now = BTreeMap::from([(leaf("t_2"), true), (leaf("t_3"), false), (leaf("old"), true)]);
        let (attached, detached) = changed(&before, &now);
        assert_eq!(attached, BTreeSet::from([leaf("old")]));
        assert_eq!(detached, BTreeSet::from([leaf("t_1")]));
        assert_eq!(changed(&now, &now), (BTreeSet::new(), BTreeSet::new()));
    }
}
