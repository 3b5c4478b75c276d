//! `[messages]`: where it stands what became of messages.

use crate::flow::relation::TableName;

/// The tables of `sql/wecom-callbacks.sql`, or others with their columns.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MessageTables {
    /// `message_id` and `msgid`, the receiver's own id.
    pub table: TableName,
    /// Its steps: `id`, `message_id`, `state`, `user_id`, `at`, `detail`.
    pub history: TableName,
}
