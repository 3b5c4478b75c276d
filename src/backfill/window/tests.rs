//! The promise, held against a table that transactions change: what the receiver has at the end is the table,
//! and no row comes after a newer event of its key.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::backfill::row_buffer::BufferedRow;
use crate::backfill::row_buffer::RowIdentity;
use crate::flow::backfill::ReadId;
use crate::flow::change::ColumnValue;
use crate::flow::lsn::Position;
use crate::flow::relation::Column;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::SqlType;

const ID: BackfillId = BackfillId(1);

/// A key, a number that grows with each write, and a large value that updates may leave alone.
fn relation() -> Arc<Relation> {
    let column = |name: &str, identity| Column {
        name: name.to_owned(),
        type_oid: 25,
        identity,
        sql_type: Arc::new(SqlType::Text),
    };
    let table = TableName::new("public", "t");
    let identity = ReplicaIdentity::Default;
    let columns = vec![column("id", true), column("version", false), column("large", false)];
    Arc::new(Relation { oid: 1, table, identity, columns, key: vec![0], row_key: vec![0] })
}

/// A row: when it was written last, and when its large value was.
type Row = (u64, u64);
type Table = BTreeMap<u8, Row>;

fn tuple(key: u8, row: Option<Row>, has_large: bool) -> RowTuple {
    let (version, large) = row.unwrap_or_default();
    let (key, version, large) = (key.to_string(), version.to_string(), large.to_string());
    let values = [
        ColumnValue::Text(key.as_bytes()),
        if row.is_some() { ColumnValue::Text(version.as_bytes()) } else { ColumnValue::Null },
        match (row.is_some(), has_large) {
            (false, _) => ColumnValue::Null,
            (true, false) => ColumnValue::Unchanged,
            (true, true) => ColumnValue::Text(large.as_bytes()),
        },
    ];
    RowTuple::of_values(values.into_iter())
}

fn number(tuple: &RowTuple, column: usize) -> Option<u64> {
    match tuple.value(column) {
        ColumnValue::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        ColumnValue::Null | ColumnValue::Unchanged => None,
    }
}

#[derive(Clone, Copy, Debug)]
enum Write {
    /// Inserts or updates; with the large value or without.
    Put {
        key: u8,
        large: bool,
    },
    Delete {
        key: u8,
    },
    /// Another key for a row, if that is free.
    Move {
        from: u8,
        to: u8,
    },
    Truncate,
}

#[derive(Clone, Debug)]
enum Step {
    /// A transaction writes and commits: its changes are in the stream.
    Commit(Vec<Write>),
    /// The oldest of those that are committed and not visible becomes visible; or the one after it.
    Show { second: bool },
    /// The stream brings the next transaction.
    Stream,
    /// The stream brings only a part of it.
    StreamOne,
    /// A chunk is read: all rows.
    Read,
    /// It comes to the pump.
    Accept,
    /// The stream says that it has nothing more.
    Idle,
}

fn writes() -> impl Strategy<Value = Write> {
    let key = || 0..5_u8;
    prop_oneof![
        6 => (key(), any::<bool>()).prop_map(|(key, large)| Write::Put { key, large }),
        2 => key().prop_map(|key| Write::Delete { key }),
        1 => (key(), key()).prop_map(|(from, to)| Write::Move { from, to }),
        1 => Just(Write::Truncate),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(writes(), 1..4).prop_map(Step::Commit),
        4 => any::<bool>().prop_map(|second| Step::Show { second }),
        4 => Just(Step::Stream),
        2 => Just(Step::StreamOne),
        3 => Just(Step::Read),
        3 => Just(Step::Accept),
        2 => Just(Step::Idle),
    ];
    prop::collection::vec(step, 1..80)
}

/// Where rows are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ReadPlace {
    Source,
    Standby,
}

/// Rows that go out at once.
const SLICE: usize = 2;

/// Ids come round while a test runs.
const FIRST_XID: u32 = u32::MAX - 5;

/// Bytes of WAL between a commit and what is next to it: more than a page's header.
const RECORD: u64 = 64;

/// The server, the stream, the pump and a receiver that keeps rows.
struct World {
    window: BackfillWindow,
    /// The table as all committed transactions left it; invisible ones hold their rows locked.
    table: Table,
    /// As those left it that are visible.
    visible: Table,
    clock: u64,
    /// Transactions that have committed. Two that are neighbours have begun in the other order.
    committed: u32,
    /// Committed and not visible where rows are read: id, where it ends, keys it wrote, what it did.
    hidden: Vec<(u32, Lsn, Vec<u8>, Table)>,
    /// Rows are read on a standby, which has replayed up to here: commits become visible as they come, and hold
    /// no locks.
    replayed: Option<Lsn>,
    /// What the stream has to bring still.
    wal: VecDeque<(u32, Lsn, VecDeque<ChangeOp>)>,
    end: u64,
    in_transaction: bool,
    reached: Lsn,
    /// Read, and not with the pump yet.
    on_its_way: Option<ReadChunk>,
    has_chunk: bool,
    /// What the receiver has been told of each key: the number of the last write, and whether the row is.
    told: BTreeMap<u8, (u64, bool)>,
    /// What it keeps of rows that were read.
    kept: Table,
    reads: usize,
    forgets: bool,
}

impl World {
    fn new(bytes_max: usize, place: ReadPlace) -> Self {
        let mut window = BackfillWindow::default();
        window.track(ID, TableName::new("public", "t"));
        if let Some(tracked) = window.tracked.get_mut(&ID) {
            tracked.remembered.bytes_max = bytes_max;
        }
        Self {
            window,
            table: Table::new(),
            visible: Table::new(),
            clock: 0,
            committed: 0,
            hidden: Vec::new(),
            replayed: (place == ReadPlace::Standby).then(|| Lsn::from_raw(RECORD)),
            wal: VecDeque::new(),
            end: RECORD,
            in_transaction: false,
            reached: Lsn::ZERO,
            on_its_way: None,
            has_chunk: false,
            told: BTreeMap::new(),
            kept: Table::new(),
            reads: 0,
            forgets: bytes_max < 1_000_000,
        }
    }

    fn commit(&mut self, writes: &[Write]) {
        let locks = self.hidden.iter().filter(|_| self.replayed.is_none());
        let locked: BTreeSet<u8> = locks.flat_map(|(_, _, keys, _)| keys.clone()).collect();
        let (mut keys, mut ops, mut effects) = (Vec::new(), VecDeque::new(), Table::new());
        let mut gone: Vec<u8> = Vec::new();
        for write in writes {
            self.clock += 1;
            let touched: Vec<u8> = match *write {
                Write::Put { key, .. } | Write::Delete { key } => vec![key],
                Write::Move { from, to } => vec![from, to],
                Write::Truncate => (0..5).collect(),
            };
            if touched.iter().any(|key| locked.contains(key)) {
                continue; // it would wait
            }
            match *write {
                Write::Put { key, large } => {
                    let before = self.table.get(&key).copied();
                    let large_at = if large || before.is_none() {
                        self.clock
                    } else {
                        before.unwrap_or_default().1
                    };
                    let row = (self.clock, large_at);
                    self.table.insert(key, row);
                    let new = tuple(key, Some(row), large || before.is_none());
                    ops.push_back(match before {
                        None => ChangeOp::Insert { new },
                        Some(_) => ChangeOp::Update { old: None, new },
                    });
                }
                Write::Delete { key } => {
                    if self.table.remove(&key).is_none() {
                        continue;
                    }
                    ops.push_back(ChangeOp::Delete { old: OldRow::Key(tuple(key, None, false)) });
                }
                Write::Move { from, to } => {
                    if self.table.contains_key(&to) || from == to {
                        continue;
                    }
                    let Some(before) = self.table.remove(&from) else { continue };
                    let row = (self.clock, before.1);
                    self.table.insert(to, row);
                    let old = Some(OldRow::Key(tuple(from, None, false)));
                    ops.push_back(ChangeOp::Update { old, new: tuple(to, Some(row), false) });
                }
                Write::Truncate => {
                    self.table.clear();
                    ops.push_back(ChangeOp::Truncate);
                }
            }
            keys.extend(touched);
        }
        for key in &keys {
            match self.table.get(key) {
                Some(row) => drop(effects.insert(*key, *row)),
                None => gone.push(*key),
            }
        }
        let xid = FIRST_XID.wrapping_add(self.committed ^ 1);
        self.committed += 1;
        self.end += RECORD;
        self.wal.push_back((xid, Lsn::from_raw(self.end), ops));
        self.end += RECORD;
        self.hidden.push((xid, Lsn::from_raw(self.end), keys, effects));
    }

    fn show(&mut self, second: bool) {
        let at = usize::from(second && self.hidden.len() > 1 && self.replayed.is_none());
        if at >= self.hidden.len() {
            return;
        }
        let (_, end, keys, effects) = self.hidden.remove(at);
        self.replayed = self.replayed.map(|_| end);
        for key in keys {
            match effects.get(&key) {
                Some(row) => drop(self.visible.insert(key, *row)),
                None => drop(self.visible.remove(&key)),
            }
        }
    }

    fn read(&mut self) {
        if self.on_its_way.is_some() || self.has_chunk {
            return;
        }
        let wide = |xid: u32| (7_u64 << 32) + u64::from(xid) + if xid < 1000 { 1 << 32 } else { 0 };
        let mut running: Vec<u64> = self.hidden.iter().map(|(xid, ..)| wide(*xid)).collect();
        // The neighbour of the last one has begun before it.
        running.extend(
            (self.committed % 2 == 1).then(|| wide(FIRST_XID.wrapping_add(self.committed - 1))),
        );
        let xmax = wide(FIRST_XID.wrapping_add(self.committed.next_multiple_of(2)));
        let xmin = running.iter().min().copied().unwrap_or(xmax);
        let list: Vec<String> = running.iter().map(u64::to_string).collect();
        // A standby does not list them.
        let list = if self.replayed.is_some() { String::new() } else { list.join(",") };
        let snapshot: SnapshotView = format!("{xmin}:{xmax}:{list}").parse().expect("a snapshot");
        let snapshot = match self.replayed {
            Some(replayed) => snapshot.on_standby(replayed, replayed),
            None => snapshot,
        };
        let relation = relation();
        let mut rows = RowBuffer::new(RowIdentity::Unique);
        for (key, row) in &self.visible {
            let id = ReadId::new(ID, [Some([*key].as_slice())].into_iter());
            rows.push(BufferedRow {
                relation: Arc::clone(&relation),
                tuple: tuple(*key, Some(*row), true),
                id,
            });
        }
        let step =
            BackfillStep { id: ID, chunk: 1, cursor: "{}".into(), read: 0, sent: 0, moved: None };
        let (target, read_at) = (Arc::default(), Timestamp::from_micros(0));
        let lsn = self.replayed.unwrap_or(Lsn::from_raw(self.end));
        self.on_its_way = Some(ReadChunk { step, target, snapshot, lsn, read_at, rows });
    }

    fn accept(&mut self) {
        if let Some(chunk) = self.on_its_way.take() {
            self.has_chunk = self.window.accept(chunk).is_ok();
            assert!(self.has_chunk || self.forgets, "everything is remembered");
            self.release(self.reached);
        }
    }

    fn release(&mut self, reached: Lsn) {
        if self.in_transaction {
            return;
        }
        if self.window.due(reached).next().is_some()
            && let Some(mut chunk) = self.window.take(ID)
        {
            for row in chunk.rows.next_rows(SLICE) {
                let key = u8::try_from(number(&row.tuple, 0).expect("a key")).expect("it is small");
                let version = number(&row.tuple, 1).expect("a version");
                let large = number(&row.tuple, 2).expect("a large value is never left out");
                let told = self.told.get(&key).copied().unwrap_or((0, false));
                assert!(told.0 <= version, "key {key}: a row of {version} after {told:?}");
                assert!(told.0 == 0 || told.1, "key {key}: a row after its end");
                self.told.insert(key, (version, true));
                self.kept.insert(key, (version, large));
            }
            if !chunk.rows.is_empty() {
                self.window.put_back(chunk);
                return;
            }
            self.has_chunk = false;
            self.reads += 1;
        }
    }

    /// What waits goes out while nothing more comes.
    fn drain(&mut self) {
        while self.has_chunk {
            self.release(self.reached);
        }
    }

    /// One change, or the end of a transaction. Returns whether it was the end.
    fn stream_one(&mut self) -> bool {
        let Some((xid, commit, ops)) = self.wal.front_mut() else { return true };
        let (xid, commit) = (*xid, *commit);
        let Some(op) = ops.pop_front() else {
            self.wal.pop_front();
            self.in_transaction = false;
            self.reached = Lsn::from_raw(commit.raw() + RECORD);
            self.release(self.reached);
            return true;
        };
        if !self.in_transaction {
            self.release(commit);
        }
        self.in_transaction = true;
        let change = CommittedChange {
            position: Position { commit, ordinal: 0 },
            committed: Timestamp::from_micros(0),
            relation: relation(),
            op,
            xid,
            metadata: None,
            trace: None,
            held: None,
        };
        if !self.window.observe(&change).is_empty() {
            self.has_chunk = false;
        }
        self.deliver(&change.op);
        false
    }

    fn deliver(&mut self, op: &ChangeOp) {
        let key =
            |tuple: &RowTuple| u8::try_from(number(tuple, 0).expect("a key")).expect("it is small");
        let put = |world: &mut Self, new: &RowTuple, before: Option<Row>| {
            let version = number(new, 1).expect("a version");
            world.told.insert(key(new), (version, true));
            if let Some(large) = number(new, 2).or(before.map(|before| before.1)) {
                world.kept.insert(key(new), (version, large));
            }
        };
        match op {
            ChangeOp::Insert { new } => put(self, new, None),
            ChangeOp::Update { old: None, new } => {
                let before = self.kept.remove(&key(new));
                put(self, new, before);
            }
            ChangeOp::Update { old: Some(old), new } => {
                let before = self.kept.remove(&key(old.tuple()));
                let version = number(new, 1).expect("a version");
                self.told.insert(key(old.tuple()), (version, false));
                put(self, new, before);
            }
            ChangeOp::Delete { old } => {
                self.kept.remove(&key(old.tuple()));
                let told = self.told.entry(key(old.tuple())).or_default();
                *told = (told.0.max(1), false);
            }
            ChangeOp::Truncate => {
                self.kept.clear();
                self.told.values_mut().for_each(|told| told.1 = false);
            }
            ChangeOp::Read { .. } | ChangeOp::Schema => {}
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Commit(writes) => self.commit(writes),
            Step::Show { second } => self.show(*second),
            Step::Stream => while !self.stream_one() {},
            Step::StreamOne => drop(self.stream_one()),
            Step::Read => self.read(),
            Step::Accept => self.accept(),
            Step::Idle => {
                if self.wal.is_empty() {
                    self.reached = Lsn::from_raw(self.end);
                    self.release(self.reached);
                }
            }
        }
    }
}

fn check(before: &[Write], steps: &[Step], bytes_max: usize, place: ReadPlace) {
    let mut world = World::new(bytes_max, place);
    // Rows that nobody has been told of.
    for write in before {
        world.commit(&[*write]);
        world.wal.clear();
        world.show(false);
    }
    for step in steps {
        world.step(step);
    }
    // Then everything becomes visible, everything is streamed, and all is read once.
    world.step(&Step::Accept);
    while !world.wal.is_empty() {
        world.stream_one();
    }
    world.step(&Step::Idle);
    world.drain();
    while !world.hidden.is_empty() {
        world.show(false);
    }
    let reads = world.reads;
    world.step(&Step::Read);
    world.step(&Step::Accept);
    world.drain();
    assert!(world.reads > reads, "the last chunk has gone out");
    assert_eq!(world.kept, world.table);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_receiver_has_the_table_and_never_an_older_row_after_a_newer_event(
        before in prop::collection::vec(writes(), 0..8),
        steps in steps(),
    ) {
        check(&before, &steps, usize::MAX, ReadPlace::Source);
    }

    #[test]
    fn so_it_is_where_rows_are_read_on_a_standby(
        before in prop::collection::vec(writes(), 0..8),
        steps in steps(),
    ) {
        check(&before, &steps, usize::MAX, ReadPlace::Standby);
        check(&before, &steps, 3 * CHANGE_BYTES, ReadPlace::Standby);
    }

    #[test]
    fn so_it_is_where_little_is_remembered(
        before in prop::collection::vec(writes(), 0..8),
        steps in steps(),
    ) {
        check(&before, &steps, 3 * CHANGE_BYTES, ReadPlace::Source);
    }
}

#[test]
fn of_very_many_lost_transactions_the_latest_is_known() {
    let mut memory = ChangeMemory::new(0);
    let last = u32::try_from(LOST_MAX).expect("it is small") + 10;
    (3..=last).for_each(|xid| memory.lose(xid, Lsn::ZERO));
    let view = |text: String| text.parse().expect("a snapshot");
    assert!(memory.has_lost(&view(format!("{}:{}:", last - 1, last + 1))));
    memory.forget_seen(&view(format!("{0}:{0}:", last + 1)));
    assert!(!memory.has_lost(&view(format!("{0}:{0}:", last + 1))));
}
