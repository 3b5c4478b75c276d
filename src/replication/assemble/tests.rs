//! Transactions told message by message, against a model that only counts.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::flow::change::ColumnField;
use crate::flow::change::ColumnValue;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::replication::pgoutput::ColumnMessage;

const ORDERS: u32 = 16_384;
const ITEMS: u32 = 16_390;

/// `id` int8 and `note` text; `id` is flagged.
fn described(oid: u32, identity: ReplicaIdentity) -> RelationMessage {
    let column = |name: &str, type_oid, identity| ColumnMessage {
        name: name.into(),
        type_oid,
        type_modifier: -1,
        identity,
    };
    let full = identity == ReplicaIdentity::Full;
    RelationMessage {
        oid,
        table: TableName::new("public", format!("t{oid}")),
        identity,
        columns: vec![column("id", 20, true), column("note", 25, full)],
    }
}

fn assembler() -> ChangeAssembler {
    let mut assembler = ChangeAssembler::new();
    for oid in [ORDERS, ITEMS] {
        assembler.learn(described(oid, ReplicaIdentity::Default), &TypeAnswers::default());
    }
    assembler
}

const RAW: Bytes = Bytes::from_static(b"7oldnew");
const ID: ColumnField = ColumnField::Text(0..1);
const OLD: ColumnField = ColumnField::Text(1..4);
const NEW: ColumnField = ColumnField::Text(4..7);

fn begin(commit: u64) -> PgOutput {
    let committed = Timestamp::from_seconds(1);
    PgOutput::Begin { final_lsn: Lsn::from_raw(commit), committed, xid: 1 }
}

fn commit(commit: u64) -> PgOutput {
    PgOutput::Commit {
        commit_lsn: Lsn::from_raw(commit),
        end_lsn: Lsn::from_raw(commit + 8),
        committed: Timestamp::from_seconds(1),
    }
}

fn insert(relation: u32) -> PgOutput {
    PgOutput::Insert { relation, new: [ID, NEW].into() }
}

fn update(old: Option<OldFieldRanges>, new: [ColumnField; 2]) -> PgOutput {
    PgOutput::Update { relation: ORDERS, old, new: new.into() }
}

fn note(transactional: bool, prefix: &'static str, content: &'static str) -> PgOutput {
    let (prefix, content) = (Bytes::from(prefix), Bytes::from(content));
    PgOutput::Message { transactional, lsn: Lsn::ZERO, prefix, content }
}

fn truncate(relations: &[u32]) -> PgOutput {
    let relations = relations.to_vec();
    PgOutput::Truncate { relations, cascade: false, restart_identity: false }
}

fn tell(
    assembler: &mut ChangeAssembler,
    messages: impl IntoIterator<Item = PgOutput>,
) -> Result<Vec<CapturedItem>, AssembleError> {
    let mut captured = Vec::new();
    for message in messages {
        assembler.accept(message, &RAW, None, &mut captured)?;
    }
    Ok(captured)
}

/// The one change of a transaction with one message.
fn single(
    assembler: &mut ChangeAssembler,
    message: PgOutput,
) -> Result<CommittedChange, AssembleError> {
    let mut captured = tell(assembler, [begin(100), message, commit(100)])?;
    match captured.remove(0) {
        CapturedItem::Change(change) => Ok(change),
        other => panic!("{other:?}"),
    }
}

fn values(tuple: &RowTuple) -> Vec<Option<&str>> {
    (0..tuple.len())
        .map(|column| match tuple.value(column) {
            ColumnValue::Null => None,
            ColumnValue::Unchanged => Some("(unchanged)"),
            ColumnValue::Text(text) => Some(std::str::from_utf8(text).unwrap()),
        })
        .collect()
}

/// What can happen within a transaction.
fn step() -> impl Strategy<Value = PgOutput> {
    prop_oneof![
        Just(insert(ORDERS)),
        Just(insert(ITEMS)),
        Just(update(None, [ID, ColumnField::Unchanged])),
        Just(update(Some(OldFieldRanges::Key([OLD, ColumnField::Null].into())), [ID, NEW])),
        Just(PgOutput::Delete { relation: ITEMS, old: OldFieldRanges::Full([ID, OLD].into()) }),
        vec(prop::sample::select(vec![ORDERS, ITEMS]), 0..3).prop_map(|oids| truncate(&oids)),
        Just(note(true, "walhook", "{}")),
        Just(note(true, "walhook", "")),
        Just(note(true, "walhook2", "foreign")),
        Just(note(false, "walhook", "not of this transaction")),
        Just(PgOutput::Relation(described(ORDERS, ReplicaIdentity::Full))),
        Just(PgOutput::Origin { commit_lsn: Lsn::ZERO, name: "elsewhere".into() }),
        Just(PgOutput::Type { oid: 90_000, schema: "public".into(), name: "mood".into() }),
    ]
}

/// What must come out: position, relation and metadata of each change.
fn model(transactions: &[Vec<PgOutput>]) -> Vec<(u64, u32, u32, Option<Bytes>)> {
    let mut expected = Vec::new();
    for (at, steps) in (1_u64..).zip(transactions) {
        let (mut ordinal, mut metadata) = (0, None);
        for step in steps {
            let changed = match step {
                PgOutput::Message { transactional: true, prefix, content, .. }
                    if prefix == "walhook" =>
                {
                    metadata = Some(content.clone()).filter(|content| !content.is_empty());
                    vec![]
                }
                PgOutput::Insert { relation, .. }
                | PgOutput::Update { relation, .. }
                | PgOutput::Delete { relation, .. } => vec![*relation],
                PgOutput::Truncate { relations, .. } => relations.clone(),
                _ => vec![],
            };
            for relation in changed {
                expected.push((at * 100, ordinal, relation, metadata.clone()));
                ordinal += 1;
            }
        }
    }
    expected
}

proptest! {
    #[test]
    fn ordinals_and_metadata_are_as_a_model_counts_them(transactions in vec(vec(step(), 0..8), 0..5)) {
        let mut assembler = assembler();
        let mut found = Vec::new();
        for (at, steps) in (1_u64..).zip(&transactions) {
            let lsn = at * 100;
            let told = tell(&mut assembler, [begin(lsn)].into_iter().chain(steps.iter().cloned()));
            prop_assert!(assembler.idle(Lsn::from_raw(lsn)).is_none(), "a transaction is open");
            for captured in told.unwrap() {
                let CapturedItem::Change(change) = captured else { panic!("{captured:?}") };
                let Position { commit, ordinal } = change.position;
                found.push((commit.raw(), ordinal, change.relation.oid, change.metadata));
            }
            let ended = tell(&mut assembler, [commit(lsn)]).unwrap();
            let ends_here = matches!(
                ended[..],
                [CapturedItem::Commit { commit, end, .. }] if (commit.raw(), end.raw()) == (lsn, lsn + 8)
            );
            prop_assert!(ends_here, "{ended:?}");
            prop_assert!(assembler.idle(Lsn::from_raw(lsn)).is_some());
        }
        prop_assert_eq!(found, model(&transactions));
    }
}

#[test]
fn messages_that_do_not_follow_from_each_other_are_refused() {
    let outside = |what| AssembleError::OutsideTransaction { what };
    let wide = PgOutput::Insert { relation: ORDERS, new: [ID, NEW, NEW].into() };
    let elsewhere =
        PgOutput::Insert { relation: ORDERS, new: [ID, ColumnField::Text(3..9)].into() };
    let field_count = AssembleError::FieldCount {
        table: TableName::new("public", "t16384"),
        columns: 2,
        given: 3,
    };
    let cases = [
        ("row", vec![insert(ORDERS)], outside("a row")),
        ("commit", vec![commit(1)], outside("a commit")),
        ("metadata", vec![note(true, "walhook", "")], outside("a transactional message")),
        ("unknown", vec![begin(1), insert(5)], AssembleError::UnknownRelation { oid: 5 }),
        (
            "unknown among known",
            vec![begin(1), truncate(&[ORDERS, 5])],
            AssembleError::UnknownRelation { oid: 5 },
        ),
        (
            "begin within",
            vec![begin(1), begin(2)],
            AssembleError::NestedTransaction { open: Lsn::from_raw(1) },
        ),
        (
            "other commit",
            vec![begin(1), commit(2)],
            AssembleError::OtherCommit { begun: Lsn::from_raw(1), committed: Lsn::from_raw(2) },
        ),
        ("too many fields", vec![begin(1), wide], field_count),
        ("other message's bytes", vec![begin(1), elsewhere], AssembleError::OtherMessage),
    ];
    for (name, messages, expected) in cases {
        assert_eq!(tell(&mut assembler(), messages).unwrap_err(), expected, "case: {name}");
    }
}

#[test]
fn a_transaction_with_too_many_changes_is_refused_and_leaves_nothing_half_done() {
    let mut assembler = assembler();
    tell(&mut assembler, [begin(1)]).unwrap();
    assembler.open.as_mut().unwrap().next_ordinal = u32::MAX - 1;
    let mut captured = Vec::new();
    let outcome =
        assembler.accept(truncate(&[ORDERS, ITEMS]), &RAW, None, &mut captured).unwrap_err();
    assert_eq!(outcome, AssembleError::TooManyChanges { commit: Lsn::from_raw(1) });
    assert!(captured.is_empty());
}

#[test]
fn a_relation_described_again_is_how_later_rows_look() {
    let mut assembler = assembler();
    let before = single(&mut assembler, insert(ORDERS)).unwrap();
    let mut renamed = described(ORDERS, ReplicaIdentity::Default);
    renamed.columns[1].name = "remark".into();
    assembler.learn(renamed, &TypeAnswers::default());
    let after = single(&mut assembler, insert(ORDERS)).unwrap();
    assert_eq!(before.relation.column("note"), Some(1));
    assert_eq!(after.relation.column("note"), None);
    assert_eq!(after.relation.column("remark"), Some(1));
}

#[test]
fn old_rows_keep_their_kind_and_give_back_what_an_update_did_not_touch() {
    let unchanged = [ID, ColumnField::Unchanged];
    let key = OldFieldRanges::Key([OLD, ColumnField::Null].into());
    let dense_key = OldFieldRanges::Key([OLD].into());
    let full = OldFieldRanges::Full([ID, OLD].into());
    let cases = [
        ("no old row", None, unchanged.clone(), None, vec![Some("7"), Some("(unchanged)")]),
        (
            "key",
            Some(key),
            [ID, NEW],
            Some((false, vec![Some("old"), None])),
            vec![Some("7"), Some("new")],
        ),
        (
            "key without the other columns",
            Some(dense_key),
            [ColumnField::Unchanged, NEW],
            Some((false, vec![Some("old"), None])),
            vec![Some("old"), Some("new")],
        ),
        (
            "full",
            Some(full),
            unchanged,
            Some((true, vec![Some("7"), Some("old")])),
            vec![Some("7"), Some("old")],
        ),
    ];
    for (name, old, new, expected_old, expected_new) in cases {
        let change = single(&mut assembler(), update(old, new)).unwrap();
        let ChangeOp::Update { old, new } = &change.op else { panic!("case: {name}: {change:?}") };
        let old = old.as_ref().map(|old| (matches!(old, OldRow::Full(_)), values(old.tuple())));
        assert_eq!(old, expected_old, "case: {name}");
        assert_eq!(values(new), expected_new, "case: {name}");
    }
}

#[test]
fn only_what_the_message_leaves_open_is_asked() {
    let ask = |identity, type_oids: [u32; 2]| {
        let mut message = described(ORDERS, identity);
        for (column, type_oid) in message.columns.iter_mut().zip(type_oids) {
            column.type_oid = type_oid;
        }
        ChangeAssembler::questions(&message)
    };
    assert!(ask(ReplicaIdentity::Default, [20, 1009]).is_empty());
    assert_eq!(ask(ReplicaIdentity::Default, [90_000, 90_000]).types, [90_000]);
    for identity in [ReplicaIdentity::Full, ReplicaIdentity::Index, ReplicaIdentity::Nothing] {
        assert_eq!(ask(identity, [20, 25]).primary_key_of, Some(ORDERS), "case: {identity:?}");
    }
}

#[test]
fn the_key_is_the_primary_key_or_the_next_best() {
    let answer = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
    let (id, both, none): (&[usize], &[usize], &[usize]) = (&[0], &[0, 1], &[]);
    let cases = [
        ("default", ReplicaIdentity::Default, None, id),
        ("full, not asked", ReplicaIdentity::Full, None, none),
        ("full, no primary key", ReplicaIdentity::Full, answer(&[]), none),
        ("full", ReplicaIdentity::Full, answer(&["note", "id"]), both),
        ("full, renamed since", ReplicaIdentity::Full, answer(&["id", "remark"]), none),
        ("nothing", ReplicaIdentity::Nothing, answer(&["id"]), id),
        ("index, other primary key", ReplicaIdentity::Index, answer(&["note"]), &[1]),
        ("index, no primary key", ReplicaIdentity::Index, answer(&[]), id),
        ("index, renamed since", ReplicaIdentity::Index, answer(&["remark"]), id),
    ];
    for (name, identity, primary_key, expected) in cases {
        let mut assembler = assembler();
        let answers = TypeAnswers { primary_key, ..TypeAnswers::default() };
        assembler.learn(described(ORDERS, identity), &answers);
        let change = single(&mut assembler, insert(ORDERS)).unwrap();
        assert_eq!(change.relation.key, expected, "case: {name}");
    }
}

#[test]
fn types_are_built_in_or_answered_or_text() {
    let mut message = described(ORDERS, ReplicaIdentity::Default);
    for (name, type_oid) in [("custom", 90_000), ("dropped", 90_001)] {
        let identity = false;
        message.columns.push(ColumnMessage {
            name: name.into(),
            type_oid,
            type_modifier: -1,
            identity,
        });
    }
    let answers =
        TypeAnswers { types: vec![(90_000, Arc::new(SqlType::Numeric))], ..TypeAnswers::default() };
    let mut assembler = assembler();
    assembler.learn(message, &answers);
    let relation = assembler.relation(ORDERS).unwrap();
    let found: Vec<_> = relation.columns.iter().map(|column| column.sql_type.as_ref()).collect();
    assert_eq!(found, [&SqlType::Integer, &SqlType::Text, &SqlType::Numeric, &SqlType::Text]);
}

#[test]
fn what_walhook_itself_wrote_for_its_slot_is_left_out_and_keeps_its_ordinals() {
    let mark = |content| note(true, "walhook.write_back", content);
    let own = || {
        let mut assembler = ChangeAssembler::of_slot("mine");
        assembler.learn(described(ORDERS, ReplicaIdentity::Default), &TypeAnswers::default());
        assembler
    };
    let ordinals = |assembler: &mut ChangeAssembler, messages: Vec<PgOutput>| {
        let told = [vec![begin(100)], messages, vec![commit(100), begin(200), insert(ORDERS)]];
        let captured = tell(assembler, told.concat()).unwrap();
        let position = |captured: &CapturedItem| match captured {
            CapturedItem::Change(change) => {
                Some((change.position.commit.raw(), change.position.ordinal))
            }
            CapturedItem::Commit { .. } | CapturedItem::Idle { .. } => None,
        };
        captured.iter().filter_map(position).collect::<Vec<_>>()
    };
    let row = || insert(ORDERS);
    let cases: [(&str, Vec<PgOutput>, &[u32]); 5] = [
        ("ours", vec![mark("mine"), row(), truncate(&[ORDERS])], &[]),
        ("another slot's", vec![mark("yours"), row(), row()], &[0, 1]),
        ("not of the transaction", vec![note(false, "walhook.write_back", "mine"), row()], &[0]),
        ("another prefix", vec![note(true, "walhook.write_backs", "mine"), row()], &[0]),
        ("what came before the mark", vec![row(), mark("mine"), row()], &[0]),
    ];
    for (name, messages, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|at| (100, *at)).chain([(200, 0)]).collect();
        assert_eq!(ordinals(&mut own(), messages), expected, "case: {name}");
    }
    let messages = vec![mark("mine"), row()];
    assert_eq!(ordinals(&mut assembler(), messages), [(100, 0), (200, 0)], "no slot of ours");
}

/// A partition writes keys although its root is FULL, and PostgreSQL calls them whole rows.
#[test]
fn a_whole_row_that_may_be_a_key_says_nothing_by_its_nulls() {
    let cases = [
        (RowWholeness::Sure, ColumnField::Null, true),
        (RowWholeness::Likely, ColumnField::Null, false),
        (RowWholeness::Likely, OLD, true),
        (RowWholeness::Doubtful, OLD, false),
    ];
    for (wholeness, note, expected) in cases {
        let primary_key = Some(vec![String::from("id")]);
        let answers = TypeAnswers { primary_key, wholeness, ..TypeAnswers::default() };
        let message = described(ORDERS, ReplicaIdentity::Full);
        assert_eq!(ChangeAssembler::questions(&message).partitions_of, Some(ORDERS));
        let mut assembler = assembler();
        assembler.learn(message, &answers);
        let old = OldFieldRanges::Full([ID, note.clone()].into());
        let mut captured = Vec::new();
        for message in [begin(8), PgOutput::Delete { relation: ORDERS, old }] {
            assembler.accept(message, &RAW, None, &mut captured).unwrap();
        }
        let [CapturedItem::Change(CommittedChange { op: ChangeOp::Delete { old }, .. })] =
            captured.as_slice()
        else {
            panic!("{captured:?}")
        };
        assert_eq!(matches!(old, OldRow::Full(_)), expected, "{wholeness:?}, {note:?}");
    }
}
