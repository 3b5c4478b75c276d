//! The receivers that the systems' documents show, in the languages in which they show them: each accepts
//! what walhook sends, link messages and nested objects included.
#![expect(clippy::print_stdout, reason = "what is skipped is said")]

use super::*;

use tokio::process::Command;

/// A receiver of `tests/receivers`, or `None`, said aloud, where its language is not installed.
async fn sample(program: &str, file: &str, variant: &str) -> Option<(Program, String)> {
    let mut command = Command::new(program);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/receivers").join(file);
    command.arg(script).arg(variant).env("SECRET", SECRET);
    // What `.ci/tools frameworks` has fetched; else what is installed, or the language's own library.
    let fetched = std::env::var("WALHOOK_FRAMEWORKS").unwrap_or_default();
    let is_fetched = !fetched.is_empty();
    if is_fetched {
        command.env("PYTHONPATH", format!("{fetched}/python"));
        command.env("NODE_PATH", format!("{fetched}/node_modules"));
    }
    if std::process::Command::new(program).arg("--version").output().is_err() {
        println!("SKIP {variant}: needs {program}");
        return None;
    }
    let mut program = Program::spawn(command, tempfile::tempdir().unwrap());
    let line = program.wait_for_line("port ", AMPLE).await;
    let port = line.trim_start_matches("port ").to_owned();
    let said = program.output();
    println!("{variant}: {said:?}");
    let is_framework = said.iter().any(|line| line.starts_with("on ") && line != "on http.server");
    assert!(!is_fetched || is_framework || variant == "node", "{variant}: {said:?}");
    Some((program, format!("http://127.0.0.1:{port}/webhook")))
}

/// Waits for each line in turn, and for no refusal.
async fn accepts(receiver: &mut Program, lines: &[&str]) {
    for line in lines {
        receiver.wait_for_line(line, AMPLE).await;
    }
    let said = receiver.output();
    assert!(!said.iter().any(|line| line.contains("refused")), "{said:?}");
}

#[tokio::test]
async fn flask_and_express_take_the_events_of_contract_2() {
    let (database, sql) = database("customer-events").await;
    let flask = sample("python3", "receiver.py", "flask").await;
    let express = sample("node", "receiver.js", "express-customer").await;
    let started: Vec<&(Program, String)> = flask.iter().chain(&express).collect();
    if started.is_empty() {
        return;
    }
    let subscription =
        |(_, url): &&(Program, String)| json!({ "url": url, "events": ["*"], "secret": SECRET });
    let webhooks: Vec<Value> = started.iter().map(subscription).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json!({ "webhooks": webhooks }).to_string().as_bytes()).unwrap();
    let path = format!("\"{}\"", file.path().display());
    let asked = "\"${CUSTOMER_EVENTS_SUBSCRIPTIONS:-customer-events.subscriptions.json}\"";
    let toml = super::configuration("customer-events", &database, &[(asked, &path)]);
    let mut service = Service::start(&toml).await;
    sql.batch_execute(
        "INSERT INTO products (id, name) VALUES (1, 'loan \"A\"/B \\ é');
         BEGIN;
         SELECT pg_logical_emit_message(true, 'walhook',
             '{\"user_id\": \"admin\", \"tags\": [1, {\"a\": null}],  \"ip_address\": \"192.168.1.1\"}');
         INSERT INTO customers (id, customer_no, name, phone, product_id)
             VALUES (123, 'C001', E'张三\\n\\t', '13800138000', 1);
         COMMIT;
         INSERT INTO documents (id, customer_id, file_name, file_type) VALUES (5, 123, 'id.pdf', 'pdf');
         UPDATE documents SET status = 'approved', review_note = 'ok 👍' WHERE id = 5;",
    )
    .await
    .unwrap();
    let lines = [
        "accepted product.created 1",
        "accepted customer.created 123",
        "accepted document.uploaded 5",
        "accepted document.approved 5",
    ];
    for (mut receiver, _) in flask.into_iter().chain(express) {
        accepts(&mut receiver, &lines).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn fastapi_takes_the_tasks_of_contract_3() {
    let Some((mut receiver, url)) = sample("python3", "receiver.py", "fastapi").await else {
        return;
    };
    let (database, sql) = database("idp-push").await;
    let secret = format!("\"{SECRET}\"");
    let toml = super::configuration(
        "idp-push",
        &database,
        &[("{ env = \"IDP_SIGNING_SECRET\" }", &secret)],
    );
    let toml = format!("{toml}\n[endpoints]\nallow = [\"127.0.0.1\"]\n");
    sql.batch_execute(&format!(
        "INSERT INTO webhooks (id, url) VALUES ('WH_001', '{url}');
         INSERT INTO rule_webhooks VALUES (7, 'WH_001');"
    ))
    .await
    .unwrap();
    let mut service = Service::start(&toml).await;
    sql.batch_execute(
        "INSERT INTO tasks (id, rule_id, status, result, file_url, meta) VALUES ('T_20251214_0001', 7,
             'COMPLETED', '{\"total\": 12.50, \"items\": [{\"name\": \"发票\"}]}', 'https://f.test/1.pdf', '{\"pages\": 2}')",
    )
    .await
    .unwrap();
    accepts(&mut receiver, &["accepted T_20251214_0001 12.5"]).await;
    wait_for_text(&sql, "SELECT status FROM tasks", "PUSH_SUCCESS").await;
    service.stop().await;
}

#[tokio::test]
async fn express_and_plain_node_take_the_messages_of_contract_4() {
    let (database, sql) = database("wechat-messages").await;
    let Some((mut express, url)) = sample("node", "receiver.js", "express-wechat").await else {
        return;
    };
    let Some((mut node, other)) = sample("node", "receiver.js", "node").await else { return };
    let key = format!("\"{KEY}\"");
    let changes = [("{ env = \"WALHOOK_KEY\" }", key.as_str())];
    let toml = super::configuration("wechat-messages", &database, &changes);
    let toml = format!("{toml}\n[endpoints]\nallow = [\"127.0.0.1\"]\n");
    let mut service = Service::start(&toml).await;
    for url in [url, other] {
        let config = json!({ "URL": url, "Secret": SECRET, "MessageTypes": ["1", "3", "49"] });
        let made = service.post("/v1/webhook/Config", &config).await;
        assert_eq!(made.status, 200, "{}", made.body);
    }
    sql.batch_execute(
        "INSERT INTO messages (key, msg_id, from_user, to_user, msg_type, content, is_self_msg) VALUES
             ('wxid_a', 7654321098765432123, 'wxid_s', 'wxid_r', 1, '\"你好 / \\\\ \\\"x\\\" \\u001f\"', false),
             ('wxid_a', 4, 'wxid_s', 'wxid_r', 49,
              '{\"title\": \"x\", \"url\": \"https://example.com\", \"price\": 12.50, \"seen\": 1.0,
                \"small\": 1e-7, \"tags\": [1, null, {\"a\": []}], \"desc\": \"é 👍\"}', false)",
    )
    .await
    .unwrap();
    let lines = ["accepted 7654321098765432123 text", "accepted 4 link https://example.com"];
    for receiver in [&mut express, &mut node] {
        accepts(receiver, &lines).await;
    }
    service.stop().await;
}
