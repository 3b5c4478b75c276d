//! What expressions can name: columns of the row, of the row before, and what is built in.

use std::collections::BTreeSet;

/// What an expression asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NamedColumns {
    /// Columns of the row.
    pub columns: BTreeSet<String>,
    /// Columns of the old row.
    pub old: BTreeSet<String>,
    /// `row`, `old` or `changes` as a whole: every column there is.
    pub whole: bool,
    /// `old` or `changes` as a whole.
    pub whole_old: bool,
    /// `now` or `age`: what differs from attempt to attempt.
    pub moment: bool,
    /// A macro that goes through a list or map.
    pub loops: bool,
}

/// Something that an expression can name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ColumnReference<'a> {
    /// `name` or `row.name`.
    Column(&'a str),
    /// `old.name`.
    Old(&'a str),
    BuiltIn(BuiltInName),
}

/// The names that are not columns. A column that is called like one of them is `row.name`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BuiltInName {
    /// All columns of the row.
    Row,
    /// All columns of the old row, as far as PostgreSQL sent it; null if there was none.
    Old,
    /// The previous values of the columns that an update changed.
    Changes,
    /// `insert`, `update`, `delete` or `truncate`.
    Op,
    /// The event's type.
    Event,
    EventId,
    /// `schema.table`.
    Table,
    /// What the application attached to the transaction.
    Metadata,
    /// When the transaction was committed.
    Committed,
    /// In a filter when the row was read; in a payload when it is sent.
    Now,
    /// `now` less the time when the row was born.
    Age,
}

/// How a plain expression shows what it names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExpressionForm {
    AsIs,
    /// `string(x)`
    String,
    /// `int(x)`
    Int,
}

impl BuiltInName {
    const ALL: [(&'static str, Self); 11] = [
        ("row", Self::Row),
        ("old", Self::Old),
        ("changes", Self::Changes),
        ("op", Self::Op),
        ("event", Self::Event),
        ("event_id", Self::EventId),
        ("table", Self::Table),
        ("metadata", Self::Metadata),
        ("committed", Self::Committed),
        ("now", Self::Now),
        ("age", Self::Age),
    ];

    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, found)| *found)
    }
}

impl NamedColumns {
    pub fn join(&mut self, other: &Self) {
        self.columns.extend(other.columns.iter().cloned());
        self.old.extend(other.old.iter().cloned());
        self.whole |= other.whole;
        self.whole_old |= other.whole_old;
        self.moment |= other.moment;
        self.loops |= other.loops;
    }

    pub fn add(&mut self, reference: ColumnReference<'_>) {
        match reference {
            ColumnReference::Column(name) => drop(self.columns.insert(name.to_owned())),
            ColumnReference::Old(name) => drop(self.old.insert(name.to_owned())),
            ColumnReference::BuiltIn(BuiltInName::Row) => self.whole = true,
            ColumnReference::BuiltIn(BuiltInName::Old | BuiltInName::Changes) => {
                self.whole = true;
                self.whole_old = true;
            }
            ColumnReference::BuiltIn(BuiltInName::Now | BuiltInName::Age) => self.moment = true,
            ColumnReference::BuiltIn(_) => {}
        }
    }
}
