//! Partitions that are attached or detached while PostgreSQL 14 is read: its walsender does not notice.
//!
//! From version 15 on a walsender looks anew at a table whose partitioning has changed. One of 14 keeps what it
//! found when it decoded the table's first row: rows of a table that was filled and then attached are passed over,
//! and those of a partition that was detached go on coming as rows of its table. (PostgreSQL 14,
//! `rel_sync_cache_relation_cb` in `pgoutput.c`.)
//!
//! A new walsender finds what there is, but only if the rows that it decodes first are written after the change: one
//! that begins before it decodes the old rows, and keeps what it then finds. So the old one is ended when everything
//! up to the change is confirmed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::flow::relation::TableName;
use crate::store::error::StoreError;

/// The leaves of the tables, where the server does not notice by itself; whether each was a table of its own before;
/// and whether the last link to its table may be newer than what the slot has read.
///
/// A table that was made by another transaction than the link has a row type of that one, which nothing alters.
/// One that was made by the same transaction has columns that the link has altered, while those of one that was
/// made as a partition are older than its link.
const LEAVES: &str = "
    SELECT w.schema || '.' || w.name, n.nspname || '.' || c.relname,
           link.xmin <> t.xmin OR NOT EXISTS (
               SELECT FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0
                  AND (a.xmin <> link.xmin OR a.cmin::text::int8 < link.cmin::text::int8)),
           COALESCE(pg_catalog.age(link.xmin) <= pg_catalog.age(s.catalog_xmin), false)
      FROM unnest($1::text[], $2::text[]) w (schema, name)
      JOIN pg_catalog.pg_namespace rn ON rn.nspname = w.schema
      JOIN pg_catalog.pg_class r ON r.relnamespace = rn.oid AND r.relname = w.name AND r.relkind = 'p'
     CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.oid) p
      JOIN pg_catalog.pg_class c ON c.oid = p.relid
      JOIN pg_catalog.pg_type t ON t.oid = c.reltype
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL (SELECT i.xmin, i.cmin FROM pg_catalog.pg_partition_ancestors(c.oid) a
                           JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.relid
                          ORDER BY pg_catalog.age(i.xmin) LIMIT 1) link
      LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = $3
     WHERE p.isleaf AND p.level > 0
       AND pg_catalog.current_setting('server_version_num')::int < 150000";

/// A position behind the change. It is written with as many bytes as a quiet stream is confirmed by at the least, so
/// that it is passed soon.
const MARK: &str = "
    SELECT pg_catalog.pg_logical_emit_message(false, 'walhook.partitions', repeat(' ', 131072))::text";

/// The stream is connected again by itself.
const END_WALSENDER: &str = "
    SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots
     WHERE slot_name = $1 AND active_pid IS NOT NULL AND confirmed_flush_lsn >= $2::text::pg_lsn";

/// A table and one of its partitions.
type PartitionOf = (String, String);

/// How a partition came to its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PartitionLink {
    /// It was a table of its own before.
    was_table: bool,
    /// The slot may not have read the WAL of this link yet.
    is_unread: bool,
}

/// The partitions by table and name.
type PartitionLinks = BTreeMap<PartitionOf, PartitionLink>;

/// Compares the partitions with those of the last look.
#[derive(Debug, Default)]
pub(crate) struct AttachedPartitions {
    /// `None` before the first look.
    links: Option<PartitionLinks>,
    /// A position behind the last change that the walsender has not been ended for.
    changed_before: Option<String>,
}

impl AttachedPartitions {
    /// Looks once. Where a partition has come or gone the log says which rows the server may pass over, and the
    /// server has a new walsender as soon as what was written before is confirmed.
    ///
    /// # Errors
    /// The server cannot be asked, or the walsender is another role's.
    pub(crate) async fn look(
        &mut self,
        client: &Client,
        slot: &str,
        tables: &[TableName],
    ) -> Result<(), StoreError> {
        let links = read_links(client, slot, tables).await?;
        let (attached, detached) = changed(self.links.as_ref(), &links);
        if !attached.is_empty() || !detached.is_empty() {
            self.changed_before = Some(client.query_one(MARK, &[]).await?.try_get(0)?);
        }
        name_changes(&attached, &detached);
        self.links = Some(links);
        if let Some(position) = &self.changed_before
            && !client.query(END_WALSENDER, &[&slot, position]).await?.is_empty()
        {
            self.changed_before = None;
            tracing::info!(
                "PostgreSQL 14 is read anew: from here on its partitions are as they are now"
            );
        }
        Ok(())
    }
}

async fn read_links(
    client: &Client,
    slot: &str,
    tables: &[TableName],
) -> Result<PartitionLinks, StoreError> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let rows = client.query(LEAVES, &[&schemas, &names, &slot]).await?;
    let link = |row: &tokio_postgres::Row| {
        let link = PartitionLink { was_table: row.try_get(2)?, is_unread: row.try_get(3)? };
        Ok(((row.try_get(0)?, row.try_get(1)?), link))
    };
    rows.iter().map(link).collect()
}

fn name_changes(attached: &BTreeSet<PartitionOf>, detached: &BTreeSet<PartitionOf>) {
    for (table, partition) in attached {
        tracing::warn!(
            table,
            partition,
            fix = format!("walhook backfill {table}, once it is read anew"),
            "PostgreSQL 14 does not notice that a table with rows was attached: until it is read anew, rows that \
             are written into it may be missing, and a backfill sends them"
        );
    }
    for (table, partition) in detached {
        tracing::warn!(
            table,
            partition,
            "PostgreSQL 14 does not notice that a partition was detached: until it is read anew, rows that are \
             written into it may come as rows of the table"
        );
    }
}

/// Which were attached, with rows that they may have had, and which were detached. At the first look (`before` is
/// `None`) those were attached whose link may not have been read.
fn changed(
    before: Option<&PartitionLinks>,
    now: &PartitionLinks,
) -> (BTreeSet<PartitionOf>, BTreeSet<PartitionOf>) {
    let is_new = |leaf: &PartitionOf, link: &PartitionLink| {
        link.was_table && before.map_or(link.is_unread, |before| !before.contains_key(leaf))
    };
    let new = now.iter().filter(|(leaf, link)| is_new(leaf, link));
    let gone = before.into_iter().flat_map(BTreeMap::keys).filter(|leaf| !now.contains_key(*leaf));
    (new.map(|(leaf, _)| leaf.clone()).collect(), gone.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: PartitionLink = PartitionLink { was_table: false, is_unread: true };
    const ATTACHED: PartitionLink = PartitionLink { was_table: true, is_unread: true };
    const READ: PartitionLink = PartitionLink { was_table: true, is_unread: false };

    fn leaf(name: &str) -> PartitionOf {
        (String::from("public.t"), format!("public.{name}"))
    }

    #[test]
    fn only_what_was_a_table_before_counts_as_attached() {
        let before = PartitionLinks::from([(leaf("t_1"), CREATED), (leaf("t_2"), READ)]);
        let now = PartitionLinks::from([
            (leaf("t_2"), READ),
            (leaf("t_3"), CREATED),
            (leaf("old"), ATTACHED),
        ]);
        let (attached, detached) = changed(Some(&before), &now);
        assert_eq!(attached, BTreeSet::from([leaf("old")]));
        assert_eq!(detached, BTreeSet::from([leaf("t_1")]));
        assert_eq!(changed(Some(&now), &now), (BTreeSet::new(), BTreeSet::new()));
    }

    #[test]
    fn at_the_first_look_what_was_attached_and_not_read_counts() {
        let now = PartitionLinks::from([
            (leaf("t_2"), READ),
            (leaf("t_3"), CREATED),
            (leaf("old"), ATTACHED),
        ]);
        assert_eq!(changed(None, &now), (BTreeSet::from([leaf("old")]), BTreeSet::new()));
    }
}
