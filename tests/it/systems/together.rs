//! The five shipped configurations side by side: one database, a slot and a publication of its own each.

use super::*;
use crate::support::service::http_address;

const NAMES: [&str; 5] =
    ["ocr-wallet", "customer-events", "idp-push", "wechat-messages", "wecom-callbacks"];

#[tokio::test]
async fn the_five_configurations_run_beside_each_other_on_one_database() {
    let database = Database::create().await;
    let sql = database.sql().await;
    let [wallet, business] = [(); 2].map(|()| receiver(|_| true, &[200]));
    let robot = Receiver::start(always(Answer::status(200).body(r#"{"errcode": 0}"#)));
    let url = database.url();
    let (wallet_url, business_url, robot_url) = (wallet.url(), business.url(), robot.url());
    let subscriptions =
        concat!(env!("CARGO_MANIFEST_DIR"), "/config/customer-events.subscriptions.json");
    // 43 characters, as WeCom makes them.
    let aes_key = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ";
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("OCR_WALLET_URL", wallet_url.as_str()),
        ("CUSTOMER_EVENTS_SUBSCRIPTIONS", subscriptions),
        ("IDP_SIGNING_SECRET", SECRET),
        ("WALHOOK_KEY", KEY),
        ("WALHOOK_INBOUND_LISTEN", "127.0.0.1:0"),
        ("WECHAT_TOKEN", "token"),
        ("WECHAT_AES_KEY", aes_key),
        ("WECHAT_CORP_ID", "ww0123456789abcdef"),
        ("WECHAT_CORP_SECRET", "corp-secret"),
        ("WECHAT_AGENT_ID", "1000002"),
        ("WECHAT_BASE_URL", "http://127.0.0.1:9"),
        ("WECHAT_BOT_TOKEN", "token"),
        ("WECHAT_BOT_AES_KEY", aes_key),
        ("WECHAT_BOT_WEBHOOK_URL", robot_url.as_str()),
        ("BUSINESS_URL", business_url.as_str()),
        ("BUSINESS_SECRET", "a secret of business systems"),
    ];
    let mut programs = Vec::new();
    for name in NAMES {
        sql.batch_execute(&read(&format!("sql/{name}.sql"))).await.unwrap();
        let toml = read(&format!("config/{name}.toml")) + "\n[http]\nlisten = \"127.0.0.1:0\"\n";
        let mut check = Program::start(&["check"], &toml, &env);
        let code = check.wait(AMPLE).await;
        assert_eq!(code, Some(0), "{name}: {}", check.output().join("\n"));
        let mut program = Program::start(&["run"], &toml, &env);
        let line = program.wait_for_line("walhook is running", AMPLE).await;
        programs.push((name, program, http_address(&line)));
    }
    sql.batch_execute(
        "INSERT INTO ocr_wallet_info (wallet_code) VALUES ('A1');
         INSERT INTO wecom_messages (message_id, channel, to_user, content)
             VALUES ('m1', 'robot', 'u', 'hello');
         INSERT INTO tasks (id, rule_id, status) VALUES ('T_1', 7, 'COMPLETED');
         INSERT INTO messages (key, msg_id, from_user, to_user, msg_type, content)
             VALUES ('k', 1, 'a', 'b', 1, '\"x\"');
         INSERT INTO wecom_callbacks (source, kind, event, fields, dedupe_key)
             VALUES ('wechat-api', 'message', 'text', '{}', 'd1');",
    )
    .await
    .unwrap();
    assert_eq!(wallet.wait_for(1, AMPLE).await[0].json()["data"]["wallet_code"], "A1");
    let callback = business.wait_for(1, AMPLE).await;
    assert_eq!(callback[0].json()["type"], "wecom.callback");
    robot.wait_for(1, AMPLE).await;
    // A rule without webhooks.
    wait_for_text(&sql, "SELECT status FROM tasks", "PUSH_SUCCESS").await;
    for (name, _, http) in &programs {
        let ready = crate::support::service::ask(*http, "GET", "/ready", None).await.unwrap();
        assert_eq!(ready.status, 200, "{name}: {}", ready.body);
    }
    let slots = "SELECT string_agg(slot_name || ' ' || active, ',' ORDER BY slot_name)
        FROM pg_replication_slots WHERE database = current_database()";
    let expected = "customer_events true,idp_push true,ocr_wallet true,wechat_messages true,wecom_callbacks true";
    assert_eq!(sql.text(slots).await, expected);
    for (name, program, _) in &mut programs {
        program.terminate();
        assert_eq!(program.wait(AMPLE).await, Some(0), "{name}: {}", program.output().join("\n"));
    }
    assert_eq!((wallet.count(), business.count(), robot.count()), (1, 1, 1));
}
