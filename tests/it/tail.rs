//! `walhook tail --endpoint`: what an endpoint would receive, and nothing is sent or left behind.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[tokio::test]
async fn it_shows_the_requests_of_one_endpoint_as_they_would_be() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, region int)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let crm = format!(
        "[[endpoint]]\nname = \"crm\"\nurl = \"{}hooks?key=opensesame\"\nevents = [\"order\"]\n\
         when = \"region == 7\"\npayload = {{ number = \"{{{{ id }}}}\" }}\nsecret = \"{SECRET}\"\n\
         headers = {{ X-Tenant = \"acme\", X-Api-Key = \"opensesame\" }}\n\
         auth = {{ bearer = \"opensesame\" }}\n",
        receiver.url()
    );
    let rest = format!(
        "[webhook]\nenabled = false\n[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\
         [[event]]\ntype = \"other\"\ntable = \"public.orders\"\n{crm}\
         [[endpoint]]\nname = \"erp\"\nurl = \"{}\"\nbatch = {{ size = 5 }}\n",
        receiver.url()
    );
    let toml = configuration(&database, &rest);
    let service = Service::start(&toml).await;
    let unknown = ["tail", "--endpoint", "crn"];
    let mut unknown = Program::start(&unknown, &toml, &[]);
    assert_eq!(unknown.wait(AMPLE).await, Some(2));
    let said = unknown.output().join("\n");
    assert!(said.contains("no endpoint \"crn\"") && said.contains("crm, erp"), "{said}");

    let mut crm = Program::start(&["tail", "--endpoint", "crm", "--limit", "2"], &toml, &[]);
    let mut erp = Program::start(&["tail", "--endpoint", "erp", "--limit", "1"], &toml, &[]);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    let deadline = Instant::now() + AMPLE;
    while sql.text(&format!("{slots} AND confirmed_flush_lsn IS NOT NULL")).await != "3" {
        assert!(Instant::now() < deadline, "{:?} {:?}", crm.output(), erp.output());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sql.batch_execute("INSERT INTO orders VALUES (1, 7), (2, 8), (3, 7)").await.unwrap();
    for tail in [&mut crm, &mut erp] {
        assert_eq!(tail.wait(AMPLE).await, Some(0), "{:?}", tail.output());
        assert!(!tail.output().join("\n").contains("opensesame"));
    }
    let lines = |program: &Program| -> Vec<Value> {
        program.output().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let shown = lines(&crm);
    let bodies: Vec<&Value> = shown.iter().map(|line| &line["body"]).collect();
    assert_eq!(bodies, [&json!({ "number": 1 }), &json!({ "number": 3 })]);
    let (line, headers) = (&shown[0], &shown[0]["headers"]);
    assert_eq!((&line["type"], &line["endpoint"]), (&json!("order"), &json!("crm")));
    assert_eq!(
        (&line["method"], &line["url"]),
        (&json!("POST"), &json!(receiver.url().trim_end_matches("/hooks").trim_end_matches('/')))
    );
    assert_eq!(
        (&headers["webhook-id"], &headers["content-type"]),
        (&line["id"], &json!("application/json"))
    );
    for name in ["authorization", "x-tenant", "x-api-key", "webhook-signature"] {
        assert_eq!(headers[name], "[secret]", "{name}");
    }
    let shown = lines(&erp);
    assert_eq!(shown[0]["body"][0]["data"]["id"], 1, "{shown:?}");
    assert!(shown[0]["headers"]["webhook-id"].as_str().unwrap().starts_with("batch_"));
    // The service's own; PostgreSQL takes a moment to see that the others' sessions have ended.
    wait_for_text(&sql, slots, "1").await;
    assert_eq!((receiver.count(), service.stats().await.is_object()), (0, true));
}

#[tokio::test]
async fn endpoints_of_a_table_and_of_the_api_are_shown_as_well() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE orders (id int PRIMARY KEY, region int);
         CREATE TABLE webhooks (id int PRIMARY KEY, region int, token text);
         INSERT INTO webhooks VALUES (1, 7, 'opensesame')",
    )
    .await
    .unwrap();
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let rest = format!(
        "[state]\nkey = \"{key}\"\n[webhook]\nenabled = false\n\
         [endpoints]\nallow = [\"127.0.0.1\"]\n\
         [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\
         [endpoints_from]\ntable = \"webhooks\"\nmatch = {{ region = \"region\" }}\n\
         [endpoints_from.endpoint]\nname = \"wh-{{{{ id }}}}\"\nurl = \"http://127.0.0.1:9/wh\"\n\
         auth = {{ bearer = \"{{{{ token }}}}\" }}\n"
    );
    let toml = configuration(&database, &rest);
    // Before the first start there is no state.
    let mut early = Program::start(&["tail", "--endpoint", "crm"], &toml, &[]);
    assert_eq!(early.wait(AMPLE).await, Some(2));
    assert!(early.output().join("\n").contains("there are: wh-1"), "{:?}", early.output());
    let service = Service::start(&toml).await;
    let made = json!({ "name": "crm", "url": "http://127.0.0.1:9/crm", "when": "region == 8",
        "payload": "cloudevents", "secret": SECRET, "headers": { "X-Api-Key": "opensesame" } });
    assert_eq!(service.post("/api/v1/endpoints", &made).await.status, 201);
    let mut unknown = Program::start(&["tail", "--endpoint", "crn"], &toml, &[]);
    assert_eq!(unknown.wait(AMPLE).await, Some(2));
    let said = unknown.output().join("\n");
    assert!(said.contains("no endpoint \"crn\"") && said.contains("wh-1, crm"), "{said}");

    let mut tails = ["wh-1", "crm"]
        .map(|name| Program::start(&["tail", "--endpoint", name, "--limit", "1"], &toml, &[]));
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    let deadline = Instant::now() + AMPLE;
    while sql.text(&format!("{slots} AND confirmed_flush_lsn IS NOT NULL")).await != "3" {
        assert!(Instant::now() < deadline, "{:?} {:?}", tails[0].output(), tails[1].output());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sql.batch_execute("INSERT INTO orders VALUES (1, 6), (2, 7), (3, 8)").await.unwrap();
    for (tail, (body, header)) in tails.iter_mut().zip([
        (json!({ "id": 2, "region": 7 }), "authorization"),
        (json!({ "id": 3, "region": 8 }), "x-api-key"),
    ]) {
        assert_eq!(tail.wait(AMPLE).await, Some(0), "{:?}", tail.output());
        let line = tail.output().join("\n");
        assert!(!line.contains("opensesame"), "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["body"]["data"], &line["headers"][header]),
            (&body, &json!("[secret]")),
            "{line}"
        );
    }
}
