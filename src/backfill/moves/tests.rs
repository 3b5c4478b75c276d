//! `backfill::moves`, by cases.

use std::sync::Arc;

use super::*;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::Column;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::SqlType;
use crate::flow::time::Timestamp;

const ID: BackfillId = BackfillId(7);

/// A key of two columns, of which the second may be large, and a value.
fn relation(table: &str) -> Arc<Relation> {
    let column = |name: &str, identity| Column {
        name: name.to_owned(),
        type_oid: 25,
        identity,
        sql_type: Arc::new(SqlType::Text),
    };
    let columns = vec![column("a", true), column("b", true), column("value", false)];
    Arc::new(Relation {
        oid: 1,
        table: TableName::new("public", table),
        identity: ReplicaIdentity::Default,
        columns,
        key: vec![0, 1],
        row_key: vec![0, 1],
    })
}

/// `-` is null, and `~` was not sent.
fn row(values: [&str; 3]) -> RowTuple {
    RowTuple::of_values(values.into_iter().map(|value| match value {
        "-" => ColumnValue::Null,
        "~" => ColumnValue::Unchanged,
        text => ColumnValue::Text(text.as_bytes()),
    }))
}

fn change(table: &str, xid: u32, op: ChangeOp) -> CommittedChange {
    CommittedChange {
        position: Position { commit: Lsn::from_raw(u64::from(xid) * 8), ordinal: 3 },
        committed: Timestamp::from_micros(0),
        relation: relation(table),
        op,
        xid,
        metadata: None,
        trace: None,
        held: None,
    }
}

fn watch(has_partitions: bool) -> MoveWatch {
    let mut watch = MoveWatch::default();
    watch.watch(ID, TableName::new("public", "t"), has_partitions);
    watch
}

fn keys(watch: &mut MoveWatch, change: &CommittedChange) -> Vec<Vec<String>> {
    watch.observe(change).into_iter().map(|moved| moved.key).collect()
}

fn update(old: Option<OldRow>, new: [&str; 3]) -> ChangeOp {
    ChangeOp::Update { old, new: row(new) }
}

#[test]
fn a_row_has_moved_where_its_key_is_another_one() {
    let key = |values| Some(OldRow::Key(row(values)));
    let full = |values| Some(OldRow::Full(row(values)));
    let cases = [
        ("no old row: its key is the same", update(None, ["1", "x", "v"]), None),
        ("another key", update(key(["1", "x", "-"]), ["2", "x", "v"]), Some(["2", "x"])),
        (
            "a part of it was not sent",
            update(key(["1", "x", "-"]), ["2", "~", "v"]),
            Some(["2", "x"]),
        ),
        ("the same, though sent", update(key(["1", "x", "-"]), ["1", "x", "v"]), None),
        (
            "all of the old row, and the same key",
            update(full(["1", "x", "v"]), ["1", "x", "w"]),
            None,
        ),
        (
            "all of the old row, and another key",
            update(full(["1", "x", "v"]), ["1", "y", "~"]),
            Some(["1", "y"]),
        ),
        ("nothing large was sent", update(full(["1", "x", "v"]), ["1", "~", "~"]), None),
        ("a new row", ChangeOp::Insert { new: row(["2", "x", "v"]) }, None),
        ("a row that goes", ChangeOp::Delete { old: OldRow::Key(row(["2", "x", "-"])) }, None),
        ("all of them go", ChangeOp::Truncate, None),
    ];
    for (name, op, expected) in cases {
        let expected: Vec<Vec<String>> = expected
            .into_iter()
            .map(|key: [&str; 2]| key.map(ToOwned::to_owned).to_vec())
            .collect();
        let found = keys(&mut watch(true), &change("t", 5, op));
        assert_eq!(found, expected, "case: {name}");
    }
}

#[test]
fn what_a_transaction_deletes_and_inserts_may_have_gone_to_another_partition() {
    let delete = || ChangeOp::Delete { old: OldRow::Key(row(["1", "x", "-"])) };
    let insert = || ChangeOp::Insert { new: row(["2", "x", "v"]) };
    let moved = vec![vec!["2".to_owned(), "x".to_owned()]];
    // Not where something else came in between.
    let mut between = watch(true);
    for op in [delete(), update(None, ["3", "x", "v"]), insert()] {
        assert_eq!(keys(&mut between, &change("t", 5, op)), Vec::<Vec<String>>::new());
    }
    for (has_partitions, xid, expected) in
        [(true, 5, moved.clone()), (true, 6, Vec::new()), (false, 5, Vec::new())]
    {
        let mut watch = watch(has_partitions);
        assert_eq!(keys(&mut watch, &change("t", 5, delete())), Vec::<Vec<String>>::new());
        assert_eq!(
            keys(&mut watch, &change("t", xid, insert())),
            expected,
            "{has_partitions} {xid}"
        );
    }
}

#[test]
fn a_move_says_where_it_was_and_for_which_backfills() {
    let mut watch = watch(false);
    watch.watch(BackfillId(8), TableName::new("public", "t"), false);
    watch.watch(BackfillId(9), TableName::new("public", "u"), false);
    let moving = || update(Some(OldRow::Key(row(["1", "x", "-"]))), ["2", "x", "v"]);
    let moved = watch.observe(&change("t", 5, moving()));
    assert_eq!(moved.iter().map(|row| row.backfill.0).collect::<Vec<_>>(), [7, 8]);
    assert!(moved.iter().all(|row| row.xid == 5 && row.position.ordinal == 3), "{moved:?}");
    assert!(moved.iter().all(|row| row.old_key == ["1", "x"]), "{moved:?}");
    watch.forget(ID);
    watch.forget(BackfillId(8));
    assert_eq!(watch.observe(&change("t", 6, moving())), Vec::new());
}
