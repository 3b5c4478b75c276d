//! What a table looked like when a row of it was written.

use crate::flow::quote::identifier;

use std::fmt;
use std::sync::Arc;

/// A table's name with its schema, as PostgreSQL stores them (unquoted).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// `"schema"."name"`, quoted for SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Which columns of the old row PostgreSQL writes to the WAL on update and delete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReplicaIdentity {
    /// The primary key's columns.
    Default,
    /// None: updates and deletes carry no old row.
    Nothing,
    /// The whole old row.
    Full,
    /// The columns of a unique index.
    Index,
}

/// A table as the WAL describes it: names, types and identity come from the Relation message that
/// precedes the row, never from today's catalog, which may be newer than the row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Relation {
    pub oid: u32,
    pub table: TableName,
    pub identity: ReplicaIdentity,
    pub columns: Vec<Column>,
    /// Indexes into `columns` of the primary key, ascending; of the identity index if there is no
    /// primary key; empty if there is neither.
    pub key: Vec<usize>,
    /// Indexes into `columns` by which the changes of one row belong together: those of which
    /// PostgreSQL sends the old values as well as the new ones; see [`Relation::row_key`].
    pub row_key: Vec<usize>,
}

impl Relation {
    /// What tells one row from the others in every change of it, also in a delete: the columns of
    /// the replica identity. A primary key beside an identity index is not sent with a delete. Of a
    /// whole old row the primary key is enough, and without one it takes all of its columns.
    pub fn row_key(
        identity: ReplicaIdentity,
        columns: &[Column],
        primary_key: &[usize],
    ) -> Vec<usize> {
        let flagged = || {
            let flagged = columns.iter().enumerate().filter(|(_, column)| column.identity);
            flagged.map(|(index, _)| index).collect()
        };
        match identity {
            ReplicaIdentity::Default | ReplicaIdentity::Index => flagged(),
            ReplicaIdentity::Full if primary_key.is_empty() => (0..columns.len()).collect(),
            ReplicaIdentity::Full | ReplicaIdentity::Nothing => primary_key.to_vec(),
        }
    }

    /// The index of a column by name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    pub name: String,
    pub type_oid: u32,
    /// Part of the replica identity: present in old rows of kind [`crate::flow::change::OldRow::Key`].
    pub identity: bool,
    pub sql_type: Arc<SqlType>,
}

/// How a column's text form becomes JSON. Domains are resolved to their base type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SqlType {
    Bool,
    /// int2, int4, int8.
    Integer,
    /// float4, float8: a JSON number, but NaN and the infinities are strings.
    Float,
    /// A JSON number with exactly the digits PostgreSQL sent; NaN and infinities are strings.
    Numeric,
    /// json and jsonb: passed through as they are.
    Json,
    Date,
    Timestamp,
    TimestampTz,
    Bytea,
    /// hstore: a JSON object of strings and nulls.
    Hstore,
    /// int2vector and oidvector: numbers or oids separated by blanks.
    Vector {
        element: Arc<SqlType>,
    },
    /// Arrays of any dimension; `delimiter` is a comma for every type but `box` (a semicolon).
    Array {
        element: Arc<SqlType>,
        delimiter: u8,
    },
    /// A row type: field names and types in order.
    Composite {
        fields: Vec<(String, Arc<SqlType>)>,
    },
    /// Everything else (enum, range, uuid, interval, inet, unknown types, ...): its text.
    Text,
}

impl SqlType {
    /// Whether it is made of a row type, at any depth.
    pub fn has_composite(&self) -> bool {
        match self {
            Self::Composite { .. } => true,
            Self::Array { element, .. } | Self::Vector { element } => element.has_composite(),
            _ => false,
        }
    }
}
