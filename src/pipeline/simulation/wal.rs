//! The source's WAL: what was committed, when, and which keys it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::host_now;
use crate::flow::change::CapturedItem;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::Column;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::SqlType;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::pipeline::simulation::dice::SeededDice;
use crate::pipeline::simulation::scenario::Scenario;
use crate::pipeline::simulation::scenario::table_name;

/// Rows of a table, at most.
const ROWS_MAX: u64 = 6;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ModelRow {
    pub(super) id: u64,
    pub(super) group: u64,
    pub(super) tier: char,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ModelOperation {
    Insert(ModelRow),
    Update { old: ModelRow, new: ModelRow },
    Delete(ModelRow),
    Truncate,
}

#[derive(Clone, Debug)]
pub(super) struct ModelChange {
    pub(super) position: Position,
    pub(super) table: usize,
    pub(super) operation: ModelOperation,
    /// Of this change alone: it stands in the row.
    pub(super) version: u64,
    /// Since the simulation began.
    pub(super) at: Duration,
}

impl ModelChange {
    pub(super) fn operation_name(&self) -> &'static str {
        match self.operation {
            ModelOperation::Insert(_) => "insert",
            ModelOperation::Update { .. } => "update",
            ModelOperation::Delete(_) => "delete",
            ModelOperation::Truncate => "truncate",
        }
    }

    /// The row as it is after the change, or was before it.
    pub(super) fn row(&self) -> Option<ModelRow> {
        match self.operation {
            ModelOperation::Insert(row) | ModelOperation::Delete(row) => Some(row),
            ModelOperation::Update { new, .. } => Some(new),
            ModelOperation::Truncate => None,
        }
    }

    /// What it is ordered by; a truncate by the whole table.
    pub(super) fn keys(&self, by_group: bool) -> Vec<u64> {
        let key = |row: ModelRow| if by_group { row.group } else { row.id };
        match self.operation {
            ModelOperation::Insert(row) | ModelOperation::Delete(row) => vec![key(row)],
            ModelOperation::Update { old, new } if key(old) != key(new) => {
                vec![key(old), key(new)]
            }
            ModelOperation::Update { new, .. } => vec![key(new)],
            ModelOperation::Truncate => Vec::new(),
        }
    }
}

/// A transaction, or the WAL of others.
#[derive(Clone, Debug)]
pub(super) struct WalEntry {
    pub(super) at: Duration,
    /// Where its commit record stands; that of others has none, and ends there.
    pub(super) commit: Lsn,
    pub(super) end: Lsn,
    pub(super) changes: Vec<ModelChange>,
}

#[derive(Debug)]
pub(super) struct ModelWal {
    pub(super) entries: Vec<WalEntry>,
    relations: Vec<Arc<Relation>>,
    /// When the simulation began.
    begun: Timestamp,
}

impl ModelWal {
    pub(super) fn draw(scenario: &Scenario, dice: &mut SeededDice) -> Self {
        let mut times: Vec<Duration> = (0..scenario.transactions)
            .map(|_| dice.millis(0..u64::try_from(scenario.length.as_millis()).unwrap()))
            .collect();
        times.sort_unstable();
        let mut writer = WalWriter { tables: Default::default(), lsn: 0x1000, version: 0 };
        let mut entries = Vec::new();
        for at in times {
            entries.push(writer.transaction(at, scenario, dice));
            if dice.one_in(4) {
                entries.push(writer.others(at, dice.number(1..100_000)));
            }
        }
        // Enough for its end to be confirmed.
        entries.push(writer.others(scenario.length, 1 << 20));
        Self { entries, relations: (0..2).map(relation).collect(), begun: host_now() }
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = &ModelChange> {
        self.entries.iter().flat_map(|entry| &entry.changes)
    }

    pub(super) fn end(&self) -> Lsn {
        self.entries.last().map_or(Lsn::ZERO, |entry| entry.end)
    }

    /// How far it is written by then.
    pub(super) fn written(&self, now: Duration) -> Lsn {
        let written = self.entries.iter().take_while(|entry| entry.at <= now);
        written.last().map_or(Lsn::ZERO, |entry| entry.end)
    }

    /// Where the stream begins again from a confirmed position.
    pub(super) fn first_after(&self, confirmed: Lsn) -> usize {
        self.entries.partition_point(|entry| entry.commit < confirmed)
    }

    /// What the stream says of an entry.
    pub(super) fn items(&self, entry: &WalEntry, dice: &mut SeededDice) -> Vec<CapturedItem> {
        if entry.changes.is_empty() {
            return vec![CapturedItem::Idle { end: entry.end }];
        }
        let committed = self.committed(entry.at);
        let mut items: Vec<CapturedItem> = entry
            .changes
            .iter()
            .map(|change| CapturedItem::Change(self.change(change, committed, dice)))
            .collect();
        let (commit, end) = (entry.commit, entry.end);
        items.push(CapturedItem::Commit { commit, end, committed, xid: 7 });
        items
    }

    fn committed(&self, at: Duration) -> Timestamp {
        self.begun.shifted(i64::try_from(at.as_micros()).unwrap())
    }

    fn change(
        &self,
        change: &ModelChange,
        committed: Timestamp,
        dice: &mut SeededDice,
    ) -> CommittedChange {
        let tuple = |row: ModelRow| tuple(row, change.version);
        let op = match change.operation {
            ModelOperation::Insert(row) => ChangeOp::Insert { new: tuple(row) },
            ModelOperation::Delete(row) => ChangeOp::Delete { old: OldRow::Full(tuple(row)) },
            // Of a row whose keys stay, PostgreSQL may send no old one.
            ModelOperation::Update { old, new } if old == new && dice.one_in(2) => {
                ChangeOp::Update { old: None, new: tuple(new) }
            }
            ModelOperation::Update { old, new } => {
                ChangeOp::Update { old: Some(OldRow::Full(tuple(old))), new: tuple(new) }
            }
            ModelOperation::Truncate => ChangeOp::Truncate,
        };
        CommittedChange {
            position: change.position,
            committed,
            relation: Arc::clone(&self.relations[change.table]),
            op,
            xid: 7,
            metadata: None,
            trace: None,
            held: None,
        }
    }
}

struct WalWriter {
    tables: [BTreeMap<u64, ModelRow>; 2],
    lsn: u64,
    version: u64,
}

impl WalWriter {
    fn others(&mut self, at: Duration, bytes: u64) -> WalEntry {
        self.lsn += bytes;
        let end = Lsn::from_raw(self.lsn);
        WalEntry { at, commit: end, end, changes: Vec::new() }
    }

    fn transaction(
        &mut self,
        at: Duration,
        scenario: &Scenario,
        dice: &mut SeededDice,
    ) -> WalEntry {
        let count = if dice.one_in(8) { dice.number(10..40) } else { dice.number(1..5) };
        let operations: Vec<_> = (0..count).map(|_| self.operation(scenario, dice)).collect();
        // A commit may stand right behind another one.
        self.lsn += dice.number(0..4) * count * 50;
        let commit = Lsn::from_raw(self.lsn);
        self.lsn += 48;
        let changes = operations.into_iter().zip(0..).map(|((table, operation), ordinal)| {
            self.version += 1;
            let position = Position { commit, ordinal };
            ModelChange { position, table, operation, version: self.version, at }
        });
        let changes = changes.collect();
        WalEntry { at, commit, end: Lsn::from_raw(self.lsn), changes }
    }

    fn operation(&mut self, scenario: &Scenario, dice: &mut SeededDice) -> (usize, ModelOperation) {
        let table = dice.index(2);
        let rows = &mut self.tables[table];
        if scenario.has_truncates && dice.one_in(15) {
            rows.clear();
            return (table, ModelOperation::Truncate);
        }
        let (id, tier) = (dice.number(1..ROWS_MAX + 1), dice.pick(&['a', 'b', 'x']));
        let group = dice.number(1..4);
        let operation = match rows.get(&id).copied() {
            None => {
                let row = ModelRow { id, group, tier };
                rows.insert(id, row);
                ModelOperation::Insert(row)
            }
            Some(old) if dice.one_in(4) => {
                rows.remove(&id);
                ModelOperation::Delete(old)
            }
            Some(old) => {
                let moved = dice.number(1..ROWS_MAX + 1);
                let id = if dice.one_in(3) && !rows.contains_key(&moved) { moved } else { id };
                let group = if dice.one_in(3) { group } else { old.group };
                let new = ModelRow { id, group, tier };
                rows.remove(&old.id);
                rows.insert(id, new);
                ModelOperation::Update { old, new }
            }
        };
        (table, operation)
    }
}

fn relation(table: usize) -> Arc<Relation> {
    let columns = [
        ("id", SqlType::Integer),
        ("grp", SqlType::Integer),
        ("tier", SqlType::Text),
        ("v", SqlType::Integer),
    ];
    let column = |(name, sql_type): (&str, SqlType)| Column {
        name: name.to_owned(),
        type_oid: 0,
        identity: true,
        sql_type: Arc::new(sql_type),
    };
    Arc::new(Relation {
        oid: 16_384 + u32::try_from(table).unwrap(),
        table: TableName::new("public", table_name(table)),
        identity: ReplicaIdentity::Full,
        columns: columns.into_iter().map(column).collect(),
        key: vec![0],
        row_key: vec![0],
    })
}

fn tuple(row: ModelRow, version: u64) -> RowTuple {
    let texts =
        [row.id.to_string(), row.group.to_string(), row.tier.to_string(), version.to_string()];
    RowTuple::of_values(texts.iter().map(|text| ColumnValue::Text(text.as_bytes())))
}
