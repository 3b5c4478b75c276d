//! Endpoints that are made, changed, paused and removed over the API of any member.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use super::DELIVER;
use super::ENDPOINTS;
use super::OneNode;
use super::TAIL;
use super::UNBALANCED;
use super::one_node;
use super::told;
use super::write;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Reply;
use crate::support::service::Service;
use crate::support::service::exchange;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// With a key for secrets, and the receiver's address allowed.
fn wanted(toml: &str) -> String {
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let more =
        format!("[state]\nkey = \"{key}\"\n\n[endpoints]\nallow = [\"127.0.0.1\"]\n\n[relay]\n");
    toml.replacen("[relay]\n", &more, 1)
        .replace("[postgres]\n", "[postgres]\nwal_sender_timeout = \"2s\"\n")
}

/// One call that has to go well; what walhook said of it otherwise.
async fn call(service: &Service, method: &str, path: &str, body: &Value) -> Value {
    let reply = tried(service, method, path, body).await;
    let log = service.program.output().join("\n");
    assert!(reply.status.as_u16() < 300, "{method} {path}: {} {}\n{log}", reply.status, reply.body);
    reply.json()
}

async fn tried(service: &Service, method: &str, path: &str, body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    exchange(service.http, method, path, None, &body).await.unwrap()
}

fn document(receiver: &Receiver, name: &str) -> Value {
    let url = receiver.url();
    json!({ "name": name, "url": format!("{}/{name}", url.trim_end_matches('/')) })
}

/// How many requests have come to an endpoint.
fn at(receiver: &Receiver, name: &str) -> usize {
    receiver.requests().iter().filter(|request| request.path.ends_with(&format!("/{name}"))).count()
}

async fn wait_for_at(receiver: &Receiver, name: &str, count: usize) {
    let deadline = Instant::now() + AMPLE;
    while at(receiver, name) < count {
        assert!(Instant::now() < deadline, "{name} got {} of {count}", at(receiver, name));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The states of the endpoints as a member shows them, by name.
async fn shown(service: &Service) -> BTreeMap<String, String> {
    let listed = call(service, "GET", "/api/v1/endpoints", &Value::Null).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let listed = listed["endpoints"].as_array().unwrap().iter();
    listed.map(|endpoint| (text(&endpoint["name"]), text(&endpoint["state"]))).collect()
}

#[tokio::test]
async fn what_one_member_makes_changes_pauses_and_removes_holds_at_all() {
    let test = "what_one_member_makes_changes_pauses_and_removes_holds_at_all";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = &wanted(toml);
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut first = Service::start_as(DELIVER, toml).await;
    let mut second = Service::start_as(DELIVER, toml).await;
    for (number, member) in [&tail, &first, &second].into_iter().enumerate() {
        let name = format!("made{number}");
        let made = call(member, "POST", "/api/v1/endpoints", &document(receiver, &name)).await;
        assert_eq!(made["source"], "api", "{made:#}");
        // With the answer it holds: the next row goes to it.
        write(sql, number..number + 1, 0).await;
        for earlier in 0..=number {
            wait_for_at(receiver, &format!("made{earlier}"), number + 1 - earlier).await;
        }
        // Of one name there is one, whoever is asked.
        for other in [&tail, &first, &second] {
            let reply = tried(other, "POST", "/api/v1/endpoints", &document(receiver, &name)).await;
            assert_eq!(reply.status, 409, "{}", reply.body);
            let all = shown(other).await;
            assert_eq!(all.len(), ENDPOINTS + number + 1, "{all:?}");
        }
    }
    // Another URL, by another member.
    let other = document(receiver, "elsewhere");
    let patch = json!({ "url": other["url"], "secret": SECRET });
    call(&second, "PATCH", "/api/v1/endpoints/made0", &patch).await;
    let masked = call(&first, "GET", "/api/v1/endpoints/made0", &Value::Null).await;
    assert_eq!(masked["endpoint"]["secret"], "[secret]", "{masked:#}");
    write(sql, 10..11, 0).await;
    wait_for_at(receiver, "elsewhere", 1).await;
    let sent = receiver.requests();
    let signed = sent.iter().find(|request| request.path.ends_with("elsewhere")).unwrap();
    assert!(!signed.header("webhook-signature").is_empty(), "the secret is known to its owner");
    // What is removed gets nothing more, and is gone everywhere when nothing is owed to it.
    call(&tail, "DELETE", "/api/v1/endpoints/made1", &Value::Null).await;
    wait_for_text(sql, "SELECT count(*) FROM walhook.endpoints", "2").await;
    let before = at(receiver, "made1");
    write(sql, 12..14, 0).await;
    wait_for_at(receiver, "made2", 4).await;
    for member in [&tail, &first, &second] {
        let deadline = Instant::now() + AMPLE;
        while shown(member).await.contains_key("made1") {
            assert!(Instant::now() < deadline, "made1 is there still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(
            tried(member, "DELETE", "/api/v1/endpoints/made1", &Value::Null).await.status,
            404
        );
    }
    assert_eq!(at(receiver, "made1"), before);
    // Its name may be given again.
    call(&second, "POST", "/api/v1/endpoints", &document(receiver, "made1")).await;
    write(sql, 14..15, 0).await;
    wait_for_at(receiver, "made1", before + 1).await;
    // Names stay, and what changes them is said.
    let rename =
        tried(&first, "POST", "/api/v1/endpoints/made1/rename", &json!({ "name": "x" })).await;
    assert_eq!(rename.status, 409, "{}", rename.body);
    for member in [&mut first, &mut second, &mut tail] {
        member.stop().await;
    }
    // Alone it finds all of them, and changes them by itself.
    let mut alone = Service::start(toml).await;
    write(sql, 15..16, 0).await;
    wait_for_at(receiver, "made1", before + 2).await;
    call(&alone, "DELETE", "/api/v1/endpoints/made2", &Value::Null).await;
    wait_for_text(sql, "SELECT count(*) FROM walhook.endpoints", "2").await;
    alone.stop().await;
    wait_for_text(sql, UNBALANCED, "").await;
}

#[tokio::test]
async fn a_pause_holds_back_what_is_written_after_the_answer_whichever_member_is_asked() {
    let test = "a_pause_holds_back_what_is_written_after_the_answer_whichever_member_is_asked";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = &wanted(toml);
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut first = Service::start_as(DELIVER, toml).await;
    let mut second = Service::start_as(DELIVER, toml).await;
    call(&tail, "POST", "/api/v1/endpoints", &document(receiver, "made1")).await;
    for round in 0..3 {
        let members = [&tail, &first, &second];
        let asked = |step: usize| members[(round + step) % 3];
        call(asked(0), "POST", "/api/v1/endpoints/made1/pause", &json!({})).await;
        call(asked(1), "POST", "/api/v1/endpoints/e3/pause", &json!({})).await;
        for member in members {
            let all = shown(member).await;
            assert_eq!((&*all["made1"], &*all["e3"]), ("paused", "paused"), "{all:?}");
        }
        let before = (at(receiver, "made1"), at(receiver, "e3"));
        write(sql, round..round + 1, 0).await;
        let parked = "SELECT string_agg(endpoint || ' ' || reason, ', ' ORDER BY endpoint) FROM walhook.backlog";
        wait_for_text(sql, parked, "e3 paused, made1 paused").await;
        assert_eq!((at(receiver, "made1"), at(receiver, "e3")), before);
        // A test goes out from any member all the same.
        let tested = call(asked(2), "POST", "/api/v1/endpoints/made1/test", &json!({})).await;
        assert_eq!(tested["delivered"], true, "{tested:#}");
        call(asked(1), "POST", "/api/v1/endpoints/made1/resume", &json!({})).await;
        call(asked(2), "POST", "/api/v1/endpoints/e3/resume", &json!({})).await;
        wait_for_at(receiver, "made1", before.0 + 2).await;
        wait_for_at(receiver, "e3", before.1 + 1).await;
    }
    wait_for_text(sql, "SELECT count(*) FROM walhook.backlog", "0").await;
    for member in [&mut first, &mut second, &mut tail] {
        member.stop().await;
    }
}

/// What comes for an endpoint when it is removed already becomes dead letters, also where its owner never knew it.
#[tokio::test]
async fn what_is_in_the_stream_for_an_endpoint_that_is_removed_meanwhile_becomes_dead_letters() {
    let test = "what_is_in_the_stream_for_an_endpoint_that_is_removed_meanwhile";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = &wanted(toml);
    let mut tail = Service::start_as(TAIL, toml).await;
    call(&tail, "POST", "/api/v1/endpoints", &document(receiver, "made")).await;
    call(&tail, "POST", "/api/v1/endpoints", &document(receiver, "kept")).await;
    write(sql, 0..10, 1).await;
    // The tail has read them, and they are in the stream.
    tail.wait_for_metric("walhook_deliveries_pending{endpoint=\"made\",where=\"memory\"}", 20.0)
        .await;
    call(&tail, "DELETE", "/api/v1/endpoints/made", &Value::Null).await;
    write(sql, 10..20, 1).await;
    let mut worker = Service::start_as(DELIVER, toml).await;
    wait_for_at(receiver, "kept", 40).await;
    let dead = "SELECT count(*) FROM walhook.dead_letters WHERE endpoint = 'made'";
    wait_for_text(sql, dead, "20").await;
    wait_for_text(sql, "SELECT string_agg(name, ' ') FROM walhook.endpoints", "kept").await;
    assert_eq!(at(receiver, "made"), 0);
    wait_for_text(sql, UNBALANCED, "").await;
    worker.stop().await;
    tail.stop().await;
}

/// An owner gets events for endpoints that it has never heard of: it looks before it decides.
#[tokio::test]
async fn members_that_die_while_endpoints_come_and_go_lose_and_reorder_nothing() {
    let test = "members_that_die_while_endpoints_come_and_go_lose_and_reorder_nothing";
    let late = Answer::status(200).after(Duration::from_millis(2));
    let Some(node) = one_node(test, always(late)).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = &wanted(toml);
    let mut members = [
        Service::start_as(TAIL, toml).await,
        Service::start_as(DELIVER, toml).await,
        Service::start_as(DELIVER, toml).await,
    ];
    let rounds = 6;
    for round in 0..rounds {
        let writer = node.database.sql().await;
        // Whoever is asked is not the one that dies.
        let asked = &members[(round + 1) % members.len()];
        let name = format!("made{round}");
        let changes = async {
            call(asked, "POST", "/api/v1/endpoints", &document(receiver, &name)).await;
            if round >= 2 {
                let path = format!("/api/v1/endpoints/made{}", round - 2);
                call(asked, "DELETE", &path, &Value::Null).await;
            }
        };
        tokio::join!(write(&writer, round * 20..round * 20 + 20, 3), changes);
        // What is written from here on is for the endpoint.
        write(sql, 1000 + round..1001 + round, 2).await;
        let dying = round % members.len();
        members[dying].program.kill();
        members[dying].program.wait(AMPLE).await;
        let role = if dying == 0 { TAIL } else { DELIVER };
        members[dying] = Service::start_as(role, toml).await;
        wait_for_versions(sql, receiver, &name, 1000 + round).await;
    }
    // Those of the configuration have got everything, and in order.
    let deadline = Instant::now() + AMPLE;
    let all = (rounds * 20 * 4 + rounds * 3) * ENDPOINTS;
    let of_file = |receiver: &Receiver| {
        told(&receiver.requests()).keys().filter(|(path, ..)| !path.contains("made")).count()
    };
    while of_file(receiver) < all {
        assert!(Instant::now() < deadline, "{} of {all}", of_file(receiver));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_for_text(sql, "SELECT count(*) FROM walhook.endpoints", "2").await;
    wait_for_text(sql, UNBALANCED, "").await;
    for member in members.iter_mut().rev() {
        member.stop().await;
    }
}

/// Waits until an endpoint was told of the three versions of a row.
async fn wait_for_versions(sql: &Sql, receiver: &Receiver, name: &str, row: usize) {
    let deadline = Instant::now() + AMPLE;
    loop {
        let told = told(&receiver.requests());
        let is_it = |(path, id, _): &&(String, u64, u64)| {
            path.ends_with(&format!("/{name}")) && *id == row as u64
        };
        if told.keys().filter(is_it).count() == 3 {
            return;
        }
        let state = "SELECT string_agg(concat_ws(' ', partition, at_source, member, lease_until > now(), settled_lsn), '; ') FROM walhook.progress";
        assert!(Instant::now() < deadline, "{name} lacks {row}: {}", sql.text(state).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is wanted of an endpoint at once is carried out by the owner of its partition.
#[tokio::test]
async fn a_try_at_once_and_the_end_of_a_410_reach_the_owner_whichever_member_is_asked() {
    let test = "a_try_at_once_and_the_end_of_a_410_reach_the_owner_whichever_member_is_asked";
    let answer = |e0: u16, e1: u16| {
        move |request: &Request| match &request.path {
            path if path.ends_with("/e0") => Answer::status(e0),
            path if path.ends_with("/e1") => Answer::status(e1),
            _ => Answer::status(200),
        }
    };
    let Some(node) = one_node(test, Arc::new(answer(503, 410))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = &wanted(toml).replace(
        "name = \"e0\"\n",
        "name = \"e0\"\nbreaker = false\nretry = { delays = [\"1h\", \"1h\"] }\n",
    );
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut first = Service::start_as(DELIVER, toml).await;
    let mut second = Service::start_as(DELIVER, toml).await;
    // One is asked of each: it may have neither partition.
    for (round, member) in [&tail, &first, &second].into_iter().enumerate() {
        receiver.behave(Arc::new(answer(503, 410)));
        write(sql, round * 2..round * 2 + 1, 0).await;
        wait_for_text(sql, "SELECT string_agg(endpoint, ' ') FROM walhook.backlog", "e0").await;
        let dead = "SELECT count(*) FROM walhook.dead_letters WHERE endpoint = 'e1'";
        wait_for_text(sql, dead, &(round + 1).to_string()).await;
        receiver.behave(Arc::new(answer(200, 200)));
        let (e0, e1) = (at(receiver, "e0"), at(receiver, "e1"));
        call(member, "POST", "/api/v1/endpoints/e1/enable", &json!({})).await;
        call(member, "POST", "/api/v1/endpoints/e0/try-now", &json!({})).await;
        wait_for_at(receiver, "e0", e0 + 1).await;
        wait_for_text(sql, "SELECT count(*) FROM walhook.endpoint_orders", "0").await;
        wait_for_text(sql, "SELECT count(*) FROM walhook.backlog", "0").await;
        write(sql, round * 2 + 1..round * 2 + 2, 0).await;
        wait_for_at(receiver, "e1", e1 + 1).await;
        wait_for_at(receiver, "e0", e0 + 2).await;
    }
    for member in [&mut first, &mut second, &mut tail] {
        member.stop().await;
    }
}

/// A worker that cannot take an endpoint up lets go of its partition: what comes for it waits for one that can.
#[tokio::test]
async fn an_event_for_an_endpoint_that_its_owner_cannot_serve_waits_for_an_owner_that_can() {
    let test = "an_event_for_an_endpoint_that_its_owner_cannot_serve_waits";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = &wanted(toml);
    let few = format!("{toml}\n[memory]\nendpoints = {ENDPOINTS}\n");
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut lacking = Service::start_as(DELIVER, &few).await;
    call(&tail, "POST", "/api/v1/endpoints", &document(receiver, "made")).await;
    write(sql, 0..5, 0).await;
    lacking.program.wait_for_line("endpoint made cannot be served", AMPLE).await;
    let dead = "SELECT count(*) FROM walhook.dead_letters";
    assert_eq!(sql.text(dead).await, "0");
    let mut able = Service::start_as(DELIVER, toml).await;
    lacking.stop().await;
    wait_for_at(receiver, "made", 5).await;
    wait_for_text(sql, UNBALANCED, "").await;
    assert_eq!(sql.text(dead).await, "0");
    able.stop().await;
    tail.stop().await;
}

/// The tail seals anew what was sealed with a key that is not the first any more, as one process does.
#[tokio::test]
async fn a_tail_with_another_first_key_seals_secrets_anew() {
    let test = "a_tail_with_another_first_key_seals_secrets_anew";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = &wanted(toml);
    let mut tail = Service::start_as(TAIL, toml).await;
    for name in ["one", "two"] {
        let mut document = document(receiver, name);
        document["secret"] = json!(SECRET);
        call(&tail, "POST", "/api/v1/endpoints", &document).await;
    }
    tail.stop().await;
    let sealed = "SELECT string_agg(encode(sealed_secrets, 'hex'), ' ' ORDER BY name) FROM walhook.endpoints";
    let before = sql.text(sealed).await;
    let other = "HxwdHhsYGRoXFBUWExAREg8MDQ4LCAkKBwQFBgMAAQI=";
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let both =
        toml.replacen(&format!("key = \"{key}\""), &format!("key = [\"{other}\", \"{key}\"]"), 1);
    let mut tail = Service::start_as(TAIL, &both).await;
    for _ in 0..2 {
        tail.program.wait_for_line("secrets are sealed with the first key", AMPLE).await;
    }
    let deadline = Instant::now() + AMPLE;
    while before.split(' ').zip(sql.text(sealed).await.split(' ')).any(|(old, new)| old == new) {
        assert!(Instant::now() < deadline, "{}", tail.program.output().join("\n"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tail.stop().await;
    let mut worker = Service::start_as(DELIVER, &toml.replacen(key, other, 1)).await;
    worker.stop().await;
}
