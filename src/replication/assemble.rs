//! Joins messages into changes: knows the relations and the current transaction.
//!
//! ```text
//! pgoutput ─ PgOutput ─▶ [assemble] ─ CapturedItem ─▶ event
//!                         │      ▲
//!                 TypeQuestions  TypeAnswers (types)
//! ```
//!
//! Pure: what a Relation message does not tell (types that are not built in, a primary key that is
//! not the replica identity) is asked from the caller, who may do I/O. One assembler serves one
//! connection: after a reconnect the server describes every relation again.
//!
//! Promises: a change's ordinal counts all changes of its transaction as PostgreSQL sent them,
//! whatever becomes of them later, so that the same change has the same position for ever; nothing
//! is idle while a transaction is open.

mod composites;
mod error;
mod images;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::flow::budget::MemoryPermit;
use crate::flow::change::CapturedItem;
use crate::flow::change::ChangeOp;
use crate::flow::change::CommittedChange;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::Column;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::SqlType;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::flow::trace::TraceContext;
use crate::flow::write_back;
use crate::replication::assemble::error::AssembleError;
use crate::replication::assemble::images::image;
use crate::replication::assemble::images::narrowed;
use crate::replication::assemble::images::old_row;
use crate::replication::assemble::images::restore;
use crate::replication::assemble::images::row;
use crate::replication::assemble::images::spread;
use crate::replication::pgoutput::FieldRanges;
use crate::replication::pgoutput::OldFieldRanges;
use crate::replication::pgoutput::PgOutput;
use crate::replication::pgoutput::RelationMessage;
use crate::replication::types;
use crate::replication::types::RowWholeness;
use crate::replication::types::TypeAnswers;
use crate::replication::types::TypeQuestions;

/// The prefix of the logical messages that carry a transaction's metadata.
pub(crate) const METADATA_PREFIX: &[u8] = b"walhook";

/// The prefix of those that say to which trace the transaction belongs.
pub(crate) const TRACE_PREFIX: &[u8] = b"walhook.traceparent";

/// The state of one connection's stream.
#[derive(Debug, Default)]
pub struct ChangeAssembler {
    relations: HashMap<u32, Arc<Relation>>,
    /// How those were described that have columns of row types.
    with_composites: HashMap<u32, RelationMessage>,
    /// The relation that was described last, until a row follows.
    described_last: Option<u32>,
    /// Of which of them old rows may not be as whole as they are described.
    wholeness: HashMap<u32, RowWholeness>,
    open: Option<ReadTransaction>,
    /// The slot whose write-backs are not captured.
    slot: Option<Box<str>>,
}

#[derive(Debug)]
struct ReadTransaction {
    commit: Lsn,
    committed: Timestamp,
    xid: u32,
    next_ordinal: u32,
    metadata: Option<Bytes>,
    trace: Option<TraceContext>,
    /// A write-back of this slot: what follows raises nothing.
    own: bool,
    /// Of the last change.
    table: Option<TableName>,
}

/// The transaction that is being read, for who has to name it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenTransaction {
    pub commit: Lsn,
    /// Changes that have come so far.
    pub changes: u32,
    /// The table of the last of them.
    pub last: Option<TableName>,
    /// A table that was described since: the next row is one of it.
    pub next: Option<TableName>,
}

impl ChangeAssembler {
    /// An assembler that captures everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that leaves out what walhook itself wrote for `slot`: write-backs would raise events
    /// about events. Their changes have ordinals all the same.
    pub fn of_slot(slot: &str) -> Self {
        Self { slot: Some(slot.into()), ..Self::default() }
    }

    /// What [`ChangeAssembler::learn`] has to be told with this message. Types that are not built in are
    /// asked for each time, since they may have been altered since the last: PostgreSQL describes
    /// a relation once per connection and after changes of it, so this is rare.
    pub fn questions(message: &RelationMessage) -> TypeQuestions {
        let mut oids: Vec<u32> = message.columns.iter().map(|column| column.type_oid).collect();
        oids.retain(|oid| types::builtin(*oid).is_none());
        oids.sort_unstable();
        oids.dedup();
        let primary_key_of = (message.identity != ReplicaIdentity::Default).then_some(message.oid);
        let partitions_of = (message.identity == ReplicaIdentity::Full).then_some(message.oid);
        TypeQuestions { types: oids, primary_key_of, partitions_of }
    }

    /// The transaction that is open, if one is.
    pub fn open_transaction(&self) -> Option<OpenTransaction> {
        let open = self.open.as_ref()?;
        let described = self.described_last.and_then(|oid| self.relations.get(&oid));
        Some(OpenTransaction {
            commit: open.commit,
            changes: open.next_ordinal,
            last: open.table.clone(),
            next: described.map(|relation| relation.table.clone()),
        })
    }

    /// The id of the transaction that is open, without its epoch.
    pub fn open_transaction_id(&self) -> Option<u32> {
        self.open.as_ref().map(|open| open.xid)
    }

    /// Takes a relation in, or replaces what was known of it.
    pub fn learn(&mut self, message: RelationMessage, answers: &TypeAnswers) {
        self.described_last = Some(message.oid);
        self.wholeness.insert(message.oid, answers.wholeness);
        let described = Self::described(message.clone(), answers);
        if described.columns.iter().any(|column| column.sql_type.has_composite()) {
            self.with_composites.insert(message.oid, message);
        } else {
            self.with_composites.remove(&message.oid);
        }
        self.keep(described);
    }

    fn keep(&mut self, relation: Relation) {
        self.relations.insert(relation.oid, Arc::new(relation));
    }

    fn described(message: RelationMessage, answers: &TypeAnswers) -> Relation {
        let key = key_columns(&message, answers);
        let columns = message.columns.into_iter().map(|column| Column {
            sql_type: sql_type(column.type_oid, answers),
            name: column.name,
            type_oid: column.type_oid,
            identity: column.identity,
        });
        let columns: Vec<Column> = columns.collect();
        Relation {
            oid: message.oid,
            table: message.table,
            identity: message.identity,
            row_key: Relation::row_key(message.identity, &columns, &key),
            columns,
            key,
        }
    }

    /// Takes a message in and appends what it completes, if anything, to `captured`.
    ///
    /// `raw` holds the bytes that `message` was decoded from, `held` the share of the memory budget
    /// that was taken for them. A Relation message is learnt without answers; give it to
    /// [`ChangeAssembler::learn`] where there may be questions.
    ///
    /// # Errors
    /// The message does not follow from the ones before. `captured` is unchanged then.
    pub fn accept(
        &mut self,
        message: PgOutput,
        raw: &Bytes,
        held: Option<MemoryPermit>,
        captured: &mut Vec<CapturedItem>,
    ) -> Result<(), AssembleError> {
        match message {
            PgOutput::Begin { final_lsn, committed, xid } => {
                self.begin(final_lsn, committed, xid)?
            }
            PgOutput::Message { transactional, lsn: _, prefix, content } => {
                if transactional && prefix == METADATA_PREFIX {
                    let open = self.transaction("a transactional message")?;
                    open.metadata = (!content.is_empty()).then_some(content);
                } else if transactional && prefix == TRACE_PREFIX {
                    let open = self.transaction("a transactional message")?;
                    open.trace = TraceContext::parse(&content);
                } else if transactional && prefix == write_back::MARK.as_bytes() {
                    let ours = self.slot.as_ref().is_some_and(|slot| content == slot.as_bytes());
                    self.transaction("a transactional message")?.own |= ours;
                }
            }
            PgOutput::Commit { commit_lsn, end_lsn, committed } => {
                let (commit, xid) = self.commit(commit_lsn)?;
                captured.push(CapturedItem::Commit { commit, end: end_lsn, committed, xid });
            }
            // Where a transaction came from first, and names of types, which `types` asks for by
            // OID when a relation uses them, decide nothing.
            PgOutput::Origin { .. } | PgOutput::Type { .. } => {}
            PgOutput::Relation(message) => self.learn(message, &TypeAnswers::default()),
            PgOutput::Insert { relation, new } => {
                let relation = self.relation(relation)?;
                let op = ChangeOp::Insert { new: row(&relation, new, raw)? };
                captured.extend(self.change(relation, op, held)?);
            }
            PgOutput::Update { relation, old, new } => {
                let wholeness = self.wholeness(relation);
                let relation = self.relation(relation)?;
                let op = update(&relation, wholeness, old, new, raw)?;
                captured.extend(self.change(relation, op, held)?);
            }
            PgOutput::Delete { relation, old } => {
                let wholeness = self.wholeness(relation);
                let relation = self.relation(relation)?;
                let op = ChangeOp::Delete { old: old_row(&relation, wholeness, old, raw)? };
                captured.extend(self.change(relation, op, held)?);
            }
            PgOutput::Truncate { relations, .. } => self.truncate(&relations, captured)?,
        }
        Ok(())
    }

    /// What a keepalive's position means: with no transaction open, the server has nothing for us
    /// before `end`. Within a transaction it says nothing, since rows before it are not complete.
    pub fn idle(&self, end: Lsn) -> Option<CapturedItem> {
        self.open.is_none().then_some(CapturedItem::Idle { end })
    }

    fn begin(&mut self, commit: Lsn, committed: Timestamp, xid: u32) -> Result<(), AssembleError> {
        if let Some(open) = &self.open {
            return Err(AssembleError::NestedTransaction { open: open.commit });
        }
        self.open = Some(ReadTransaction {
            commit,
            committed,
            xid,
            next_ordinal: 0,
            metadata: None,
            trace: None,
            own: false,
            table: None,
        });
        Ok(())
    }

    fn commit(&mut self, committed: Lsn) -> Result<(Lsn, u32), AssembleError> {
        let open = self.transaction("a commit")?;
        let (begun, xid) = (open.commit, open.xid);
        if begun != committed {
            return Err(AssembleError::OtherCommit { begun, committed });
        }
        self.open = None;
        Ok((committed, xid))
    }

    fn truncate(
        &mut self,
        oids: &[u32],
        captured: &mut Vec<CapturedItem>,
    ) -> Result<(), AssembleError> {
        let relations: Vec<_> =
            oids.iter().map(|oid| self.relation(*oid)).collect::<Result<_, _>>()?;
        let before = captured.len();
        for relation in relations {
            match self.change(relation, ChangeOp::Truncate, None) {
                Ok(change) => captured.extend(change),
                Err(error) => {
                    captured.truncate(before);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// `None` for a change of our own.
    fn change(
        &mut self,
        relation: Arc<Relation>,
        op: ChangeOp,
        held: Option<MemoryPermit>,
    ) -> Result<Option<CapturedItem>, AssembleError> {
        self.described_last = None;
        let open = self.transaction("a row")?;
        if open.table.as_ref() != Some(&relation.table) {
            open.table = Some(relation.table.clone());
        }
        let position = Position { commit: open.commit, ordinal: open.next_ordinal };
        open.next_ordinal = open
            .next_ordinal
            .checked_add(1)
            .ok_or(AssembleError::TooManyChanges { commit: open.commit })?;
        if open.own {
            return Ok(None);
        }
        let (committed, metadata, trace) = (open.committed, open.metadata.clone(), open.trace);
        let xid = open.xid;
        Ok(Some(CapturedItem::Change(CommittedChange {
            position,
            committed,
            relation,
            op,
            xid,
            metadata,
            trace,
            held,
        })))
    }

    fn transaction(&mut self, what: &'static str) -> Result<&mut ReadTransaction, AssembleError> {
        self.open.as_mut().ok_or(AssembleError::OutsideTransaction { what })
    }

    fn relation(&self, oid: u32) -> Result<Arc<Relation>, AssembleError> {
        self.relations.get(&oid).map(Arc::clone).ok_or(AssembleError::UnknownRelation { oid })
    }

    fn wholeness(&self, oid: u32) -> RowWholeness {
        self.wholeness.get(&oid).copied().unwrap_or_default()
    }
}

fn sql_type(oid: u32, answers: &TypeAnswers) -> Arc<SqlType> {
    let answered = || answers.types.iter().find(|(known, _)| *known == oid);
    match types::builtin(oid) {
        Some(builtin) => Arc::new(builtin),
        None => answered().map_or_else(|| Arc::new(SqlType::Text), |(_, found)| Arc::clone(found)),
    }
}

/// The primary key as far as it is known, in the order of the table's columns: the same order
/// whether the message or the catalog tells it.
fn key_columns(message: &RelationMessage, answers: &TypeAnswers) -> Vec<usize> {
    let place = |name: &String| message.columns.iter().position(|column| column.name == *name);
    let identity = || {
        let columns = message.columns.iter().enumerate();
        columns.filter(|(_, column)| column.identity).map(|(at, _)| at).collect()
    };
    // The catalog may be newer than the message: a key with a column that the message does not
    // have is a later one.
    let asked = || {
        let names = answers.primary_key.as_ref().filter(|names| !names.is_empty())?;
        let mut columns = names.iter().map(place).collect::<Option<Vec<usize>>>()?;
        columns.sort_unstable();
        Some(columns)
    };
    match message.identity {
        ReplicaIdentity::Default => identity(),
        ReplicaIdentity::Index => asked().unwrap_or_else(identity),
        // With identity full every column is flagged, so the flags do not tell the key.
        ReplicaIdentity::Full | ReplicaIdentity::Nothing => asked().unwrap_or_default(),
    }
}

fn update(
    relation: &Relation,
    wholeness: RowWholeness,
    old: Option<OldFieldRanges>,
    mut new: FieldRanges,
    raw: &Bytes,
) -> Result<ChangeOp, AssembleError> {
    let old = match old {
        Some(old) => {
            let old = narrowed(relation, wholeness, spread(relation, old));
            let (OldFieldRanges::Key(fields) | OldFieldRanges::Full(fields)) = &old;
            restore(&mut new, fields);
            Some(image(relation, old, raw)?)
        }
        None => None,
    };
    Ok(ChangeOp::Update { old, new: row(relation, new, raw)? })
}

#[cfg(test)]
mod tests;
