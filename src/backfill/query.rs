//! The statements that read the rows of a leaf. Pure: text from what is known.
//!
//! Over the simple protocol, values come as their types' output functions write them: as in the stream.
//! A condition of the user's stands in parentheses of its own, on lines of its own, and was parsed before as
//! part of a single statement; it never runs but in a read-only transaction.

use crate::backfill::table::TableFacts;
use crate::backfill::table::TableLeaf;
use crate::flow::quote::identifier;
use crate::flow::quote::literal;
use crate::flow::relation::TableName;
use crate::store::backfills::ReadOrder;

/// Begins a chunk's transaction, and asks for its snapshot. The first statement that needs one takes it, so
/// that it is older than the position that is asked for next.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
     SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
     SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text";

/// The same on a standby, between two positions of its replay, of which the first is told in a transaction of
/// its own: within this one it could not be older than the snapshot.
pub(crate) const BEGIN_ON_STANDBY: &str = "BEGIN; SELECT pg_catalog.pg_last_wal_replay_lsn(); COMMIT; \
     BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
     SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
     SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text; \
     SELECT pg_catalog.pg_last_wal_replay_lsn()";

/// Where the WAL ends; on a standby: how far it is replayed. With what tells the end of a record from the
/// place of the next one, and whether it is a standby.
pub(crate) const POSITION: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
        THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,
    pg_catalog.current_setting('wal_block_size')::pg_catalog.int8,
    pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),
    pg_catalog.pg_is_in_recovery()";

/// One that reads a part of a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafQuery<'q> {
    pub facts: &'q TableFacts,
    pub leaf: &'q TableLeaf,
    pub order: ReadOrder,
    /// The user's condition.
    pub filter: Option<&'q str>,
}

impl LeafQuery<'_> {
    /// What tells where a row stands: columns that are selected before the others.
    pub(crate) fn places(&self) -> Vec<String> {
        match self.order {
            ReadOrder::Key => {
                self.facts.key.iter().map(|column| identifier(&column.name)).collect()
            }
            ReadOrder::Ctid => vec![String::from("ctid")],
        }
    }

    /// Where the next `reach` keys end; no row if there are fewer left.
    pub(crate) fn bound(&self, after: &[String], reach: u32) -> String {
        let places = self.places().join(", ");
        format!(
            "SELECT {places} FROM ONLY {} WHERE {} ORDER BY {places} OFFSET {} LIMIT 1",
            self.leaf.table.quoted(),
            self.beyond(after),
            reach.saturating_sub(1),
        )
    }

    /// The rows after one place, up to another.
    pub(crate) fn rows(&self, after: &[String], up_to: Option<&[String]>) -> String {
        let columns = self.facts.relation.columns.iter().map(|column| identifier(&column.name));
        let selected: Vec<String> = self.places().into_iter().chain(columns).collect();
        let mut conditions = vec![self.beyond(after)];
        if let Some(up_to) = up_to {
            conditions.push(self.compared("<=", up_to));
        }
        conditions.extend(self.conditions());
        let order = match self.order {
            ReadOrder::Key => format!(" ORDER BY {}", self.places().join(", ")),
            // A range of blocks is read in their order.
            ReadOrder::Ctid => String::new(),
        };
        format!(
            "SELECT {} FROM ONLY {} WHERE {}{order}",
            selected.join(", "),
            self.leaf.table.quoted(),
            conditions.join(" AND "),
        )
    }

    fn conditions(&self) -> Vec<String> {
        own_conditions(self.facts, self.filter)
    }

    fn beyond(&self, after: &[String]) -> String {
        match after.is_empty() {
            true => String::from("true"),
            false => self.compared(">", after),
        }
    }

    fn compared(&self, operator: &str, place: &[String]) -> String {
        let row = |parts: Vec<String>| match parts.as_slice() {
            [one] => one.clone(),
            _ => format!("({})", parts.join(", ")),
        };
        let row_type = |column: usize| match self.order {
            ReadOrder::Key => self.facts.key.get(column)?.row_type.as_deref(),
            ReadOrder::Ctid => None,
        };
        let value = |(column, value): (usize, &String)| match row_type(column) {
            Some(row_type) => format!("{}::{row_type}", literal(value)),
            None => literal(value),
        };
        let values = row(place.iter().enumerate().map(value).collect());
        format!("{} {operator} {values}", row(self.places()))
    }
}

/// Transactions that have a lock on one of the tables with which rows are changed, the oldest first.
pub(crate) fn writers(leaves: &[TableLeaf]) -> String {
    let oids: Vec<String> = leaves.iter().map(|leaf| leaf.oid.to_string()).collect();
    format!(
        "SELECT DISTINCT virtualtransaction FROM pg_catalog.pg_locks
          WHERE locktype = 'relation' AND granted AND database = (
                SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
            AND relation = ANY ('{{{}}}'::pg_catalog.oid[])
            AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                         'AccessExclusiveLock')",
        oids.join(",")
    )
}

/// The row of one key: texts in the order of the relation's row key. `None` if that has other columns by now.
pub(super) fn by_key(facts: &TableFacts, filter: Option<&str>, key: &[String]) -> Option<String> {
    let relation = &facts.relation;
    if relation.row_key.len() != key.len() {
        return None;
    }
    let compared = |(&column, value): (&usize, &String)| {
        let name = &relation.columns.get(column)?.name;
        let row_type = facts.key.iter().find(|known| known.name == *name)?.row_type.as_deref();
        let cast = row_type.map_or_else(String::new, |row_type| format!("::{row_type}"));
        Some(format!("{} = {}{cast}", identifier(name), literal(value)))
    };
    let mut conditions =
        relation.row_key.iter().zip(key).map(compared).collect::<Option<Vec<_>>>()?;
    conditions.extend(own_conditions(facts, filter));
    let columns = relation.columns.iter().map(|column| identifier(&column.name));
    Some(format!(
        "SELECT {} FROM {}{} WHERE {}",
        columns.collect::<Vec<_>>().join(", "),
        if facts.has_partitions() { "" } else { "ONLY " },
        relation.table.quoted(),
        conditions.join(" AND "),
    ))
}

fn own_conditions(facts: &TableFacts, filter: Option<&str>) -> Vec<String> {
    let own = facts.row_filter.as_deref().into_iter().chain(filter);
    // A comment at its end must not reach what follows.
    own.map(|condition| format!("(\n{condition}\n)")).collect()
}

/// A table's file.
pub(crate) fn filenode(table: &TableName) -> String {
    let name = literal(&table.quoted());
    format!("SELECT pg_catalog.pg_relation_filenode({name}::pg_catalog.regclass)")
}

/// How many blocks the file has.
pub(crate) fn blocks(table: &TableName) -> String {
    let name = literal(&table.quoted());
    format!(
        "SELECT pg_catalog.pg_relation_size({name}::pg_catalog.regclass) / \
         pg_catalog.current_setting('block_size')::pg_catalog.int8"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backfill::row_buffer::RowIdentity;
    use crate::backfill::table::KeyColumn;
    use crate::flow::relation::Column;
    use crate::flow::relation::Relation;
    use crate::flow::relation::ReplicaIdentity;
    use crate::flow::relation::SqlType;

    fn facts(key: &[&str]) -> TableFacts {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            type_oid: 25,
            identity: true,
            sql_type: Arc::new(SqlType::Text),
        };
        let table = TableName::new("public", "t\"x");
        let columns: Vec<Column> = ["a", "b"].iter().map(column).collect();
        let identity = ReplicaIdentity::Default;
        let relation = Relation {
            oid: 1,
            table: table.clone(),
            identity,
            columns,
            key: vec![0],
            row_key: vec![0],
        };
        let leaf = TableLeaf { oid: 1, table, filenode: 2, rows: 0, blocks: 9 };
        TableFacts {
            relation: Arc::new(relation),
            identity: RowIdentity::Unique,
            key: key
                .iter()
                .map(|name| KeyColumn { name: (*name).to_owned(), row_type: None })
                .collect(),
            row_filter: Some("b <> 'x'".to_owned()),
            leaves: vec![leaf],
            shape: String::new(),
        }
    }

    #[test]
    fn rows_are_read_along_the_key() {
        let facts = facts(&["a", "b"]);
        let query = LeafQuery {
            facts: &facts,
            leaf: &facts.leaves[0],
            order: ReadOrder::Key,
            filter: Some("a = 1 -- x"),
        };
        let text = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            query.bound(&text(&["1", "o'x"]), 10),
            "SELECT \"a\", \"b\" FROM ONLY \"public\".\"t\"\"x\" WHERE (\"a\", \"b\") > ('1', 'o''x') \
             ORDER BY \"a\", \"b\" OFFSET 9 LIMIT 1"
        );
        assert_eq!(
            query.rows(&[], Some(&text(&["2", "y"]))),
            "SELECT \"a\", \"b\", \"a\", \"b\" FROM ONLY \"public\".\"t\"\"x\" WHERE true AND \
             (\"a\", \"b\") <= ('2', 'y') AND (\nb <> 'x'\n) AND (\na = 1 -- x\n) ORDER BY \"a\", \"b\""
        );
    }

    #[test]
    fn rows_are_read_as_they_lie() {
        let facts = facts(&[]);
        let query = LeafQuery {
            facts: &facts,
            leaf: &facts.leaves[0],
            order: ReadOrder::Ctid,
            filter: None,
        };
        assert_eq!(
            query.rows(&["(3,65535)".to_owned()], Some(&["(7,65535)".to_owned()])),
            "SELECT ctid, \"a\", \"b\" FROM ONLY \"public\".\"t\"\"x\" WHERE ctid > '(3,65535)' AND \
             ctid <= '(7,65535)' AND (\nb <> 'x'\n)"
        );
    }
}
