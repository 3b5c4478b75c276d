//! The decoder against a small encoder of the same manual page, and against anything at all.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What a peer can say; the encoder turns it into bytes, the decoder has to say the same.
#[derive(Clone, Debug)]
enum Datum {
    Null,
    Unchanged,
    Text(Vec<u8>),
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
}

/// Appends a row and returns the fields that it must be decoded to.
fn put_row(out: &mut Vec<u8>, kind: u8, row: &[Datum]) -> FieldRanges {
    out.push(kind);
    out.extend_from_slice(&u16::try_from(row.len()).unwrap().to_be_bytes());
    row.iter()
        .map(|datum| match datum {
            Datum::Null => {
                out.push(b'n');
                ColumnField::Null
            }
            Datum::Unchanged => {
                out.push(b'u');
                ColumnField::Unchanged
            }
            Datum::Text(text) => {
                out.push(b't');
                put_len(out, text.len());
                out.extend_from_slice(text);
                ColumnField::Text(out.len() - text.len()..out.len())
            }
        })
        .collect()
}

fn row() -> impl Strategy<Value = Vec<Datum>> {
    vec(
        prop_oneof![
            Just(Datum::Null),
            Just(Datum::Unchanged),
            vec(any::<u8>(), 0..20).prop_map(Datum::Text),
        ],
        0..6,
    )
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{1,12}"
}

fn row_message() -> impl Strategy<Value = (Vec<u8>, PgOutput)> {
    (any::<u32>(), row(), row(), 0..3_u8, 0..3_u8).prop_map(|(relation, old, new, what, kind)| {
        let mut out = vec![b"IUD"[usize::from(what)]];
        out.extend_from_slice(&relation.to_be_bytes());
        let old = |out: &mut Vec<u8>| match kind {
            0 => OldFieldRanges::Key(put_row(out, b'K', &old)),
            _ => OldFieldRanges::Full(put_row(out, b'O', &old)),
        };
        let expected = match what {
            0 => PgOutput::Insert { relation, new: put_row(&mut out, b'N', &new) },
            1 => {
                let old = (kind < 2).then(|| old(&mut out));
                PgOutput::Update { relation, old, new: put_row(&mut out, b'N', &new) }
            }
            _ => PgOutput::Delete { relation, old: old(&mut out) },
        };
        (out, expected)
    })
}

fn relation_message() -> impl Strategy<Value = (Vec<u8>, PgOutput)> {
    let column = (name(), any::<u32>(), any::<i32>(), any::<bool>());
    (any::<u32>(), name(), name(), 0..4_usize, vec(column, 0..5)).prop_map(
        |(oid, schema, name, identity, columns)| {
            let mut out = vec![b'R'];
            out.extend_from_slice(&oid.to_be_bytes());
            put_text(&mut out, &schema);
            put_text(&mut out, &name);
            out.push(b"dnfi"[identity]);
            out.extend_from_slice(&u16::try_from(columns.len()).unwrap().to_be_bytes());
            let columns = columns
                .into_iter()
                .map(|(name, type_oid, type_modifier, identity)| {
                    out.push(u8::from(identity));
                    put_text(&mut out, &name);
                    out.extend_from_slice(&type_oid.to_be_bytes());
                    out.extend_from_slice(&type_modifier.to_be_bytes());
                    ColumnMessage { name, type_oid, type_modifier, identity }
                })
                .collect();
            let identity = [
                ReplicaIdentity::Default,
                ReplicaIdentity::Nothing,
                ReplicaIdentity::Full,
                ReplicaIdentity::Index,
            ][identity];
            let table = TableName { schema, name };
            (out, PgOutput::Relation(RelationMessage { oid, table, identity, columns }))
        },
    )
}

fn other_message() -> impl Strategy<Value = (Vec<u8>, PgOutput)> {
    let numbers = (any::<u64>(), any::<u64>(), -1_000_000_000_000_i64..1_000_000_000_000);
    (0..6_u8, numbers, any::<u32>(), name(), vec(any::<u8>(), 0..20), vec(any::<u32>(), 0..4))
        .prop_map(|(what, (lsn, end, time), number, name, content, relations)| {
            let at = Lsn::from_raw(lsn);
            let committed = Timestamp::from_postgres(time);
            let mut out = vec![b"BCOYTM"[usize::from(what)]];
            let expected = match what {
                0 => {
                    out.extend_from_slice(&lsn.to_be_bytes());
                    out.extend_from_slice(&time.to_be_bytes());
                    out.extend_from_slice(&number.to_be_bytes());
                    PgOutput::Begin { final_lsn: at, committed, xid: number }
                }
                1 => {
                    out.push(0);
                    out.extend_from_slice(&lsn.to_be_bytes());
                    out.extend_from_slice(&end.to_be_bytes());
                    out.extend_from_slice(&time.to_be_bytes());
                    let end_lsn = Lsn::from_raw(end);
                    PgOutput::Commit { commit_lsn: at, end_lsn, committed }
                }
                2 => {
                    out.extend_from_slice(&lsn.to_be_bytes());
                    put_text(&mut out, &name);
                    PgOutput::Origin { commit_lsn: at, name }
                }
                3 => {
                    out.extend_from_slice(&number.to_be_bytes());
                    put_text(&mut out, "");
                    put_text(&mut out, &name);
                    PgOutput::Type { oid: number, schema: "pg_catalog".into(), name }
                }
                4 => {
                    put_len(&mut out, relations.len());
                    out.push((number % 4).try_into().unwrap());
                    for relation in &relations {
                        out.extend_from_slice(&relation.to_be_bytes());
                    }
                    let (cascade, restart_identity) = (number % 2 == 1, number % 4 > 1);
                    PgOutput::Truncate { relations, cascade, restart_identity }
                }
                _ => {
                    out.push((number % 2).try_into().unwrap());
                    out.extend_from_slice(&lsn.to_be_bytes());
                    put_text(&mut out, &name);
                    put_len(&mut out, content.len());
                    out.extend_from_slice(&content);
                    PgOutput::Message {
                        transactional: number % 2 == 1,
                        lsn: at,
                        prefix: name.into(),
                        content: content.into(),
                    }
                }
            };
            (out, expected)
        })
}

fn message() -> impl Strategy<Value = (Vec<u8>, PgOutput)> {
    prop_oneof![row_message(), relation_message(), other_message()]
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail_but_never_panic(message: Vec<u8>) {
        let _outcome: Result<PgOutput, DecodeError> = decode(&Bytes::from(message));
    }

    #[test]
    fn what_was_encoded_is_decoded((bytes, expected) in message()) {
        prop_assert_eq!(decode(&Bytes::from(bytes)), Ok(expected));
    }

    #[test]
    fn a_damaged_message_decodes_or_fails_but_never_panics(
        (mut bytes, _) in message(), at: prop::sample::Index, value: u8,
    ) {
        *at.get_mut(&mut bytes) = value;
        let _outcome: Result<PgOutput, DecodeError> = decode(&Bytes::from(bytes));
    }

    #[test]
    fn a_message_that_is_cut_off_or_too_long_is_refused(
        (mut bytes, _) in message(), at: prop::sample::Index,
    ) {
        let cut = Bytes::copy_from_slice(&bytes[..at.index(bytes.len())]);
        prop_assert!(decode(&cut).is_err());
        bytes.push(b'n');
        prop_assert_eq!(decode(&Bytes::from(bytes)), Err(DecodeError::LeftOver { bytes: 1 }));
    }
}

#[test]
fn what_walhook_did_not_ask_for_is_named() {
    let cases: [(&str, &[u8], DecodeError); 8] = [
        ("stream start of version 2", b"S", DecodeError::UnknownTag { tag: 'S' }),
        ("binary", b"I\0\0\0\x01N\0\x01b\0\0\0\0", DecodeError::BinaryField { column: 0 }),
        (
            "unknown field kind",
            b"I\0\0\0\x01N\0\x02nx",
            DecodeError::UnknownField { column: 1, kind: 'x' },
        ),
        (
            "negative field length",
            b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff",
            DecodeError::Negative { field: "field length", given: -1 },
        ),
        (
            "more fields than bytes",
            b"I\0\0\0\x01N\x7f\xffn",
            DecodeError::CutOff { field: "number of fields" },
        ),
        (
            "update without a new row",
            b"U\0\0\0\x01K\0\0O",
            DecodeError::UnexpectedTuple { expected: "a new row", found: 'O' },
        ),
        (
            "delete without an old row",
            b"D\0\0\0\x01N\0\0",
            DecodeError::UnexpectedTuple { expected: "an old row", found: 'N' },
        ),
        (
            "unknown identity",
            b"R\0\0\0\x01s\0t\0x\0\0",
            DecodeError::UnknownIdentity { given: 'x' },
        ),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(decode(&Bytes::from_static(bytes)), Err(expected), "case: {name}");
    }
}

#[test]
fn a_table_without_columns_is_sound() {
    let relation = decode(&Bytes::from_static(b"R\0\0\0\x01\0t\0d\0\0")).unwrap();
    let PgOutput::Relation(relation) = relation else { panic!("{relation:?}") };
    assert_eq!(relation.table, TableName::new("pg_catalog", "t"));
    assert!(relation.columns.is_empty());
    let row = decode(&Bytes::from_static(b"I\0\0\0\x01N\0\0")).unwrap();
    assert_eq!(row, PgOutput::Insert { relation: 1, new: Box::default() });
}
