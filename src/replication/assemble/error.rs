//! Why messages of the stream could not be put together.

use crate::flow::lsn::Lsn;
use crate::flow::relation::TableName;

/// Messages that are sound one by one but do not follow from each other.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum AssembleError {
    #[error("relation {oid} was not described before its rows")]
    UnknownRelation { oid: u32 },
    #[error("{what} came outside of a transaction")]
    OutsideTransaction { what: &'static str },
    #[error("a transaction began within the one that commits at {open}")]
    NestedTransaction { open: Lsn },
    #[error("the transaction announced for {begun} was committed at {committed}")]
    OtherCommit { begun: Lsn, committed: Lsn },
    #[error("a row of {table} has {given} fields, but the table has {columns} columns")]
    FieldCount { table: TableName, columns: usize, given: usize },
    #[error("a row's fields lie outside of its message")]
    OtherMessage,
    #[error("the transaction that commits at {commit} has more than {} changes", u32::MAX)]
    TooManyChanges { commit: Lsn },
}
