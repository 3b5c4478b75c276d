//! The ten things that are done at night, as docs/page.md has them: each command there runs, and does it.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use serde_json::Value;
use serde_json::json;

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const PAGE: &str = include_str!("../../docs/page.md");

/// The commands of the table, by what they are for.
fn commands() -> Vec<(String, Vec<String>)> {
    let (_, from) = PAGE.split_once("## Ten things at night").unwrap();
    let table = from.lines().filter(|line| line.starts_with("| ")).skip(2);
    let row = |line: &str| {
        let line = line.replace("\\|", "\u{1}");
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let texts = cells[3].split('`').skip(1).step_by(2);
        (cells[1].to_owned(), texts.map(|text| text.replace('\u{1}', "|")).collect())
    };
    table.take(10).map(row).collect()
}

#[tokio::test]
async fn each_command_of_the_ten_things_at_night_does_it() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    let away = Receiver::start(always(Answer::status(503)));
    let good = Receiver::start(always(Answer::status(200)));
    let rest = "[endpoints]\nallow = [\"127.0.0.0/8\"]\n\n\
                [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n";
    let mut service = Service::start(&configuration(&database, rest)).await;
    let breaker = json!({ "failures": 3, "cooldown": "1h", "cap": "1h" });
    let made = json!({ "name": "crm", "url": away.url(), "breaker": breaker,
                       "retry": { "delays": ["1h"] } });
    let reply = service.post("/api/v1/endpoints", &made).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    sql.batch_execute("INSERT INTO orders SELECT generate_series(1, 9)").await.unwrap();
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "9").await;
    service.wait_for_metric("walhook_breaker_open{endpoint=\"crm\"}", 1.0).await;

    let commands = commands();
    assert_eq!(commands.len(), 10, "{commands:?}");
    let mut ran = 0;
    for (question, texts) in &commands {
        for text in texts {
            let words = match text.split_once(" | walhook ") {
                Some((before, rest)) => {
                    // What is piped in is a file here.
                    let patch = json!({ "url": good.url() }).to_string();
                    assert!(before.starts_with("echo '{\"url\": "), "{before}");
                    let file = service.program.home().join("patch.json");
                    std::fs::write(&file, patch).unwrap();
                    rest.replace(" -", &format!(" {}", file.display()))
                }
                None => text.strip_prefix("walhook ").unwrap().to_owned(),
            };
            let command = words.split(" | ").next().unwrap();
            let args: Vec<&str> = command.split(' ').collect();
            if question.starts_with("send the dead") || question.starts_with("discard") {
                // Something to do it with.
                let state = "UPDATE walhook.dead_letters SET state = 'dead', closed_at = NULL";
                sql.batch_execute(state).await.unwrap();
            }
            let (code, said) = service.cli(&args).await;
            assert!(matches!(code, Some(0 | 1)), "{question}: {text}: {code:?} {said}");
            let wanted = match question.as_str() {
                "which customer is it?" => "crm",
                "since when?" => "since",
                "why?" => "503",
                "pause him" => "crm: paused",
                "fix the URL" | "try now" => "crm: ",
                "send the dead again" => "letters to be sent again",
                "discard by reason" => "discarded",
                "is the WAL safe?" => "WAL",
                "who holds the slot?" => "\"holder\"",
                other => unreachable!("{other}: say here what its command tells"),
            };
            assert!(said.contains(wanted), "{question}: {text} says no {wanted:?}: {said}");
            ran += 1;
        }
        if question == "fix the URL" {
            assert_eq!(service.cli(&["endpoints", "resume", "crm"]).await.0, Some(0));
            good.wait_for(9, AMPLE).await;
        }
    }
    assert!(ran >= 10, "{ran}");
    let status: Value = service.get("/api/v1/status").await.json();
    assert_eq!(status["healthy"], true, "{status:#}");
    service.stop().await;
}
