//! Decodes pgoutput, PostgreSQL's logical-replication message format.
//!
//! ```text
//! wire ─ XLogData ─▶ [pgoutput] ─ PgOutput ─▶ assemble ─ Change ─▶ event
//! ```
//!
//! Pure: one message in, one value out; what a message means depends on those before it, and that
//! is known in `assemble`. Rows are not copied: a decoded row says where in the message its fields
//! lie. The bytes come from a peer, so nothing here may panic: every read goes through [`MessageReader`].
//! Format: PostgreSQL manual, "Logical Replication Message Formats", protocol version 1.

use bytes::Bytes;

use crate::flow::change::ColumnField;
use crate::flow::lsn::Lsn;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::replication::reader::DecodeError;
use crate::replication::reader::MessageReader;

/// One message. Variants stand in the manual's order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PgOutput {
    Begin {
        /// The position of the transaction's commit record.
        final_lsn: Lsn,
        committed: Timestamp,
        xid: u32,
    },
    /// Written by `pg_logical_emit_message`.
    Message {
        transactional: bool,
        lsn: Lsn,
        prefix: Bytes,
        content: Bytes,
    },
    Commit {
        commit_lsn: Lsn,
        /// Where the commit record ends: what is confirmed once the transaction is settled.
        end_lsn: Lsn,
        committed: Timestamp,
    },
    /// The transaction was replicated to this server from elsewhere.
    Origin {
        commit_lsn: Lsn,
        name: String,
    },
    Relation(RelationMessage),
    Type {
        oid: u32,
        schema: String,
        name: String,
    },
    Insert {
        relation: u32,
        new: FieldRanges,
    },
    Update {
        relation: u32,
        old: Option<OldFieldRanges>,
        new: FieldRanges,
    },
    Delete {
        relation: u32,
        old: OldFieldRanges,
    },
    Truncate {
        relations: Vec<u32>,
        cascade: bool,
        restart_identity: bool,
    },
}

/// A row: its fields' places in the message that it came with.
pub(crate) type FieldRanges = Box<[ColumnField]>;

/// The old row of an update or delete.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OldFieldRanges {
    Key(FieldRanges),
    Full(FieldRanges),
}

/// Describes a table; sent before the first row of it and again whenever it may have changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RelationMessage {
    pub oid: u32,
    pub table: TableName,
    pub identity: ReplicaIdentity,
    pub columns: Vec<ColumnMessage>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ColumnMessage {
    pub name: String,
    pub type_oid: u32,
    pub type_modifier: i32,
    /// Part of the replica identity. With identity full, every column is.
    pub identity: bool,
}

/// Decodes one message; the ranges of its fields are relative to `message`.
///
/// # Errors
/// Any deviation from the format, also bytes left over at the end.
pub fn decode(message: &Bytes) -> Result<PgOutput, DecodeError> {
    let mut r = MessageReader::new(message);
    let decoded = match r.u8("message type")? {
        b'B' => PgOutput::Begin {
            final_lsn: r.lsn("final LSN")?,
            committed: r.time("commit time")?,
            xid: r.u32("transaction id")?,
        },
        b'M' => decode_message(&mut r, message)?,
        b'C' => {
            r.u8("flags")?; // unused by PostgreSQL, always 0
            PgOutput::Commit {
                commit_lsn: r.lsn("commit LSN")?,
                end_lsn: r.lsn("end LSN")?,
                committed: r.time("commit time")?,
            }
        }
        b'O' => PgOutput::Origin { commit_lsn: r.lsn("origin LSN")?, name: r.name("origin name")? },
        b'R' => PgOutput::Relation(decode_relation(&mut r)?),
        b'Y' => PgOutput::Type {
            oid: r.u32("type OID")?,
            schema: decode_schema(&mut r)?,
            name: r.name("type name")?,
        },
        b'I' => {
            let relation = r.u32("relation OID")?;
            let found = r.u8("tuple kind")?;
            PgOutput::Insert { relation, new: decode_new(&mut r, found)? }
        }
        b'U' => decode_update(&mut r)?,
        b'D' => {
            let relation = r.u32("relation OID")?;
            let found = r.u8("tuple kind")?;
            let unexpected =
                DecodeError::UnexpectedTuple { expected: "an old row", found: found.into() };
            PgOutput::Delete { relation, old: decode_old(&mut r, found)?.ok_or(unexpected)? }
        }
        b'T' => decode_truncate(&mut r)?,
        tag => return Err(DecodeError::UnknownTag { tag: tag.into() }),
    };
    r.finish()?;
    Ok(decoded)
}

fn decode_message(r: &mut MessageReader<'_>, message: &Bytes) -> Result<PgOutput, DecodeError> {
    let flags = r.u8("flags")?;
    let lsn = r.lsn("message LSN")?;
    let prefix = message.slice(r.text("prefix")?);
    let len = r.count32("content length", 1)?;
    let content = message.slice(r.range("content", len)?);
    Ok(PgOutput::Message { transactional: flags & 1 == 1, lsn, prefix, content })
}

fn decode_relation(r: &mut MessageReader<'_>) -> Result<RelationMessage, DecodeError> {
    let oid = r.u32("relation OID")?;
    let table = TableName { schema: decode_schema(r)?, name: r.name("relation name")? };
    let identity = match r.u8("replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        given => return Err(DecodeError::UnknownIdentity { given: given.into() }),
    };
    // Flags, an empty name's end mark, type and modifier: no column is shorter.
    let count = r.count16("number of columns", 10)?;
    let column = |r: &mut MessageReader<'_>| {
        Ok(ColumnMessage {
            identity: r.u8("column flags")? & 1 == 1,
            name: r.name("column name")?,
            type_oid: r.u32("column type")?,
            type_modifier: r.u32("column type modifier")?.cast_signed(),
        })
    };
    let columns = (0..count).map(|_| column(r)).collect::<Result<_, DecodeError>>()?;
    Ok(RelationMessage { oid, table, identity, columns })
}

/// PostgreSQL sends an empty text for `pg_catalog`.
fn decode_schema(r: &mut MessageReader<'_>) -> Result<String, DecodeError> {
    let schema = r.name("schema")?;
    Ok(if schema.is_empty() { String::from("pg_catalog") } else { schema })
}

fn decode_update(r: &mut MessageReader<'_>) -> Result<PgOutput, DecodeError> {
    let relation = r.u32("relation OID")?;
    let first = r.u8("tuple kind")?;
    let old = decode_old(r, first)?;
    let found = if old.is_some() { r.u8("tuple kind")? } else { first };
    Ok(PgOutput::Update { relation, old, new: decode_new(r, found)? })
}

fn decode_old(r: &mut MessageReader<'_>, kind: u8) -> Result<Option<OldFieldRanges>, DecodeError> {
    Ok(match kind {
        b'K' => Some(OldFieldRanges::Key(decode_fields(r)?)),
        b'O' => Some(OldFieldRanges::Full(decode_fields(r)?)),
        _ => None,
    })
}

fn decode_new(r: &mut MessageReader<'_>, kind: u8) -> Result<FieldRanges, DecodeError> {
    match kind {
        b'N' => decode_fields(r),
        found => Err(DecodeError::UnexpectedTuple { expected: "a new row", found: found.into() }),
    }
}

fn decode_fields(r: &mut MessageReader<'_>) -> Result<FieldRanges, DecodeError> {
    let count = r.count16("number of fields", 1)?;
    let mut fields = Vec::with_capacity(count);
    for column in 0..count {
        fields.push(match r.u8("field kind")? {
            b'n' => ColumnField::Null,
            b'u' => ColumnField::Unchanged,
            b't' => {
                let len = r.count32("field length", 1)?;
                ColumnField::Text(r.range("field", len)?)
            }
            b'b' => return Err(DecodeError::BinaryField { column }),
            kind => return Err(DecodeError::UnknownField { column, kind: kind.into() }),
        });
    }
    Ok(fields.into_boxed_slice())
}

fn decode_truncate(r: &mut MessageReader<'_>) -> Result<PgOutput, DecodeError> {
    let count = r.count32("number of relations", 4)?;
    // The number of relations comes before the options, their OIDs after them: one byte more.
    let options = r.u8("truncate options")?;
    let relations = (0..count).map(|_| r.u32("relation OID")).collect::<Result<_, _>>()?;
    Ok(PgOutput::Truncate {
        relations,
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
    })
}

#[cfg(test)]
mod tests;
