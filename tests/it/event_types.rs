//! What receivers are told of events: schemas, test events of a type, and what a row would raise.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use serde_json::Value;
use serde_json::json;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::schema::differences;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLE: &str =
    "CREATE TABLE orders (id int PRIMARY KEY, total numeric, paid boolean, doc jsonb);
                     ALTER TABLE orders REPLICA IDENTITY FULL";

async fn stage() -> (Database, Sql, Receiver, String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let url = receiver.url();
    let toml = configuration(
        &database,
        &format!(
            "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\
             [[event]]\ntype = \"order.paid\"\ntable = \"public.orders\"\nwhen = \"paid == true\"\n\
             [event.payload]\nid = \"{{{{ id }}}}\"\nlarge = \"{{{{ total > 100.0 }}}}\"\n\
             [[endpoint]]\nname = \"all\"\nurl = \"{url}\"\n\
             [[endpoint]]\nname = \"rich\"\nurl = \"{url}/rich\"\nevents = [\"order.paid\"]\n\
             when = \"total > 100.0\"\n"
        ),
    );
    (database, sql, receiver, toml)
}

fn schema_of<'s>(types: &'s Value, name: &str) -> &'s Value {
    let all = types["event_types"].as_array().unwrap();
    &all.iter().find(|one| one["type"] == name).unwrap()["schema"]
}

#[tokio::test]
async fn bodies_fit_the_schema_that_api_and_command_give() {
    let (_database, sql, receiver, toml) = stage().await;
    let mut service = Service::start(&toml).await;
    let types = service.get("/api/v1/event-types").await.json();
    sql.batch_execute(
        "INSERT INTO orders VALUES (1, 250.5, true, '{\"a\": [1]}'), (2, NULL, NULL, NULL)",
    )
    .await
    .unwrap();
    for request in receiver.wait_for(4, AMPLE).await {
        let body = request.json();
        let name = if body["type"].is_string() { "order" } else { "order.paid" };
        let schema = schema_of(&types, name);
        assert_eq!(differences(&Value::Null, schema, &body), Vec::<String>::new(), "{body}");
    }
    let paid = &schema_of(&types, "order.paid")["properties"];
    assert_eq!(paid["id"]["type"], json!(["integer", "null"]));
    assert_eq!(paid["large"]["type"], json!(["boolean", "null"]));

    let mut program = Program::start(&["schema"], &toml, &[]);
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
    let document: Value = serde_json::from_str(&program.output().join("\n")).unwrap();
    assert_eq!(&document["$defs"]["order"], schema_of(&types, "order"));
    let mut program =
        Program::start(&["schema", "--format", "asyncapi", "--event", "order.paid"], &toml, &[]);
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
    let document: Value = serde_json::from_str(&program.output().join("\n")).unwrap();
    assert_eq!(document["asyncapi"], "3.0.0");
    let messages = document["components"]["messages"].as_object().unwrap();
    assert_eq!(messages.keys().collect::<Vec<_>>(), ["order.paid"]);

    // What an operator does to a table is told to whoever maintains receivers.
    sql.batch_execute("ALTER TABLE orders ADD note text, ALTER id TYPE text").await.unwrap();
    let line = service.program.wait_for_line("bodies have another schema now", AMPLE).await;
    for change in ["data.note is new", "data.id was integer or null and is string or null"] {
        assert!(line.contains(change), "{line}");
    }
}

#[tokio::test]
async fn a_test_event_of_a_type_is_made_of_the_row_that_is_named() {
    let (_database, sql, receiver, toml) = stage().await;
    sql.batch_execute("INSERT INTO orders VALUES (1, 5, false, NULL), (42, 500, true, NULL)")
        .await
        .unwrap();
    let service = Service::start(&toml).await;
    let (code, said) = service.cli(&["trigger", "order", "--endpoint", "all", "--key", "42"]).await;
    assert!(code == Some(0) && said.contains("all took it: status 200"), "{said}");
    let requests = receiver.wait_for(1, AMPLE).await;
    assert_eq!(requests[0].header("webhook-test"), "true");
    let body = requests[0].json();
    assert_eq!((&body["type"], &body["data"]["id"]), (&json!("order"), &json!(42)));

    let (code, said) = service.cli(&["trigger", "order.paid"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("all took it") && said.contains("rich took it"), "{said}");
    receiver.behave(always(Answer::status(500)));
    let (code, said) = service.cli(&["trigger", "order", "--endpoint", "all"]).await;
    assert!(code == Some(1) && said.contains("all did not take it: status 500"), "{said}");
    for (args, says) in [
        (["order", "--endpoint", "rich"], "takes no event"),
        (
            ["order.lost", "--endpoint", "all"],
            "event type \"order.lost\" is unknown: known are order",
        ),
    ] {
        let (code, said) = service.cli(&[&["trigger"], &args[..]].concat()).await;
        assert!(code == Some(1) && said.contains(says), "{said}");
    }
    let (code, said) = service.cli(&["trigger", "order", "--endpoint", "all", "--key", "7"]).await;
    assert!(code == Some(1) && said.contains("no row \"7\""), "{said}");
    assert_eq!(sql.text("SELECT count(*) FROM walhook.push_log").await, "0", "nothing is booked");
}

#[tokio::test]
async fn a_row_is_tried_as_the_stream_would_bring_it() {
    let (_database, sql, receiver, toml) = stage().await;
    sql.batch_execute("INSERT INTO orders VALUES (1, 5, true, NULL), (2, 500, true, NULL)")
        .await
        .unwrap();
    let service = Service::start(&toml).await;
    let tried = async |asked: Value| service.post("/api/v1/try", &asked).await;
    let told = |answer: &Value| -> Vec<String> {
        let results = answer["results"].as_array().unwrap().iter();
        let told = results.map(|one| {
            let to = one["endpoints"].as_array().unwrap().iter();
            let to: Vec<&str> = to.map(|one| one["endpoint"].as_str().unwrap()).collect();
            let of = |name: &str| one[name].as_str().unwrap().to_owned();
            format!("{} {} {}", of("event_type"), of("verdict"), to.join(","))
        });
        told.collect()
    };
    let poor = tried(json!({ "key": "1", "op": "insert" })).await.json();
    assert_eq!(told(&poor), ["order raised all", "order.paid raised all"]);
    let rich = tried(json!({ "key": "2", "op": "insert" })).await.json();
    assert_eq!(told(&rich), ["order raised all", "order.paid raised all,rich"]);
    let body = rich["results"][1]["endpoints"][1]["body"].as_str().unwrap();
    assert_eq!(body, "{\"id\":2,\"large\":true}");
    let row = json!({ "row": { "id": 9, "total": "1e3", "paid": false }, "op": "insert" });
    let unpaid = tried(row).await.json();
    assert_eq!(told(&unpaid), ["order raised all", "order.paid filtered "]);
    assert_eq!(unpaid["rows"][0]["total"], "1000", "as PostgreSQL has it");
    let all = tried(json!({})).await.json();
    assert_eq!(all["rows"].as_array().unwrap().len(), 2, "to choose from");
    for (wrong, expected) in [
        (json!({ "row": { "nothing": 1 } }), "has no column"),
        (json!({ "row": { "id": "x' OR '1'='1" } }), "invalid input syntax"),
        (json!({ "event_type": "lost" }), "no event is about that"),
        (json!({ "key": "1", "op": "upsert" }), "op is one of"),
    ] {
        let reply = tried(wrong.clone()).await;
        assert!(reply.status == 422 && reply.body.contains(expected), "{wrong}: {reply:?}");
    }
    assert_eq!(receiver.count(), 0, "nothing is sent");
}
