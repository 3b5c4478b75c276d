//! Messages out by a WeCom application, and what becomes of them: with `config/wecom-callbacks.toml`.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use crate::inbound::CORP_SECRET;
use crate::inbound::SQL;
use crate::inbound::inbound;
use crate::inbound::shipped;
use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::slot;
use crate::support::wecom::APPLICATION;
use crate::support::wecom::CORP;
use crate::support::wecom::now;
use crate::support::wecom::post;

const ACCESS_TOKEN: &str = "access-token-hunter2";

/// Answers by what a message says; its third token is the first that it takes.
fn answer(request: &Request, tokens: &AtomicU32) -> Answer {
    let ok = |body: String| Answer::status(200).body(body);
    if request.path.starts_with("/cgi-bin/gettoken?") {
        let number = tokens.fetch_add(1, SeqCst) + 1;
        return ok(format!(
            r#"{{"errcode":0,"errmsg":"ok","access_token":"{ACCESS_TOKEN}-{number}","expires_in":7200}}"#
        ));
    }
    if request.path != format!("/cgi-bin/message/send?access_token={ACCESS_TOKEN}-2") {
        return ok(format!(r#"{{"errcode":40014,"errmsg":"invalid {}"}}"#, request.path));
    }
    let message = request.json();
    assert_eq!(message.pointer("/agentid").unwrap(), 1_000_002);
    match message.pointer("/text/content").unwrap().as_str().unwrap() {
        "nobody" => ok(format!(
            r#"{{"errcode":81013,"errmsg":"user & party & tag all invalid, {ACCESS_TOKEN}-2 {CORP_SECRET}"}}"#
        )),
        "some" => ok(String::from(
            r#"{"errcode":0,"errmsg":"ok","msgid":"msg-some","invaliduser":"li|wang"}"#,
        )),
        other => ok(format!(r#"{{"errcode":0,"errmsg":"ok","msgid":"msg-{other}"}}"#)),
    }
}

fn event(name: &str, members: &str) -> String {
    format!(
        "<xml><ToUserName><![CDATA[{CORP}]]></ToUserName><FromUserName><![CDATA[zhang]]></FromUserName>\
         <CreateTime>{}</CreateTime><MsgType><![CDATA[event]]></MsgType><Event><![CDATA[{name}]]></Event>\
         {members}<AgentID>1000002</AgentID></xml>",
        now()
    )
}

#[tokio::test]
async fn a_message_goes_out_and_comes_back_as_steps_of_its_history() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(SQL).await.unwrap();
    sql.batch_execute(SQL).await.unwrap(); // safe to run again
    let business = Receiver::start(always(Answer::status(200)));
    let tokens = Arc::new(AtomicU32::new(0));
    let issued = Arc::clone(&tokens);
    let wecom = Receiver::start(Arc::new(move |request: &Request| answer(request, &issued)));
    let base = wecom.url().replace("/hooks", "");
    let robot = "http://127.0.0.1:9/";
    let config = shipped(&database.url(), &slot(&database), &business.url(), robot, &base);
    let config = config.replace(
        "kind = \"wecom\"\n",
        "kind = \"wecom\"\nkinds = { gateway_read = \"status\" }\n\
         status = { event = \"gateway_read\", message = \"fields.Receipt\", state = \"fields.State\" }\n",
    );
    let mut check = Program::start(&["check"], &config, &[]);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{}", check.output().join("\n"));
    let mut service = Service::start(&config).await;
    let at = inbound(&mut service.program).await;
    for content in ["tea", "some", "nobody"] {
        let row = format!(
            "INSERT INTO wecom_messages (message_id, to_user, content) \
             VALUES ('of-{content}', 'zhang|li|wang', '{content}')"
        );
        sql.batch_execute(&row).await.unwrap();
    }
    let history = |id: &str| {
        format!(
            "SELECT coalesce(string_agg(concat_ws(' ', state, user_id), ', ' ORDER BY id), '')
               FROM wecom_message_history WHERE message_id = '{id}'"
        )
    };
    let status =
        |id: &str| format!("SELECT status FROM wecom_message_status WHERE message_id = '{id}'");
    wait_for_text(&sql, &history("of-tea"), "pending, sent").await;
    wait_for_text(&sql, &history("of-some"), "pending, sent, failed li, failed wang").await;
    wait_for_text(&sql, &status("of-some"), "sent").await;
    wait_for_text(&sql, &history("of-nobody"), "pending, failed").await;
    let detail = "SELECT detail::text FROM wecom_message_history
                   WHERE message_id = 'of-nobody' AND state = 'failed'";
    let detail: String = sql.query_one(detail, &[]).await.unwrap().get(0);
    for part in ["\"errcode\": \"81013\"", "all invalid"] {
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(tokens.load(SeqCst), 2, "the first was thrown away, once");

    let finished = "<MsgID>msg-tea</MsgID><Status><![CDATA[success]]></Status>";
    let call = APPLICATION.callback(&event("TEMPLATESENDJOBFINISH", finished), "m1");
    assert_eq!(post(at, &call).await.unwrap(), 200);
    wait_for_text(&sql, &history("of-tea"), "pending, sent, delivered zhang").await;
    let read = "<Receipt>msg-tea</Receipt><State>read</State>";
    let call = APPLICATION.callback(&event("gateway_read", read), "m2");
    assert_eq!(post(at, &call).await.unwrap(), 200);
    wait_for_text(&sql, &history("of-tea"), "pending, sent, delivered zhang, read zhang").await;
    wait_for_text(&sql, &status("of-tea"), "read").await;
    let told = business.wait_for(2, AMPLE).await;
    assert!(told.iter().all(|request| !request.header("webhook-signature").is_empty()));

    is_told_by_the_api(&service).await;

    let log = service.program.output().join("\n");
    let kept = "SELECT coalesce(string_agg(l::text, ' '), '') FROM walhook.push_log l";
    let kept: String = sql.query_one(kept, &[]).await.unwrap().get(0);
    let letters = "SELECT coalesce(string_agg(d::text, ' '), '') FROM walhook.dead_letters d";
    let letters: String = sql.query_one(letters, &[]).await.unwrap().get(0);
    assert!(kept.contains("msg-tea") && letters.contains("81013"));
    for (place, text) in
        [("log", &log), ("push log", &kept), ("letters", &letters), ("detail", &detail)]
    {
        assert!(!text.contains(ACCESS_TOKEN) && !text.contains(CORP_SECRET), "{place}: {text}");
    }
    service.stop().await;
}

/// By the application's id and by WeCom's.
async fn is_told_by_the_api(service: &Service) {
    for id in ["of-tea", "msg-tea"] {
        let answer = service.get(&format!("/api/v1/messages/{id}/status")).await;
        let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let data = answer.get("data").unwrap();
        let told = ["message_id", "msgid", "status"].map(|name| data.get(name).unwrap().clone());
        assert_eq!(told, ["of-tea", "msg-tea", "read"], "{answer}");
        assert_eq!(data.pointer("/users/0/user").unwrap(), "zhang");
        assert_eq!(data.pointer("/users/0/status").unwrap(), "read");
        let answer = service.get(&format!("/api/v1/messages/{id}/history")).await;
        let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let steps = answer.get("data").unwrap().as_array().unwrap();
        let states = steps.iter().map(|step| step.get("state").unwrap().as_str().unwrap());
        assert_eq!(states.collect::<Vec<_>>(), ["pending", "sent", "delivered", "read"]);
    }
    assert_eq!(service.get("/api/v1/messages/nobody-knows/status").await.status, 404);
}
