//! SIGHUP: the configuration is read again, and what can change without a restart does, all of it
//! or nothing; what is under way goes on.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

/// How the log ends what it says of a reload.
const LAST_WORDS: [&str; 4] =
    ["configuration is reloaded", "is not reloaded", "nothing to change", "needs a restart"];

const EVENT: &str = "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n";

fn receiver() -> Receiver {
    Receiver::start(always(Answer::status(200)))
}

async fn set_up() -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    let table = "CREATE TABLE orders (id int PRIMARY KEY, version int NOT NULL DEFAULT 0)";
    sql.batch_execute(table).await.unwrap();
    (database, sql)
}

fn endpoint(name: &str, url: &str, rest: &str) -> String {
    format!("[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\n{rest}\n")
}

/// Has the service read this configuration, and gives what the log says of it.
pub(crate) async fn reload(service: &Service, toml: &str) -> String {
    std::fs::write(service.program.home().join("walhook.toml"), toml).unwrap();
    let before = service.program.output().len();
    service.program.signal(Signal::HUP);
    let deadline = Instant::now() + AMPLE;
    loop {
        let said = service.program.output().split_off(before).join("\n");
        if LAST_WORDS.iter().any(|words| said.contains(words)) {
            // What waits for a restart is said right after.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return service.program.output().split_off(before).join("\n");
        }
        assert!(Instant::now() < deadline, "{}", service.program.output().join("\n"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn insert(sql: &Sql, id: i32) {
    sql.batch_execute(&format!("INSERT INTO orders VALUES ({id})")).await.unwrap();
}

/// In their own order: rows of different keys come as they come.
fn ids(receiver: &Receiver) -> Vec<i64> {
    let id = |request: &Request| request.json()["data"]["id"].as_i64().unwrap();
    let mut ids: Vec<i64> = receiver.requests().iter().map(id).collect();
    ids.sort_unstable();
    ids
}

async fn states(service: &Service) -> String {
    let status = service.get("/api/v1/status").await.json();
    let endpoints = status["endpoints"].as_array().unwrap().clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let shown = endpoints.iter().map(|e| format!("{} {}", text(&e["name"]), text(&e["state"])));
    shown.collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn endpoints_of_the_file_come_change_and_go_without_a_restart() {
    let (database, sql) = set_up().await;
    let (first, second, third) = (receiver(), receiver(), receiver());
    let toml = |rest: &str| configuration(&database, &format!("{EVENT}{rest}"));
    let service = Service::start(&toml(
        &(endpoint("a", &first.url(), "") + &endpoint("b", &second.url(), "")),
    ))
    .await;
    insert(&sql, 1).await;
    first.wait_for(1, AMPLE).await;
    second.wait_for(1, AMPLE).await;
    let changed = endpoint("a", &third.url(), "when = \"id != 3\"\nheaders = { X-Tenant = \"t\" }")
        + &endpoint("c", &second.url(), "");
    let said = reload(&service, &toml(&changed)).await;
    for part in ["added=\"c\"", "changed=\"a\"", "removed=\"b\"", "events=false"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for id in 2..=4 {
        insert(&sql, id).await;
    }
    assert!(third.wait_for(2, AMPLE).await.iter().all(|r| r.header("x-tenant") == "t"));
    second.wait_for(4, AMPLE).await;
    assert_eq!((ids(&first), ids(&third)), (vec![1], vec![2, 4]));
    assert_eq!(ids(&second), [1, 2, 3, 4], "b had the first, c has the others");
    let said = reload(&service, &toml(&changed)).await;
    assert!(said.contains("nothing to change"), "{said}");
    let disabled = changed.replace("name = \"c\"", "name = \"c\"\nenabled = false");
    reload(&service, &toml(&disabled)).await;
    assert_eq!(states(&service).await, "a enabled, c disabled");
    insert(&sql, 5).await;
    third.wait_for(3, AMPLE).await;
    assert_eq!(second.count(), 4);
    reload(&service, &toml(&changed)).await;
    insert(&sql, 6).await;
    second.wait_for(5, AMPLE).await;
    assert_eq!(ids(&second)[4], 6);
}

#[tokio::test]
async fn what_events_look_like_changes_at_once_and_what_is_made_once_is_named() {
    let (database, sql) = set_up().await;
    let receiver = receiver();
    let toml = |event: &str, rest: &str| {
        configuration(&database, &format!("{event}{}{rest}", endpoint("a", &receiver.url(), "")))
    };
    let service = Service::start(&toml(EVENT, "")).await;
    insert(&sql, 1).await;
    receiver.wait_for(1, AMPLE).await;
    let shaped = format!("{EVENT}when = \"id != 2\"\npayload = {{ number = \"{{{{ id }}}}\" }}\n");
    let said = reload(&service, &toml(&shaped, "[memory]\nqueued = \"2MiB\"\n")).await;
    assert!(said.contains("events=true") && said.contains("waiting=\"[memory]\""), "{said}");
    insert(&sql, 2).await;
    insert(&sql, 3).await;
    assert_eq!(receiver.wait_for(2, AMPLE).await[1].json(), json!({ "number": 3 }));
    service.wait_for_metric("walhook_events_total{event=\"order\"}", 2.0).await;
    let more = "[[event]]\ntype = \"other\"\ntable = \"public.others\"\n";
    let said = reload(&service, &toml(&format!("{shaped}{more}"), "")).await;
    assert!(said.contains("waiting=\"[[event]]\""), "{said}");
    // What PostgreSQL would not send is refused as it is at the start.
    let old = format!("{EVENT}when = \"old.version != version\"\n");
    let said = reload(&service, &toml(&old, "")).await;
    assert!(said.contains("REPLICA IDENTITY FULL") && said.contains("not reloaded"), "{said}");
    insert(&sql, 4).await;
    assert_eq!(receiver.wait_for(3, AMPLE).await[2].json(), json!({ "number": 4 }));
    let unknown = format!("{EVENT}when = \"total > 3\"\n");
    let said = reload(&service, &toml(&unknown, "")).await;
    assert!(said.contains("total") && said.contains("not reloaded"), "{said}");
}

#[tokio::test]
async fn what_cannot_be_taken_up_changes_nothing_and_every_reason_is_logged() {
    let (database, sql) = set_up().await;
    let (first, second) = (receiver(), receiver());
    let toml = |rest: &str| {
        let rest = format!("[endpoints]\nallow = [\"127.0.0.1\"]\n{EVENT}{rest}");
        configuration(&database, &rest)
    };
    let service = Service::start(&toml(&endpoint("a", &first.url(), ""))).await;
    let made = json!({ "name": "made", "url": second.url(), "batch": { "size": 5 } });
    let made = service.post("/api/v1/endpoints", &made).await;
    assert_eq!(made.status, 201, "{made:?}");
    let moved = endpoint("a", &second.url(), "");
    let bad =
        endpoint("a", "http://user:opensesame@h/", "timout = \"1s\"\nsecret = \"opensesame\"");
    let cases: [(String, &[&str]); 6] = [
        (
            toml(&bad),
            &[
                "endpoint.url: holds a user or password",
                "endpoint.timout: unknown key: did you mean `timeout`?",
                "endpoint.secret: is too short",
                "problems=3",
            ],
        ),
        ("a = = 1".to_owned(), &["walhook.toml:1:5: extra `=`", "problems=1"]),
        (
            toml(&(moved.clone() + &endpoint("made", &first.url(), ""))),
            &["there is an endpoint made already", "problems=1"],
        ),
        (
            toml(&moved).replace("[[event]]", "[[event]]\npayload = \"order {{ id }}\""),
            &["endpoint made: `batch` cannot hold order", "problems=1"],
        ),
        (
            toml(&format!("[webhook]\nqueue_capacity = 3\n{moved}")),
            &["endpoint made, which was made over the API: capacity: is less than one batch"],
        ),
        (
            toml(&endpoint("a", &second.url(), "when = \"verison > 1\"")),
            &["`when` of endpoint a names column verison", "problems=1"],
        ),
    ];
    for (number, (toml, expected)) in (1..).zip(cases) {
        let said = reload(&service, &toml).await;
        for part in expected {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(said.contains("configuration is not reloaded: what ran before runs on"), "{said}");
        assert!(!said.contains("opensesame"), "{said}");
        insert(&sql, number).await;
        let requests = first.wait_for(usize::try_from(number).unwrap(), AMPLE).await;
        assert_eq!(requests.last().unwrap().json()["data"]["id"], number);
    }
    reload(&service, &toml(&moved)).await;
    insert(&sql, 9).await;
    second.wait_for(8, AMPLE).await;
    assert_eq!(first.count(), 6);
}

#[tokio::test]
async fn defaults_reach_endpoints_that_were_made_over_the_api() {
    let (database, sql) = set_up().await;
    let receiver = receiver();
    let toml = |rest: &str| {
        let allow = "[endpoints]\nallow = [\"127.0.0.1\"]\n";
        configuration(&database, &format!("{allow}{EVENT}{rest}"))
    };
    let service = Service::start(&toml("")).await;
    let made = json!({ "name": "made", "url": receiver.url() });
    assert_eq!(service.post("/api/v1/endpoints", &made).await.status, 201);
    let said = reload(&service, &toml("[webhook]\nheaders = { X-Tenant = \"t\" }\n")).await;
    assert!(said.contains("changed=\"made\""), "{said}");
    insert(&sql, 1).await;
    assert_eq!(receiver.wait_for(1, AMPLE).await[0].header("x-tenant"), "t");
    let without = toml("").replace("[\"127.0.0.1\"]", "[]");
    reload(&service, &without).await;
    let other = json!({ "name": "b", "url": receiver.url() });
    let refused = service.post("/api/v1/endpoints", &other).await;
    assert_eq!(refused.status, 422, "loopback is not listed any more");
}

#[tokio::test]
async fn a_standby_takes_it_up_when_the_slot_is_its_own() {
    let (database, sql) = set_up().await;
    let (first, second) = (receiver(), receiver());
    let toml = |url: &str| configuration(&database, &format!("{EVENT}{}", endpoint("a", url, "")));
    let holder = Service::start(&toml(&first.url())).await;
    let mut heir = Service::open(&toml(&first.url())).await;
    std::fs::write(heir.program.home().join("walhook.toml"), toml(&second.url())).unwrap();
    heir.program.signal(Signal::HUP);
    heir.program.wait_for_line("is read again", AMPLE).await;
    holder.program.kill();
    heir.program.wait_for_line("configuration is reloaded", AMPLE).await;
    insert(&sql, 1).await;
    second.wait_for(1, AMPLE).await;
}

/// Changes of each key, and keys.
const VERSIONS: i64 = 60;
const KEYS: i64 = 20;

#[tokio::test]
async fn under_load_nothing_is_lost_and_order_holds_through_reloads() {
    let (database, sql) = set_up().await;
    let (steady, here, there, guests) = (receiver(), receiver(), receiver(), receiver());
    let toml = |round: usize| {
        let url = if round.is_multiple_of(2) { here.url() } else { there.url() };
        let concurrency = 1 + round % 8;
        let rest = format!("concurrency = {concurrency}\nrate_limit = {}", 3000 + round);
        let mut text = endpoint("steady", &steady.url(), "") + &endpoint("moving", &url, &rest);
        if !round.is_multiple_of(3) {
            text += &endpoint(&format!("guest-{round}"), &guests.url(), "");
        }
        configuration(&database, &format!("{EVENT}{text}"))
    };
    let service = Service::start(&toml(0)).await;
    let fill = format!("INSERT INTO orders SELECT n, 0 FROM generate_series(1, {KEYS}) n");
    sql.batch_execute(&fill).await.unwrap();
    let write = async {
        for version in 1..=VERSIONS {
            sql.batch_execute(&format!("UPDATE orders SET version = {version}")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let come_and_go = async {
        for round in 1..=12 {
            let said = reload(&service, &toml(round)).await;
            assert!(said.contains("configuration is reloaded"), "{said}");
        }
    };
    tokio::join!(write, come_and_go);
    let all = usize::try_from(KEYS * (VERSIONS + 1)).unwrap();
    steady.wait_for(all, AMPLE).await;
    let deadline = Instant::now() + AMPLE;
    while here.count() + there.count() < all {
        assert!(Instant::now() < deadline, "{} + {} of {all}", here.count(), there.count());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(here.count() > 0 && there.count() > 0);
    let mut moved = [here.requests(), there.requests()].concat();
    moved.sort_by_key(|request| request.arrived);
    for requests in [steady.requests(), moved] {
        assert_eq!(requests.len(), all);
        let mut seen = HashMap::<i64, Vec<i64>>::new();
        for request in requests {
            let row = &request.json()["data"];
            let versions = seen.entry(row["id"].as_i64().unwrap()).or_default();
            versions.push(row["version"].as_i64().unwrap());
        }
        for (key, versions) in seen {
            assert!(versions.iter().copied().eq(0..=VERSIONS), "key {key}: {versions:?}");
        }
    }
    // What waited for guests that went is accounted for.
    let deadline = Instant::now() + AMPLE;
    loop {
        let open = sql.text("SELECT count(*) FROM walhook.balance WHERE pending <> 0").await;
        if open == "0" {
            break;
        }
        assert!(Instant::now() < deadline, "{open} accounts are open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A named pipe that nobody writes to.
fn pipe(service: &Service, name: &str) {
    let path = service.program.home().join(name);
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[tokio::test]
async fn a_file_that_does_not_come_holds_up_nothing_but_the_reload() {
    let (database, sql) = set_up().await;
    let receiver = receiver();
    let toml = configuration(&database, &format!("{EVENT}{}", endpoint("a", &receiver.url(), "")));
    let mut service = Service::start(&toml).await;
    pipe(&service, "secret");
    let slow = toml.replace("name = \"a\"", "name = \"a\"\nsecret = { file = \"secret\" }");
    std::fs::write(service.program.home().join("walhook.toml"), slow).unwrap();
    let before = service.program.output().len();
    service.program.signal(Signal::HUP);
    service.program.signal(Signal::HUP);
    let refused =
        |service: &Service| service.program.output().split_off(before).join("\n").contains("pipe");
    let (mut answers, deadline) = (0, Instant::now() + AMPLE);
    while !refused(&service) {
        assert_eq!(service.get("/health").await.status, 200);
        answers += 1;
        sql.batch_execute(&format!("INSERT INTO orders VALUES ({answers})")).await.unwrap();
        assert!(receiver.wait_for(answers, AMPLE).await.len() >= answers);
        assert!(Instant::now() < deadline, "{}", service.program.output().join("\n"));
    }
    // Far more than before the process would have come to a stop.
    assert!(answers > 3, "{answers}");
    service.program.signal(Signal::HUP);
    service.stop().await;
    assert!(!service.program.output().join("\n").contains("is reloaded"));
}

#[tokio::test]
async fn a_configuration_that_never_ends_or_never_comes_is_told() {
    let home = tempfile::tempdir().unwrap();
    let pipe = home.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, told) in [
        ("/dev/zero", "is larger than 64 MiB"),
        (pipe.to_str().unwrap(), "a pipe that nobody writes to"),
        ("/", "cannot be read"),
    ] {
        let mut program = Program::start(&["check", "--config", path], "", &[]);
        assert_eq!(program.wait(AMPLE).await, Some(2), "case: {path}");
        let said = program.output().join("\n");
        assert!(said.contains(told) && said.contains("--config"), "case: {path}: {said}");
    }
}

/// Whatever is changed of an endpoint, or of the shape and the filter of what it takes: what waits for a later
/// try is tried at once, since it may be taken now.
#[tokio::test]
async fn what_waits_is_tried_at_once_when_its_endpoint_is_changed() {
    let (database, sql) = set_up().await;
    let receiver = Receiver::start(always(Answer::status(503)));
    let toml = |event: &str, path: &str, rest: &str| {
        let retry = "retry = { delays = [\"15m\", \"15m\", \"15m\", \"15m\"] }\n";
        let url = format!("http://{}/{path}", receiver.address());
        let crm = endpoint("crm", &url, &format!("{retry}{rest}"));
        configuration(&database, &format!("{EVENT}{event}{crm}"))
    };
    let mut service = Service::start(&toml("", "a", "")).await;
    insert(&sql, 1).await;
    receiver.wait_for(1, AMPLE).await;
    let changes = [
        ("", "b", ""),
        ("", "b/{{ id }}", ""),
        ("", "b", "headers = { X-A = \"1\" }\n"),
        ("", "b", "headers = { X-A = \"{{ id }}\" }\n"),
        ("", "b", "secret = \"0123456789abcdef\"\n"),
        ("", "b", "payload = { id = \"{{ id }}\" }\n"),
        ("", "b", "payload = { nr = \"{{ id }}\" }\n"),
        ("", "b", "when = \"id > 0\"\n"),
        ("payload = { n = \"{{ id }}\" }\n", "b", ""),
        ("when = \"id > 0\"\n", "b", ""),
    ];
    for (index, (event, path, rest)) in changes.into_iter().enumerate() {
        let waiting = "SELECT count(*)::text FROM walhook.backlog WHERE attempts > 0 \
                       AND next_attempt_at > now() + interval '10 minutes'";
        wait_for_text(&sql, waiting, "1").await;
        reload(&service, &toml(event, path, rest)).await;
        receiver.wait_for(index + 2, AMPLE).await;
    }
    // An event from before the setting is known by its key.
    assert_eq!(receiver.requests()[2].path, "/b/1");
    assert_eq!(receiver.requests()[4].header("x-a"), "1");
    let before = receiver.count();
    let same = toml("when = \"id > 0\"\n", "b", "capacity = 5000\n");
    reload(&service, &same).await;
    assert_eq!(receiver.count(), before, "a longer queue is no reason");
    service.stop().await;
}
