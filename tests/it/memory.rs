//! Memory stays bounded, however large a transaction or a row is.
//!
//! What counts is the highest resident set of the process (`VmHWM`), which the kernel keeps.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use tokio::sync::watch;

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::progress::reach;
use crate::support::receiver::Answer;
use crate::support::receiver::Behaviour;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::Service;

/// What walhook may take at its highest, also in a debug build: the row once, and what it takes anyway.
/// Pages of the program itself do not count; a debug build has three times as many as a release.
const PEAK_MAX_KIB: u64 = 116 * 1024;

const AMPLE: Duration = Duration::from_secs(240);

/// What the large transaction may take: a fraction of its rows as events.
const TRANSACTION_PEAK_MAX_KIB: u64 = 64 * 1024;

/// How long it may take to give memory back.
const MOMENT: Duration = Duration::from_secs(30);

/// What it may have left a moment after the largest row has gone.
const AFTERWARDS_MAX_KIB: u64 = 16 * 1024;

/// And after the large transaction, whose events were made on one thread and dropped on others.
const FLOOD_AFTERWARDS_MAX_KIB: u64 = 24 * 1024;

/// When the first request of the large transaction is answered.
const LATE: Duration = Duration::from_secs(12);

/// Rows of the large transaction.
const ROWS: usize = 500_000;

const ITEM: &str = "CREATE TABLE item (id bigint PRIMARY KEY, text text NOT NULL)";

const ITEM_EVENT: &str = "
    [[event]]
    type = \"item.created\"
    table = \"public.item\"
    on = [\"insert\"]
";

fn configuration(database: &Database, receiver: &Receiver, webhook: &str, rest: &str) -> String {
    let (url, slot, hooks) = (database.url(), database.name(), receiver.url());
    format!(
        "[postgres]\nurl = \"{url}\"\nslot = \"{slot}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
         [webhook]\nurls = [\"{hooks}\"]\n{webhook}\n\n{rest}"
    )
}

async fn run(toml: &str) -> Program {
    let mut program = Program::start(&["run"], toml, &[]);
    program.wait_for_line("walhook is running", AMPLE).await;
    program
}

/// One line of `/proc/PID/status`, in KiB.
fn memory_kib(program: &Program, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What it has taken at its highest, without the pages of the program itself.
pub(crate) fn peak_kib(program: &Program) -> u64 {
    memory_kib(program, "VmHWM:").saturating_sub(memory_kib(program, "RssFile:"))
}

fn assert_peak(program: &Program, most_kib: u64, what: &str) {
    let now = memory_kib(program, "VmRSS:").saturating_sub(memory_kib(program, "RssFile:"));
    let peak = peak_kib(program);
    println!("{what}: at most {} MiB, in the end {} MiB", peak / 1024, now / 1024);
    assert!(peak < most_kib, "{what} took {} MiB", peak / 1024);
}

/// Within a moment, though nothing else happens.
async fn assert_given_back(program: &Program, most_kib: u64) {
    let started = Instant::now();
    while memory_kib(program, "RssAnon:") > most_kib {
        assert!(started.elapsed() < MOMENT, "{} KiB", memory_kib(program, "RssAnon:"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The part of an event that the count needs.
#[derive(Deserialize)]
struct Item {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    id: usize,
}

/// The first request is answered late, so that most of the transaction is settled behind it; each
/// answer is as long as walhook keeps them.
#[tokio::test]
async fn a_transaction_of_500_000_rows_fits_into_little_memory() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(ITEM).await.unwrap();
    let ids = Arc::new(Mutex::new(HashSet::with_capacity(ROWS)));
    let (count, repeats) = (Arc::new(watch::Sender::new(0)), Arc::new(AtomicUsize::new(0)));
    let answer = Answer::status(200).body(vec![b'.'; 64 * 1024]);
    let behaviour: Behaviour = Arc::new({
        let (ids, count, repeats) = (Arc::clone(&ids), Arc::clone(&count), Arc::clone(&repeats));
        move |request| {
            let items: Vec<Item> = serde_json::from_slice(&request.body).unwrap();
            let mut ids = ids.lock().unwrap();
            let again = items.iter().filter(|item| !ids.insert(item.data.id)).count();
            repeats.fetch_add(again, Ordering::Relaxed);
            count.send_replace(ids.len());
            let answer = answer.clone();
            if request.number == 1 { answer.after(LATE) } else { answer }
        }
    });
    let receiver = Receiver::start_forgetful(behaviour);
    let webhook = "batch_size = 100\nconcurrent_pushers = 8\ntimeout = \"1m\"";
    let mut program = run(&configuration(&database, &receiver, webhook, ITEM_EVENT)).await;

    let started = Instant::now();
    let rows = format!("SELECT n, 'text of ' || n FROM generate_series(1, {ROWS}) n");
    sql.batch_execute(&format!("INSERT INTO item {rows}")).await.unwrap();
    println!("committed after {:?}", started.elapsed());
    assert!(reach(count.subscribe(), ROWS, AMPLE).await, "{} of {ROWS} came", *count.borrow());
    println!("arrived after {:?}", started.elapsed());
    assert_peak(&program, TRANSACTION_PEAK_MAX_KIB, "the transaction");
    assert_given_back(&program, FLOOD_AFTERWARDS_MAX_KIB).await;
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
    assert_eq!(repeats.load(Ordering::Relaxed), 0, "rows came twice");
}

/// Its text is escaped on the way, and a failed attempt sends it again.
#[tokio::test]
async fn a_row_of_100_megabytes_is_in_memory_once() {
    const BYTES: usize = 100_000_000;
    let wallet = "
        CREATE TABLE ocr_wallet_info (
            id bigint PRIMARY KEY, source_ip text, msg_id text, group_id text, wallet_code text,
            serial_no text, wx_id text, wx_nick_name text, pic_url text,
            create_time timestamptz NOT NULL DEFAULT now());
        ALTER TABLE ocr_wallet_info ALTER wx_nick_name SET STORAGE EXTERNAL";
    let cases = [
        (
            "the standard body",
            ITEM,
            ITEM_EVENT,
            "INSERT INTO item SELECT 1, repeat('line of 19 letters' || chr(10), 5 * 1000 * 1000)
             || repeat('x', 5 * 1000 * 1000)",
        ),
        (
            "ocr-wallet",
            wallet,
            "",
            "INSERT INTO ocr_wallet_info (id, wallet_code, wx_nick_name)
             SELECT 1, 'W', repeat('line of 19 letters' || chr(10), 5 * 1000 * 1000)
             || repeat('x', 5 * 1000 * 1000)",
        ),
    ];
    for (name, table, event, insert) in cases {
        let database = Database::create().await;
        let sql = database.sql().await;
        sql.batch_execute(table).await.unwrap();
        let lengths = Arc::new(Mutex::new(Vec::new()));
        let measure: Behaviour = Arc::new({
            let lengths = Arc::clone(&lengths);
            move |request| {
                let mut lengths = lengths.lock().unwrap();
                lengths
                    .push((request.body.len(), memchr::memchr_iter(b'\\', &request.body).count()));
                Answer::status(if lengths.len() == 1 { 503 } else { 200 })
            }
        });
        let receiver = Receiver::start_forgetful(measure);
        let webhook =
            "secret = \"a secret of some length\"\ntimeout = \"1m\"\nretry_interval = \"1ms\"";
        let mut program = run(&configuration(&database, &receiver, webhook, event)).await;
        sql.batch_execute(insert).await.unwrap();
        receiver.wait_for(2, AMPLE).await;
        assert_peak(&program, PEAK_MAX_KIB, name);
        assert_given_back(&program, AFTERWARDS_MAX_KIB).await;
        for (length, escaped) in lengths.lock().unwrap().iter() {
            assert_eq!(*escaped, 5_000_000, "case: {name}");
            assert!((BYTES..BYTES + 6_000_000).contains(length), "case: {name}: {length}");
        }
        program.terminate();
        assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
    }
}

/// PostgreSQL sends two digits for a byte; the body has four characters for three.
#[tokio::test]
async fn large_bytes_are_in_memory_once() {
    const BYTES: usize = 45_000_000;
    let database = Database::create().await;
    let sql = database.sql().await;
    let table = "CREATE TABLE item (id bigint PRIMARY KEY, data bytea);
                 ALTER TABLE item ALTER data SET STORAGE EXTERNAL";
    sql.batch_execute(table).await.unwrap();
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let measure: Behaviour = Arc::new({
        let lengths = Arc::clone(&lengths);
        move |request| {
            let encoded = memchr::memmem::find_iter(&request.body, b"q6urq6ur").count();
            lengths.lock().unwrap().push((request.body.len(), encoded));
            Answer::status(if lengths.lock().unwrap().len() == 1 { 503 } else { 200 })
        }
    });
    let receiver = Receiver::start_forgetful(measure);
    let webhook =
        "secret = \"a secret of some length\"\ntimeout = \"1m\"\nretry_interval = \"1ms\"";
    let mut program = run(&configuration(&database, &receiver, webhook, ITEM_EVENT)).await;
    let insert = format!("INSERT INTO item SELECT 1, decode(repeat('ab', {BYTES}), 'hex')");
    sql.batch_execute(&insert).await.unwrap();
    receiver.wait_for(2, AMPLE).await;
    assert_peak(&program, PEAK_MAX_KIB, "a bytea");
    for (length, encoded) in lengths.lock().unwrap().iter() {
        assert!((BYTES / 3 * 4..BYTES / 3 * 4 + 1000).contains(length), "{length}");
        assert_eq!(*encoded, BYTES / 6);
    }
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
}

/// It goes into the backlog and out of it, becomes a dead letter and is sent again, for each of three
/// endpoints: in pieces, and not for all of them at once.
#[tokio::test]
async fn a_large_row_that_waits_is_in_memory_twice_at_most() {
    const BYTES: usize = 60_000_000;
    /// The row in the budget, once more beyond it, and what walhook takes anyway.
    const PEAK_MAX: u64 = (2 * BYTES as u64) / 1024 + 64 * 1024;
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(ITEM).await.unwrap();
    sql.batch_execute("ALTER TABLE item ALTER text SET STORAGE EXTERNAL").await.unwrap();
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let answers = |status: u16| -> Behaviour {
        let lengths = Arc::clone(&lengths);
        Arc::new(move |request| {
            if status == 200 {
                lengths.lock().unwrap().push(request.body.len());
            }
            Answer::status(status)
        })
    };
    let receiver = Receiver::start_forgetful(answers(503));
    let url = receiver.url();
    let endpoint = |name: &str| {
        format!("[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\nevents = [\"item.created\"]\n")
    };
    let endpoints: String = ["a", "b", "c"].iter().map(|name| endpoint(name)).collect();
    let rest = format!(
        "{ITEM_EVENT}\n[webhook]\ntimeout = \"1m\"\nmax_retries = 100\nretry_interval = \"1s\"\n\
         breaker = {{ failures = 1, cooldown = \"100ms\", cap = \"500ms\" }}\n{endpoints}"
    );
    let toml = crate::support::service::configuration(&database, &rest);
    let mut service = Service::start(&toml).await;
    let insert = format!("INSERT INTO item SELECT 1, repeat('0123456789', {BYTES} / 10)");
    sql.batch_execute(&insert).await.unwrap();
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "3").await;
    receiver.wait_for(6, AMPLE).await;
    receiver.behave(answers(400));
    wait_for_text(&sql, "SELECT count(*) FROM walhook.dead_letters WHERE body_bytes > 0", "3")
        .await;
    receiver.behave(answers(200));
    let resend =
        service.post("/api/v1/dead-letters/resend", &serde_json::json!({"all": true})).await;
    assert_eq!(resend.status, 202, "{resend:?}");
    let delivered = "SELECT sum(delivered) || ' ' || sum(dead) FROM walhook.balance";
    wait_for_text(&sql, delivered, "3 0").await;
    assert_eq!(sql.text("SELECT count(*) FROM walhook.body_pieces").await, "0");
    let lengths = lengths.lock().unwrap().clone();
    assert_eq!(lengths.len(), 3);
    assert!(lengths.iter().all(|length| *length == lengths[0] && *length > BYTES), "{lengths:?}");
    let peak = peak_kib(&service.program);
    println!("a row that waits: at most {} MiB", peak / 1024);
    assert!(peak < PEAK_MAX, "{} MiB", peak / 1024);
    service.stop().await;
}

/// The log of requests keeps them all, but cannot be written for a while.
#[tokio::test]
async fn answers_that_wait_to_be_written_do_not_pile_up() {
    const ROWS: usize = 4000;
    let database = Database::create().await;
    let (sql, locker) = (database.sql().await, database.sql().await);
    sql.batch_execute(ITEM).await.unwrap();
    let receiver =
        Receiver::start_forgetful(always(Answer::status(200).body(vec![b'.'; 64 * 1024])));
    let rest = format!("{ITEM_EVENT}\n[push_log]\nbodies = \"all\"\n");
    let mut program = run(&configuration(&database, &receiver, "", &rest)).await;
    locker.batch_execute("BEGIN; LOCK TABLE walhook.push_log_events").await.unwrap();
    let rows = format!("SELECT n, 'text of ' || n FROM generate_series(1, {ROWS}) n");
    sql.batch_execute(&format!("INSERT INTO item {rows}")).await.unwrap();
    let mut count = 0;
    while count == 0 || count < receiver.count() {
        count = receiver.count();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("{count} answers are in memory");
    assert!(count < ROWS / 8, "{count} answers are in memory");
    locker.batch_execute("COMMIT").await.unwrap();
    receiver.wait_for(ROWS, AMPLE).await;
    assert_peak(&program, PEAK_MAX_KIB, "answers of 64 KiB");
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
}
