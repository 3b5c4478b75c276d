//! `[messages]`: the tables that the management API answers from what became of a message.

use crate::config::identifiers;
use crate::config::settings::MessageTables;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::flow::relation::TableName;

/// Reads the section, if there is one.
pub(crate) fn read(root: &mut TomlSection<'_>) -> Option<MessageTables> {
    let is_there = root.has("messages");
    let mut section = root.section("messages");
    let table = section.read("table", identifiers::table);
    let history = section.read("history", identifiers::table);
    section.finish();
    is_there.then(|| MessageTables {
        table: table.unwrap_or_else(|| TableName::new("public", "wecom_messages")),
        history: history.unwrap_or_else(|| TableName::new("public", "wecom_message_history")),
    })
}
