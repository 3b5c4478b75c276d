//! Another name for an endpoint of a source that members share.

use std::num::NonZeroU16;
use std::time::Duration;

use serde_json::json;
use walhook::testing::flow::partition::PartitionNumber;

use super::DELIVER;
use super::ENDPOINTS;
use super::OneNode;
use super::TAIL;
use super::one_node;
use super::wait_for_all;
use super::write;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// A name of another partition than that of `e0`.
fn name_elsewhere() -> String {
    let of = |name: &str| PartitionNumber::of_endpoint(name, NonZeroU16::new(4).unwrap());
    let mut names = (0..).map(|number| format!("renamed{number}"));
    names.find(|name| of(name) != of("e0")).unwrap()
}

/// One endpoint has taken nothing yet when members are killed, and has another name in the file of those that follow.
async fn is_whole_under_another_name(test: &str, roles: &[&[&str]]) {
    let late = Answer::status(200).after(Duration::from_secs(3600));
    let answer = move |request: &Request| match request.path.ends_with("e0") {
        true => late.clone(),
        false => Answer::status(200),
    };
    let Some(node) = one_node(test, std::sync::Arc::new(answer)).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = toml.replace("[webhook]\n", "[webhook]\ntimeout = \"1h\"\n");
    let tail = Service::start_as(TAIL, &toml).await;
    let worker = Service::start_as(DELIVER, &toml).await;
    write(sql, 0..10, 2).await;
    let others = "SELECT sum(delivered) FROM walhook.balance WHERE endpoint <> 'e0'";
    wait_for_text(sql, others, &(30 * (ENDPOINTS - 1)).to_string()).await;
    for mut member in [worker, tail] {
        member.program.kill();
        member.program.wait(AMPLE).await;
    }
    receiver.behave(always(Answer::status(200)));
    let name = name_elsewhere();
    let toml = toml.replace("name = \"e0\"", &format!("name = \"{name}\"\nrenamed_from = \"e0\""));
    let mut members = Vec::new();
    for role in roles {
        members.push(Service::start_as(role, &toml).await);
    }
    write(sql, 10..20, 2).await;
    wait_for_all(sql, receiver, 20, 2).await;
    let books = "SELECT string_agg(delivered::text, ' ') FROM walhook.balance WHERE endpoint ~ 'renamed|e0'";
    assert_eq!(sql.text(books).await, "60", "{name}");
    for member in &mut members {
        member.stop().await;
    }
}

#[tokio::test]
async fn what_an_endpoint_of_the_file_is_owed_comes_under_its_other_name_of_another_partition() {
    let test = "what_an_endpoint_of_the_file_is_owed_comes_under_its_other_name";
    is_whole_under_another_name(test, &[DELIVER, TAIL]).await;
}

#[tokio::test]
async fn what_an_endpoint_is_owed_comes_under_another_name_when_one_process_follows_on_several() {
    let test = "what_an_endpoint_is_owed_comes_under_another_name_when_one_process_follows";
    is_whole_under_another_name(test, &[&[]]).await;
}

#[tokio::test]
async fn an_endpoint_of_the_api_keeps_its_name_while_members_share_it_and_gets_another_one_alone() {
    let test = "an_endpoint_of_the_api_keeps_its_name_while_members_share_it";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = &format!(
        "{toml}[state]\nkey = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n\
         [endpoints]\nallow = [\"127.0.0.1\"]\n"
    );
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut worker = Service::start_as(DELIVER, toml).await;
    let url = receiver.url();
    let made = json!({ "name": "made", "url": format!("{}/made", url.trim_end_matches('/')) });
    let reply = tail.post("/api/v1/endpoints", &made).await;
    assert!(reply.status.is_success(), "{reply:?}");
    write(sql, 0..5, 0).await;
    let delivered = "SELECT string_agg(endpoint || ' ' || delivered, ', ') FROM walhook.balance
                      WHERE endpoint ~ 'made'";
    wait_for_text(sql, delivered, "made 5").await;
    for member in [&tail, &worker] {
        let refused =
            member.post("/api/v1/endpoints/made/rename", &json!({ "name": "made-b" })).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        // What to do instead, both ways.
        for part in ["dead-letters resend --endpoint made --to", "without --role", "docs/scale.md"]
        {
            assert!(refused.body.contains(part), "{part:?}: {refused:?}");
        }
        let (code, said) = member.cli(&["endpoints", "rename", "made", "made-b"]).await;
        assert!(code != Some(0) && said.contains("docs/scale.md"), "{said}");
    }
    worker.stop().await;
    tail.stop().await;
    let mut alone = Service::start(toml).await;
    let (code, said) = alone.cli(&["endpoints", "rename", "made", "made-b"]).await;
    assert_eq!(code, Some(0), "{said}");
    alone.stop().await;
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut worker = Service::start_as(DELIVER, toml).await;
    write(sql, 5..10, 0).await;
    wait_for_text(sql, delivered, "made-b 10").await;
    worker.stop().await;
    tail.stop().await;
}
