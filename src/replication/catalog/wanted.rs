//! What is to be read: the tables that events and endpoints come from, and the columns that are named.

use std::collections::BTreeSet;

use crate::config::configuration::Settings;
use crate::config::settings::EventRule;
use crate::config::settings::Operations;
use crate::flow::relation::TableName;

/// What is to be read, and through which slot and publication.
#[derive(Clone, Debug)]
pub struct WantedObjects {
    pub slot: String,
    pub publication: String,
    /// Whether standbys are to keep the slot.
    pub failover: bool,
    /// Each table once.
    pub tables: Vec<WantedTable>,
}

#[derive(Clone, Debug)]
pub struct WantedTable {
    pub name: TableName,
    /// Columns that the configuration names; the table may have others.
    pub columns: Vec<String>,
    /// Those of them whose values have to come with the stream.
    pub streamed: Vec<String>,
    /// Operations that raise an event.
    pub operations: Operations,
    /// Which keys of the configuration name the table, and each column.
    pub named_in: Vec<(Option<String>, String)>,
}

impl WantedObjects {
    /// What the configuration's events need.
    pub fn new(settings: &Settings) -> Self {
        let mut tables: Vec<WantedTable> = Vec::new();
        for rule in &settings.events {
            let columns = rule.columns();
            let named_in = named_in(rule, &columns);
            let known = tables.iter_mut().find(|table| table.name == rule.table);
            match known {
                Some(table) => {
                    table.streamed.extend(columns);
                    table.operations = union(table.operations, published(rule.on));
                    table.named_in.extend(named_in);
                }
                None => tables.push(WantedTable {
                    name: rule.table.clone(),
                    columns: Vec::new(),
                    streamed: columns.into_iter().collect(),
                    operations: published(rule.on),
                    named_in,
                }),
            }
        }
        if let Some(from) = &settings.endpoints_from {
            let operations = Operations {
                insert: true,
                update: true,
                delete: true,
                truncate: true,
                ..Operations::default()
            };
            for name in from.watch.iter().cloned() {
                // What a view reads is PostgreSQL's to know.
                let columns: Vec<String> = match name == from.table {
                    true => from.columns().into_iter().collect(),
                    false => Vec::new(),
                };
                match tables.iter_mut().find(|table| table.name == name) {
                    Some(table) => {
                        table.columns.extend(columns);
                        table.operations = operations;
                    }
                    None => {
                        let (streamed, named_in) = (Vec::new(), Vec::new());
                        tables.push(WantedTable { name, columns, streamed, operations, named_in });
                    }
                }
            }
        }
        for table in &mut tables {
            table.streamed.sort();
            table.streamed.dedup();
            table.columns.extend_from_slice(&table.streamed);
            table.columns.sort();
            table.columns.dedup();
        }
        Self {
            slot: settings.postgres.slot.clone(),
            publication: settings.postgres.publication.clone(),
            failover: settings.postgres.failover,
            tables,
        }
    }
}

impl WantedTable {
    /// What names a column, or the table itself.
    pub(crate) fn named_in(&self, column: Option<&str>) -> Box<str> {
        let found = self.named_in.iter().find(|(named, _)| named.as_deref() == column);
        found.map_or("[endpoints_from]", |(_, place)| place).into()
    }
}

fn named_in(rule: &EventRule, columns: &BTreeSet<String>) -> Vec<(Option<String>, String)> {
    let (event, places) = (&rule.event_type, &rule.places);
    let table = format!("`table` of event {event}{}", places.shown("table"));
    let column = |column: &String| {
        let key = rule.keys_naming(column).into_iter().next().unwrap_or("table");
        (Some(column.clone()), format!("`{key}` of event {event}{}", places.shown(key)))
    };
    [(None, table)].into_iter().chain(columns.iter().map(column)).collect()
}

/// What a publication has to publish for it: a backfill reads the table itself, and of a table's shape
/// its rows tell.
fn published(on: Operations) -> Operations {
    let has_rows = on.insert || on.update || on.delete || on.truncate;
    Operations { read: false, schema: false, insert: on.insert || on.schema && !has_rows, ..on }
}

pub(super) fn union(a: Operations, b: Operations) -> Operations {
    Operations {
        insert: a.insert || b.insert,
        update: a.update || b.update,
        delete: a.delete || b.delete,
        truncate: a.truncate || b.truncate,
        schema: false,
        read: a.read || b.read,
    }
}
