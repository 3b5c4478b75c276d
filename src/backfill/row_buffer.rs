//! The rows of a chunk, and what becomes of them while they wait for the stream.
//!
//! Pure. A change that the chunk's snapshot does not see is merged into its row: new values over the
//! old ones, a large value that the change does not bring from the row itself, which the snapshot saw as the
//! change left it. So the row is at each moment what the table was where the stream stands.

use std::collections::HashMap;
use std::sync::Arc;

use crate::flow::backfill::ReadId;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::key::KeyHash;
use crate::flow::relation::Relation;

/// A row that was read, and its table as it was then; after a merge, as it was at the change.
#[derive(Clone, Debug)]
pub(crate) struct BufferedRow {
    pub relation: Arc<Relation>,
    pub tuple: RowTuple,
    /// From the row as it was read: the same whatever is merged into it.
    pub id: ReadId,
}

/// How rows of a table are told apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RowIdentity {
    /// By columns of which no two rows have the same values.
    Unique,
    /// By all columns: two rows may be the same, and one is then as good as the other.
    Whole,
    /// Not at all. Changes of such a table bring no old rows, as far as PostgreSQL allows any.
    None,
}

/// A change does not say which row it is of.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct AmbiguousRow;

/// Rows in the order in which they were read, which go out a few at a time.
#[derive(Debug)]
pub(crate) struct RowBuffer {
    identity: RowIdentity,
    rows: Vec<Option<BufferedRow>>,
    /// Those before this place have gone out.
    gone: usize,
    /// Where the rows are whose keys have this fingerprint.
    places: HashMap<KeyHash, Vec<usize>>,
}

impl RowBuffer {
    pub(crate) fn new(identity: RowIdentity) -> Self {
        Self { identity, rows: Vec::new(), gone: 0, places: HashMap::new() }
    }

    pub(crate) fn push(&mut self, row: BufferedRow) {
        let place = self.rows.len();
        if self.identity != RowIdentity::None
            && let Some(key) = fingerprint(&row.relation, &row.tuple)
        {
            self.places.entry(key).or_default().push(place);
        }
        self.rows.push(Some(row));
    }

    /// The next rows as they are now, at most so many; none once all have gone.
    pub(crate) fn next_rows(&mut self, most: usize) -> Vec<BufferedRow> {
        let mut rows = Vec::with_capacity(most.min(self.rows.len() - self.gone));
        while rows.len() < most && self.gone < self.rows.len() {
            rows.extend(self.take(self.gone));
            self.gone += 1;
        }
        rows
    }

    /// Whether some have gone out, and not all.
    pub(crate) fn is_begun(&self) -> bool {
        (1..self.rows.len()).contains(&self.gone)
    }

    /// Whether all that are to go out have gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.get(self.gone..).is_none_or(|rows| rows.iter().all(Option::is_none))
    }

    /// Takes in a change that the snapshot does not see.
    ///
    /// # Errors
    /// The change does not say which row it is of: the rows have to be read again.
    pub(crate) fn merge(
        &mut self,
        relation: &Arc<Relation>,
        op: &ChangeOp,
    ) -> Result<(), AmbiguousRow> {
        if let ChangeOp::Truncate = op {
            self.rows.iter_mut().for_each(|row| *row = None);
            self.places.clear();
            return Ok(());
        }
        if self.identity == RowIdentity::None || self.places.is_empty() {
            return Ok(());
        }
        match op {
            ChangeOp::Insert { new } => self.inserted(relation, new),
            ChangeOp::Update { old, new } => self.updated(relation, old.as_ref(), new),
            ChangeOp::Delete { old } => self.find(relation, old.tuple()).map(|place| {
                if let Some(place) = place {
                    drop(self.take(place));
                }
            }),
            ChangeOp::Truncate | ChangeOp::Read { .. } | ChangeOp::Schema => Ok(()),
        }
    }

    /// A row of the same key comes only after the one that was read has gone; should its end not have been
    /// told, the newer one counts.
    fn inserted(&mut self, relation: &Arc<Relation>, new: &RowTuple) -> Result<(), AmbiguousRow> {
        if self.identity == RowIdentity::Unique
            && let Some(place) = self.find(relation, new)?
        {
            self.put(place, relation, new.clone());
        }
        Ok(())
    }

    fn updated(
        &mut self,
        relation: &Arc<Relation>,
        old: Option<&OldRow>,
        new: &RowTuple,
    ) -> Result<(), AmbiguousRow> {
        let before = old.map_or(new, OldRow::tuple);
        let Some(place) = self.find(relation, before)? else { return Ok(()) };
        let Some(Some(row)) = self.rows.get(place) else { return Ok(()) };
        let merged = merged(relation, new, row).ok_or(AmbiguousRow)?;
        self.put(place, relation, merged);
        Ok(())
    }

    /// The row's place, if it is one of these.
    fn find(&self, relation: &Relation, tuple: &RowTuple) -> Result<Option<usize>, AmbiguousRow> {
        let key = fingerprint(relation, tuple).ok_or(AmbiguousRow)?;
        let is_it = |&&place: &&usize| {
            let row = self.rows.get(place).and_then(Option::as_ref);
            row.is_some_and(|row| key_of(&row.relation, &row.tuple).eq(key_of(relation, tuple)))
        };
        Ok(self.places.get(&key).and_then(|places| places.iter().find(is_it)).copied())
    }

    fn put(&mut self, place: usize, relation: &Arc<Relation>, tuple: RowTuple) {
        let Some(row) = self.take(place) else { return };
        if let Some(key) = fingerprint(relation, &tuple) {
            self.places.entry(key).or_default().push(place);
        }
        if let Some(slot) = self.rows.get_mut(place) {
            *slot = Some(BufferedRow { relation: Arc::clone(relation), tuple, id: row.id });
        }
    }

    fn take(&mut self, place: usize) -> Option<BufferedRow> {
        let row = self.rows.get_mut(place)?.take()?;
        if let Some(key) = fingerprint(&row.relation, &row.tuple)
            && let Some(places) = self.places.get_mut(&key)
        {
            places.retain(|other| *other != place);
        }
        Some(row)
    }
}

/// The row after the update; `None` if a value is known to neither.
fn merged(relation: &Relation, new: &RowTuple, row: &BufferedRow) -> Option<RowTuple> {
    let value = |(index, column): (usize, &crate::flow::relation::Column)| match new.value(index) {
        ColumnValue::Unchanged => {
            let before = row.tuple.value(row.relation.column(&column.name)?);
            (before != ColumnValue::Unchanged).then_some(before)
        }
        value => Some(value),
    };
    let values: Vec<ColumnValue<'_>> =
        relation.columns.iter().enumerate().map(value).collect::<Option<_>>()?;
    Some(RowTuple::of_values(values.into_iter()))
}

fn key_of<'r>(
    relation: &'r Relation,
    tuple: &'r RowTuple,
) -> impl Iterator<Item = ColumnValue<'r>> {
    relation.row_key.iter().map(|&column| tuple.value(column))
}

/// `None` if a value of the key was not sent.
fn fingerprint(relation: &Relation, tuple: &RowTuple) -> Option<KeyHash> {
    let part = |value| match value {
        ColumnValue::Text(text) => Some(Some(text)),
        ColumnValue::Null => Some(None),
        ColumnValue::Unchanged => None,
    };
    let parts: Vec<Option<&[u8]>> = key_of(relation, tuple).map(part).collect::<Option<_>>()?;
    Some(KeyHash::of(parts))
}
