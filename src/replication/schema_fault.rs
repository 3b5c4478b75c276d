//! What about the definition of a table, or about what a publication covers, does not allow the work.

use crate::flow::quote::identifier;
use crate::flow::relation::TableName;

/// One such thing. All of them are mended by SQL or by another configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SchemaFault {
    /// Publishing updates or deletes would make them fail in the table that holds the rows.
    Unidentified { table: TableName, of: Option<TableName>, why: String, fix: String },
    /// Old rows of a partition lack columns that name a row of its table.
    PartitionKey { table: TableName, of: TableName, columns: String },
    /// Events on a table and on a partition of it: each row is sent once, as the table's.
    TwoLevels { table: TableName, of: TableName },
    /// A column whose values are not sent.
    Unsent { table: TableName, column: String, why: String, fix: String },
    /// Publishing more would make updates or deletes of other tables fail.
    BreaksWrites { publication: String, tables: String, why: String, fix: String },
    /// The publication holds back what it sent at the start.
    Narrowed { publication: String, table: TableName, what: String, sql: String },
}

impl SchemaFault {
    /// What is wrong, without the way out.
    pub fn what(&self) -> String {
        match self {
            Self::Unidentified { table, of, why, .. } => {
                let of = of.as_ref().map(|of| format!(", a partition of {of},"));
                format!(
                    "table {table}{} has no replica identity that PostgreSQL takes ({why}): \
                     publishing its updates and deletes would make them fail",
                    of.unwrap_or_default()
                )
            }
            Self::PartitionKey { table, of, columns } => format!(
                "table {table}, a partition of {of}, has another replica identity: its updates and \
                 deletes do not tell {columns}, which names the row"
            ),
            Self::TwoLevels { table, of } => format!(
                "there are events on {table} and on {of}, of which it is a partition: PostgreSQL \
                 sends each row once, as a row of {of}"
            ),
            Self::Unsent { table, column, why, .. } => {
                format!("column {column} of table {table} is not sent: {why}")
            }
            Self::BreaksWrites { publication, tables, why, .. } => format!(
                "publication {publication} also covers {tables}, and publishing updates or deletes \
                 would make them fail there: {why}"
            ),
            Self::Narrowed { publication, table, what, .. } => {
                format!(
                    "publication {publication} holds back {what} of table {table} since walhook started"
                )
            }
        }
    }

    /// What to do: SQL, or another configuration.
    pub fn fix(&self) -> String {
        match self {
            Self::Unidentified { fix, .. }
            | Self::Unsent { fix, .. }
            | Self::BreaksWrites { fix, .. } => fix.clone(),
            Self::PartitionKey { table, .. } => {
                format!("run `ALTER TABLE {} REPLICA IDENTITY FULL;`", table.quoted())
            }
            Self::TwoLevels { of, .. } => format!(
                "name {of} alone, and choose rows by `when`; or name partitions alone, in a \
                 publication of their own ([postgres] publication)"
            ),
            Self::Narrowed { sql, .. } => {
                format!("run `{sql}`, or restart walhook if it is meant")
            }
        }
    }
}

/// A new publication for walhook's tables alone, as a way out.
pub(crate) fn own_publication(publication: &str) -> String {
    let name = identifier(publication);
    format!(
        "name another one than {name} in [postgres] publication: walhook makes it, for its tables alone"
    )
}
