//! What scripts and people see of walhook: its HTTP surface, `init`, `tail` and `receive`.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::ask;
use crate::support::service::configuration;
use crate::support::service::metric;
use crate::support::service::name_of;
use crate::support::service::slot;

const TABLE: &str = include_str!("../../sql/ocr-wallet.sql");

/// The documented names; NAME is the endpoint's.
const METRICS: [&str; 24] = [
    "walhook_events_captured_total{table=\"public.ocr_wallet_info\"}",
    "walhook_events_filtered_total{event=\"ocr_wallet_data\"}",
    "walhook_events_total{event=\"ocr_wallet_data\"}",
    "walhook_deliveries_total{endpoint=\"NAME\",outcome=\"delivered\"}",
    "walhook_deliveries_pending{endpoint=\"NAME\",where=\"memory\"}",
    "walhook_attempts_total{endpoint=\"NAME\",result=\"delivered\"}",
    "walhook_attempt_duration_seconds_count{endpoint=\"NAME\"}",
    "walhook_commit_to_delivery_seconds_count{endpoint=\"NAME\"}",
    "walhook_retries_total{endpoint=\"NAME\"}",
    "walhook_replication_connected",
    "walhook_replication_lag_bytes",
    "walhook_replication_lag_seconds",
    "walhook_slot_retained_wal_bytes",
    "walhook_slot_safe_wal_bytes",
    "walhook_clock_ahead_seconds",
    "walhook_received_lsn",
    "walhook_confirmed_lsn",
    "walhook_reconnects_total",
    "process_resident_memory_bytes",
    "walhook_deliveries_pending{endpoint=\"NAME\",where=\"backlog\"}",
    "walhook_breaker_open{endpoint=\"NAME\"}",
    "walhook_dead_letters{endpoint=\"NAME\"}",
    "walhook_ledger_flush_seconds_sum",
    "walhook_balance{endpoint=\"NAME\",entry=\"pending\",table=\"public.ocr_wallet_info\"}",
];

async fn database() -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    (database, sql)
}

fn delivered(endpoint: &str) -> String {
    format!("walhook_deliveries_total{{endpoint=\"{endpoint}\",outcome=\"delivered\"}}")
}

fn pending(endpoint: &str) -> String {
    format!("walhook_deliveries_pending{{endpoint=\"{endpoint}\",where=\"memory\"}}")
}

/// A scrape in which no event has moved for a while.
async fn settled(service: &Service) -> String {
    let deliveries = |scrape: &str| -> Vec<String> {
        let moves = ["walhook_events", "walhook_deliveries", "walhook_attempts"];
        let is_move = |line: &&str| moves.iter().any(|start| line.starts_with(start));
        scrape.lines().filter(is_move).map(str::to_owned).collect()
    };
    let mut before = String::new();
    let mut since = Instant::now();
    loop {
        let scrape = service.get("/metrics").await.body;
        if deliveries(&scrape) != deliveries(&before) {
            before = scrape;
            since = Instant::now();
        } else if since.elapsed() > Duration::from_millis(300) {
            return scrape;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `captured = delivered + filtered + expired + dead + pending` for this endpoint.
fn assert_balanced(scrape: &str, endpoint: &str) {
    let captured =
        metric(scrape, "walhook_events_captured_total{table=\"public.ocr_wallet_info\"}");
    let outcomes = ["delivered", "filtered", "expired", "dead"].map(|outcome| {
        let labels = format!("{{endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}");
        metric(scrape, &format!("walhook_deliveries_total{labels}"))
    });
    let pending = ["memory", "backlog"].map(|place| {
        let labels = format!("{{endpoint=\"{endpoint}\",where=\"{place}\"}}");
        metric(scrape, &format!("walhook_deliveries_pending{labels}"))
    });
    let accounted = outcomes.iter().chain(&pending).sum::<f64>();
    assert!(captured == accounted, "{endpoint}: {captured} of {outcomes:?} and {pending:?}");
}

#[tokio::test]
async fn every_documented_metric_is_there_and_moves() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let webhook = format!("[webhook]\nurls = [\"{}\"]", receiver.url());
    let mut service = Service::start(&configuration(&database, &webhook)).await;
    let reply = service.get("/metrics").await;
    assert!(reply.content_type.starts_with("text/plain; version=0.0.4"), "{}", reply.content_type);
    let endpoint = name_of(&receiver.url());
    let metrics = METRICS.map(|name| name.replace("NAME", &endpoint));
    for name in &metrics {
        let value = metric(&reply.body, name);
        let counts = name.contains("_total") || name.contains("_count");
        assert!(!counts || value == 0.0, "{name} starts with {value}");
    }
    assert_eq!(metric(&reply.body, "walhook_replication_connected"), 1.0);
    let before = metric(&reply.body, "walhook_confirmed_lsn");
    sql.batch_execute("INSERT INTO ocr_wallet_info (wallet_code) VALUES ('W1'), ('')")
        .await
        .unwrap();
    service.wait_for_metric(&delivered(&endpoint), 1.0).await;
    // The outcome is confirmed with the next flush.
    service.wait_for_metric("walhook_replication_lag_seconds", 0.0).await;
    while metric(&service.get("/metrics").await.body, "walhook_confirmed_lsn") <= before {}
    let scrape = service.get("/metrics").await.body;
    for (name, expected) in metrics[..8].iter().zip([2.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]) {
        assert_eq!(metric(&scrape, name), expected, "{name}");
    }
    for name in ["walhook_confirmed_lsn", "walhook_received_lsn"] {
        assert!(metric(&scrape, name) > before, "{name}");
    }
    assert_eq!(metric(&scrape, "walhook_replication_lag_seconds"), 0.0);
    assert_balanced(&scrape, &endpoint);
    service.stop().await;
}

#[tokio::test]
async fn the_books_balance_also_while_an_endpoint_is_full() {
    let (database, sql) = database().await;
    let dead = Receiver::start(always(Answer::status(400)));
    let hanging = Receiver::start(always(Answer::Hang));
    let healthy = Receiver::start(always(Answer::status(200)));
    let webhook = format!(
        "[webhook]\nurls = [\"{}\", \"{}\", \"{}\"]\nqueue_capacity = 20\ntimeout = \"1h\"\n\
         [shutdown]\ngrace = \"1s\"",
        dead.url(),
        hanging.url(),
        healthy.url()
    );
    let mut service = Service::start(&configuration(&database, &webhook)).await;
    sql.batch_execute(
        "INSERT INTO ocr_wallet_info (wallet_code, create_time)
         SELECT CASE WHEN n % 10 > 0 THEN 'W' END,
                CASE WHEN n % 7 > 0 THEN now() ELSE now() - interval '1 day' END
         FROM generate_series(1, 100) n",
    )
    .await
    .unwrap();
    // The pump stands still once it has an event for which the hanging one's lane has no room.
    let scrape = settled(&service).await;
    let captured =
        metric(&scrape, "walhook_events_captured_total{table=\"public.ocr_wallet_info\"}");
    assert!((20.0..=100.0).contains(&captured), "{captured}");
    let [dead, hanging, healthy] = [&dead, &hanging, &healthy].map(|one| name_of(&one.url()));
    for endpoint in [&dead, &hanging, &healthy] {
        assert_balanced(&scrape, endpoint);
    }
    assert_eq!(metric(&scrape, &pending(&dead)), metric(&scrape, &pending(&healthy)));
    assert!(metric(&scrape, &pending(&hanging)) >= 20.0);
    let lag = metric(&scrape, "walhook_replication_lag_seconds");
    assert!(lag > 0.0 && lag < 60.0, "{lag}");
    let status = service.get("/api/v1/status").await.json();
    let queued: Vec<&Value> =
        status["endpoints"].as_array().unwrap().iter().map(|one| &one["queued"]).collect();
    assert_eq!(queued.len(), 3);
    assert!(queued[1].as_u64().unwrap() >= 20, "{status}");
    service.stop().await;
}

#[tokio::test]
async fn the_status_tells_where_the_stream_stands() {
    let (database, _sql) = database().await;
    let webhook = "[webhook]\nurls = [\"http://127.0.0.1:9/hooks?key=tell-nobody\"]";
    let mut service = Service::start(&configuration(&database, webhook)).await;
    assert_eq!(service.get("/health").await.json()["status"], "ok");
    let ready = service.get("/ready").await;
    assert_eq!((ready.status.as_u16(), ready.json()), (200, json!({ "status": "ready" })));
    let reply = service.get("/api/v1/status").await;
    assert!(!reply.body.contains("tell-nobody"), "{}", reply.body);
    let status = reply.json();
    let source = &status["source"];
    assert_eq!((&source["state"], &source["reason"]), (&json!("streaming"), &Value::Null));
    assert_eq!(source["slot"], json!(slot(&database)));
    assert_eq!(source["publication"], "walhook");
    assert!(source["version"].as_str().unwrap().contains('.'), "{status}");
    assert!(source["confirmed_lsn"].as_str().unwrap().contains('/'), "{status}");
    assert!(source["wal"]["retained_bytes"].is_u64(), "{status}");
    assert!(status["clock_ahead_seconds"].as_f64().unwrap().abs() < 5.0, "{status}");
    let endpoint = &status["endpoints"][0];
    assert!(endpoint["name"].as_str().unwrap().starts_with("127.0.0.1-"), "{status}");
    assert_eq!(endpoint["url"], "http://127.0.0.1:9");
    service.stop().await;
}

#[tokio::test]
async fn errors_are_problem_documents_and_a_token_guards_the_api() {
    let (database, _sql) = database().await;
    let token = "0123456789abcdef";
    let toml = configuration(&database, "[webhook]\nenabled = false");
    let toml = toml.replace("[http]\n", &format!("[http]\ntoken = \"{token}\"\n"));
    let mut service = Service::start(&toml).await;
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(service.get(path).await.status, 200, "{path} is open");
    }
    for path in ["/api/v1/status", "/api/v1/webhook/stats"] {
        assert_eq!(service.ask("GET", path, Some(token)).await.status, 200, "{path}");
    }
    let wrong = Some("0123456789abcdeg");
    let cases = [
        ("GET", "/api/v1/status", None, 401, "Authorization: Bearer"),
        ("GET", "/api/v1/webhook/stats", wrong, 401, "Authorization: Bearer"),
        ("GET", "/nowhere", Some(token), 404, "nothing at /nowhere"),
        ("DELETE", "/health", None, 405, "/health does not take DELETE"),
        ("POST", "/api/v1/status", Some(token), 405, "/api/v1/status does not take POST"),
    ];
    for (method, path, token, status, detail) in cases {
        let reply = service.ask(method, path, token).await;
        assert_eq!(reply.status.as_u16(), status, "{method} {path}: {reply:?}");
        assert_eq!(reply.content_type, "application/problem+json", "{method} {path}");
        let problem = reply.json();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    let log = service.program.output().join("\n");
    assert!(!log.contains(token), "{log}");
    service.stop().await;
}

#[tokio::test]
async fn what_init_writes_is_sound_and_runs() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, note text)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let (from, to) = (database.url(), receiver.url());
    let args = ["init", "--database-url", &from, "--table", "public.orders", "--url", &to];
    let mut init = Program::start(&[&args[..], &["--output", "made.toml"]].concat(), "", &[]);
    assert_eq!(init.wait(AMPLE).await, Some(0), "{:?}", init.output());
    let made = std::fs::read_to_string(init.home().join("made.toml")).unwrap();
    let mut check = Program::start(&["check"], &made, &[]);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{:?}", check.output());
    // The slot of the file is everybody's default, and the port may be taken.
    let own = format!("slot = \"{}\"", slot(&database));
    assert!(made.contains("slot = \"walhook\"") && made.contains("listen = "), "{made}");
    let toml = made.replace("slot = \"walhook\"", &own);
    let toml = toml.replace("127.0.0.1:9464", "127.0.0.1:0");
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO orders VALUES (1, 'hello')").await.unwrap();
    let request = receiver.wait_for(1, AMPLE).await.remove(0);
    assert_eq!(request.json()["data"], json!({ "id": 1, "note": "hello" }));
    assert!(request.header("webhook-signature").starts_with("v1,"), "{:?}", request.headers);
    service.stop().await;
}

#[tokio::test]
async fn tail_prints_events_and_delivers_nothing() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let webhook = format!("[webhook]\nurls = [\"{}\"]", receiver.url());
    let toml = configuration(&database, &webhook);
    // The publication is `run`'s to make.
    let mut early = Program::start(&["tail", "--limit", "1"], &toml, &[]);
    assert_eq!(early.wait(AMPLE).await, Some(3), "{:?}", early.output());
    let said = early.output().join("\n");
    assert!(said.contains("CREATE PUBLICATION \"walhook\""), "{said}");

    let mut service = Service::start(&toml.replace("urls = [", "enabled = false\nurls = [")).await;
    let mut tail = Program::start(&["tail", "--limit", "2"], &toml, &[]);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    // It sees what is committed from where its slot starts, which PostgreSQL has to find first.
    wait_for_text(&sql, &format!("{slots} AND confirmed_flush_lsn IS NOT NULL"), "2").await;
    sql.batch_execute(
        "INSERT INTO ocr_wallet_info (id, wallet_code) VALUES (1, 'W1'), (2, ''), (3, 'W3'),
             (4, 'W4')",
    )
    .await
    .unwrap();
    assert_eq!(tail.wait(AMPLE).await, Some(0), "{:?}", tail.output());
    let lines: Vec<Value> =
        tail.output().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["type"], "ocr_wallet_data");
    assert_eq!(lines[0]["table"], "public.ocr_wallet_info");
    assert_eq!(lines[0]["body"]["data"]["wallet_code"], "W1");
    assert_eq!(lines[1]["body"]["data"]["id"], 3);
    assert!(lines[0]["id"].as_str().unwrap().starts_with("evt_"), "{lines:?}");
    wait_for_text(&sql, slots, "1").await; // its slot goes with its connection
    service.stop().await;
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn receive_checks_what_run_sends_and_answers_as_told() {
    let (database, sql) = database().await;
    let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    for (status, answer) in [("200", "pushed"), ("503", "given up")] {
        let listen = ["receive", "--listen", "127.0.0.1:0", "--json", "--secret", secret];
        let args = [&listen[..], &["--status", status]].concat();
        let mut receive = Program::start(&args, "", &[]);
        let greeting = receive.wait_for_line("receiving on", AMPLE).await;
        let url = greeting.split([' ', ',']).find(|word| word.starts_with("http://")).unwrap();
        let webhook = format!(
            "[webhook]\nurls = [\"{url}\"]\nsecret = \"{secret}\"\nmax_retries = 1\n\
             retry_interval = \"10ms\""
        );
        let mut service = Service::start(&configuration(&database, &webhook)).await;
        sql.batch_execute("INSERT INTO ocr_wallet_info (wallet_code) VALUES ('W1')").await.unwrap();
        service.program.wait_for_line(answer, AMPLE).await;
        let line = receive.wait_for_line("ocr_wallet_data", AMPLE).await;
        let shown: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(shown["signature"], "ok", "{shown}");
        service.stop().await;
        receive.terminate();
        assert_eq!(receive.wait(AMPLE).await, Some(0), "{:?}", receive.output());
    }
}

/// Asked from its first moment on: endpoints, the calls of the five systems and the totals of before are there
/// with the first 200 of `/ready`.
#[tokio::test]
async fn ready_means_all_of_it() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let url = receiver.url();
    let rest = format!("[webhook]\nurls = [\"{url}\"]\n\n[endpoints]\n\n[webhook_api]\n");
    let toml = configuration(&database, &rest).replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let toml = format!("{toml}[state]\nkey = \"{}\"\n", "A".repeat(43) + "=");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    for pushed in 0..3 {
        let mut program = Program::start(&["run"], &toml, &[]);
        let deadline = Instant::now() + AMPLE;
        while !ask(address, "GET", "/ready", None).await.is_ok_and(|reply| reply.status == 200) {
            assert!(Instant::now() < deadline, "{}", program.output().join("\n"));
        }
        for path in ["/api/v1/endpoints", "/v1/webhook/List", "/api/v1/dead-letters"] {
            let reply = ask(address, "GET", path, None).await.unwrap();
            assert_eq!(reply.status, 200, "{path}: {reply:?}");
        }
        let stats = ask(address, "GET", "/api/v1/webhook/stats", None).await.unwrap().json();
        assert_eq!(stats["data"]["total_pushed"], pushed, "{stats}");
        sql.batch_execute("INSERT INTO ocr_wallet_info (wallet_code) VALUES ('W')").await.unwrap();
        receiver.wait_for(pushed + 1, AMPLE).await;
        let booked = "SELECT sum(delivered)::text FROM walhook.balance";
        wait_for_text(&sql, booked, &(pushed + 1).to_string()).await;
        program.terminate();
        assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
    }
}

#[tokio::test]
async fn the_surface_is_closed_once_the_program_ends() {
    let (database, _sql) = database().await;
    let mut service = Service::start(&configuration(&database, "[webhook]\nenabled = false")).await;
    service.stop().await;
    assert!(ask(service.http, "GET", "/health", None).await.is_err());
}
