//! The ten things that are done at night, by clicking, from the Overview on: each needs as many clicks as
//! docs/page.md says.
#![expect(clippy::indexing_slicing, reason = "a test may stop at once")]

use serde_json::json;

use super::assert_sound;
use super::is_loaded;
use crate::support::browser::Page;
use crate::support::browser::browser;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::Service;
use crate::support::service::configuration;

const DOCS: &str = include_str!("../../../docs/page.md");

/// What the table says of each question: how many clicks, which is the last number of its cell.
fn said() -> Vec<(String, u64)> {
    let (_, from) = DOCS.split_once("## Ten things at night").unwrap();
    let rows = from.lines().filter(|line| line.starts_with("| ")).skip(2).take(10);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let mut numbers = cells[2].split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
        (cells[1].to_owned(), numbers.next_back().unwrap().parse().unwrap())
    };
    rows.map(row).collect()
}

/// An endpoint that is out of order with what waits and what is dead, and one that is gone.
struct Night {
    _database: Database,
    sql: Sql,
    service: Service,
    away: Receiver,
    good: Receiver,
    _gone: Receiver,
}

async fn night() -> Night {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    let refuse = |request: &Request| {
        Answer::status(if request.json()["data"]["id"].as_i64() > Some(100) { 422 } else { 503 })
    };
    let away = Receiver::start(std::sync::Arc::new(refuse));
    let good = Receiver::start(always(Answer::status(200)));
    let gone = Receiver::start(always(Answer::status(410)));
    let rest = "[endpoints]\nallow = [\"127.0.0.0/8\"]\n\n\
                [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n";
    let service = Service::start(&configuration(&database, rest)).await;
    let breaker = json!({ "failures": 3, "cooldown": "1h", "cap": "1h" });
    let crm = json!({ "name": "crm", "url": away.url(), "breaker": breaker, "retry": { "delays": ["1h"] } });
    let old = json!({ "name": "old", "url": gone.url() });
    for made in [crm, old] {
        let reply = service.post("/api/v1/endpoints", &made).await;
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    sql.batch_execute("INSERT INTO orders SELECT generate_series(101, 103)").await.unwrap();
    let dead = "SELECT count(*) FROM walhook.dead_letters";
    wait_for_text(&sql, dead, "6").await;
    sql.batch_execute("INSERT INTO orders SELECT generate_series(1, 9)").await.unwrap();
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "9").await;
    service.wait_for_metric("walhook_breaker_open{endpoint=\"crm\"}", 1.0).await;
    wait_for_text(&sql, dead, "15").await;
    Night { _database: database, sql, service, away, good, _gone: gone }
}

impl Night {
    async fn overview(&self, page: &Page) {
        // Not by another place of the same page: what was open is closed.
        page.open("about:blank").await;
        page.open(&format!("http://{}/#/overview", self.service.http)).await;
        is_loaded(page, "Overview").await;
        page.take_clicks();
    }

    /// Does one of the things, and looks whether it is done.
    async fn answer(&self, page: &Page, question: &str) {
        let unwell = "[...document.querySelectorAll('.plain li')].find((one) => one.innerText.startsWith('crm'))";
        match question {
            "which customer is it?" => page.shows("endpoint crm").await,
            "since when?" => {
                page.wait_for(&format!("{unwell}?.innerText.includes('since ')")).await
            }
            "why?" => {
                page.press("crm").await;
                let why = "[...document.querySelectorAll('.facts dt')].find((one) => one.textContent === 'Last failure')?.nextSibling.innerText";
                page.wait_for(&format!("/503/.test({why})")).await;
            }
            "pause him" => {
                page.press("crm").await;
                page.press("Pause").await;
                page.shows("paused by").await;
                self.service.cli(&["endpoints", "resume", "crm"]).await;
            }
            "fix the URL" => {
                page.press("crm").await;
                page.press("Change the address").await;
                page.wait_for("document.activeElement?.name === 'url'").await;
                page.write(&self.good.url()).await;
                page.press("Change").await;
                page.shows("The address is changed").await;
                wait_for_text(&self.sql, "SELECT count(*) FROM walhook.backlog", "0").await;
                // And everything as it was, for the next one.
                let back = json!({ "url": self.away.url() });
                let patch = self.service.program.home().join("patch.json");
                std::fs::write(&patch, back.to_string()).unwrap();
                let file = patch.display().to_string();
                let (code, said) = self.service.cli(&["endpoints", "update", "crm", &file]).await;
                assert_eq!(code, Some(0), "{said}");
                self.sql
                    .batch_execute("INSERT INTO orders SELECT generate_series(11, 19)")
                    .await
                    .unwrap();
                wait_for_text(&self.sql, "SELECT count(*) FROM walhook.backlog", "9").await;
            }
            "try now" => {
                page.press("crm").await;
                let before = self.away.count();
                page.press("Try now").await;
                self.away.wait_for(before + 1, crate::support::service::AMPLE).await;
            }
            "send the dead again" => {
                page.press("crm").await;
                let number = "[...document.querySelectorAll('.facts a')].find((one) => one.textContent === '3')";
                page.wait_for(number).await;
                page.press("3").await;
                page.press("Send again …").await;
                page.press("Send 3 again").await;
                page.shows("Being sent again").await;
                let asked = "SELECT count(*) FROM walhook.dead_letters WHERE endpoint = 'crm' AND state <> 'dead'";
                wait_for_text(&self.sql, asked, "3").await;
            }
            "discard by reason" => {
                page.press("Dead letters").await;
                page.press("gone").await;
                page.press("Discard …").await;
                page.wait_for("Number(document.querySelector('#count')?.textContent) > 0").await;
                page.click("dialog button.danger").await;
                page.shows("are discarded").await;
                let left = "SELECT count(*) FROM walhook.dead_letters WHERE state = 'dead' AND failure_class = 'gone'";
                wait_for_text(&self.sql, left, "0").await;
            }
            "is the WAL safe?" => page.shows("WAL kept for the slot").await,
            "who holds the slot?" => {
                page.press("Source").await;
                page.shows("this process").await;
            }
            other => unreachable!("{other}: say here how it is done on the page"),
        }
    }
}

#[tokio::test]
async fn each_of_the_ten_things_at_night_takes_as_many_clicks_as_is_said() {
    let test = "each_of_the_ten_things_at_night_takes_as_many_clicks_as_is_said";
    let Some(browser) = browser(test).await else { return };
    let night = night().await;
    let page = browser.page("en").await;
    let said = said();
    assert_eq!(said.len(), 10, "{said:?}");
    for (question, clicks) in said {
        night.overview(&page).await;
        night.answer(&page, &question).await;
        assert_eq!(page.take_clicks(), clicks, "{question}");
    }
    page.picture("night").await;
    assert_sound(&page, "night").await;
}
