//! Backfills by clicking: looked at first, begun, watched, paused, resumed, ended; and what is refused.

use serde_json::json;

use super::HOSTILE;
use super::assert_sound;
use super::is_loaded;
use crate::support::browser::Page;
use crate::support::browser::browser;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

/// A condition that is true, and would be something else were it taken for markup.
const WHERE: &str = "note <> '<img src=x onerror=\"window.hacked=1\"><b>{{7*7}}${7*7}'";

/// Two tables with rows from before: one whose rule does not ask for them, and one with a name that has to
/// be quoted.
struct OldRows {
    _database: Database,
    sql: Sql,
    receiver: Receiver,
    service: Service,
}

async fn old_rows() -> OldRows {
    let database = Database::create().await;
    let sql = database.sql().await;
    let note = HOSTILE.replace('\'', "''");
    let tables = format!(
        "CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric);
         INSERT INTO orders SELECT n, '{note}', n FROM generate_series(1, 400) AS n;
         CREATE TABLE \"<i>odd. \"\"name\" (id int PRIMARY KEY);
         INSERT INTO \"<i>odd. \"\"name\" SELECT generate_series(1, 7)"
    );
    sql.batch_execute(&tables).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let rules = format!(
        "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\
         [[event]]\ntype = \"odd\"\ntable = '\"<i>odd. \"\"name\"'\non = [\"insert\", \"read\"]\n\
         [[endpoint]]\nname = \"good\"\nurl = \"{}\"\n",
        receiver.url()
    );
    let service = Service::start(&configuration(&database, &rules)).await;
    OldRows { _database: database, sql, receiver, service }
}

impl OldRows {
    fn url(&self, place: &str) -> String {
        format!("http://{}/#/{place}", self.service.http)
    }

    async fn states(&self) -> String {
        let states = "SELECT string_agg(state, ' ' ORDER BY id) FROM walhook.backfills";
        self.sql.text(states).await
    }
}

/// Opens the form for a new one, from the list.
async fn ask_for_new(page: &Page) {
    page.press("New backfill …").await;
    page.wait_for("document.querySelectorAll('dialog input[name=tables]').length === 2").await;
}

/// Waits until the newest backfill of the list says this.
async fn newest_says(page: &Page, text: &str) {
    let row = "document.querySelector('#backfills tbody tr')?.innerText ?? ''";
    page.wait_for(&format!("({row}).includes({})", json!(text))).await;
}

/// Waits until the open dialog says this, and where it says it.
async fn dialog_says(page: &Page, place: &str, text: &str) {
    let found = format!("[...document.querySelectorAll('dialog {place}')]");
    page.wait_for(&format!("{found}.some((one) => one.innerText.includes({}))", json!(text))).await;
}

const ORDERS: &str = "dialog input[value='\"public\".\"orders\"']";

#[tokio::test]
async fn a_backfill_is_looked_at_begun_paused_resumed_and_ended_by_clicking() {
    let test = "a_backfill_is_looked_at_begun_paused_resumed_and_ended_by_clicking";
    let Some(browser) = browser(test).await else { return };
    let stage = old_rows().await;
    let page = browser.page("en").await;
    page.open(&stage.url("replays")).await;
    is_loaded(&page, "Replays").await;
    page.shows("No rows were sent from tables yet").await;
    ask_for_new(&page).await;
    let preview = "[...document.querySelectorAll('dialog button')].find((one) => one.textContent === 'Preview')";
    assert_eq!(page.eval(&format!("{preview}.disabled")).await, true, "of no table");
    page.key("Escape").await;
    page.wait_for("!document.querySelector('dialog')").await;
    ask_for_new(&page).await;

    // Nobody asks for the rows of this table: that is said, and refused as well.
    page.click(ORDERS).await;
    dialog_says(&page, "p", "no event type of it asks for rows").await;
    page.press("Preview").await;
    dialog_says(&page, "[role=alert]", "asks for rows").await;
    page.click("dialog select[name=as]").await;
    page.key("ArrowDown").await;
    page.key("Enter").await;
    page.wait_for("document.querySelector('dialog select[name=as]').value === 'order'").await;

    // What PostgreSQL says of a condition is shown where it was asked.
    page.fill("dialog textarea", "<b>nothing</b> = 1").await;
    page.press("Preview").await;
    dialog_says(&page, "[role=alert]", "PostgreSQL does not take `where`").await;
    page.picture("backfill-refused").await;
    assert_sound(&page, "a condition that is none").await;
    page.fill("dialog input[name=endpoints]", "good, nobody").await;
    page.fill("dialog textarea", WHERE).await;
    page.press("Preview").await;
    dialog_says(&page, "[role=alert]", "endpoint \"nobody\" is not configured").await;
    page.fill("dialog input[name=endpoints]", "good").await;

    // An estimate, the count, and what was counted begins; another rate is another question.
    page.press("Preview").await;
    dialog_says(&page, "td", "about ").await;
    page.press("Count").await;
    dialog_says(&page, "button", "Send 400 rows").await;
    page.fill("dialog input[name=rate]", "20").await;
    page.wait_for("![...document.querySelectorAll('dialog button')].some((one) => one.textContent.startsWith('Send'))").await;
    page.press("Preview").await;
    page.press("Count").await;
    dialog_says(&page, "button", "Send 400 rows").await;
    page.picture("backfill-preview").await;
    page.dark(true).await;
    page.size(400, 900).await;
    page.wait_for("document.querySelector('dialog').scrollWidth <= 400").await;
    page.picture("backfill-preview-narrow-dark").await;
    page.dark(false).await;
    page.size(1200, 800).await;
    assert_eq!(stage.states().await, "", "nothing has begun by looking");
    page.press("Send 400 rows").await;
    page.shows("Ordered: backfill 1").await;

    // How far it is, as it goes.
    newest_says(&page, "running").await;
    let bar = "document.querySelector('#backfills tbody progress')?.value";
    page.wait_for(&format!("{bar} > 0 && {bar} < 1")).await;
    newest_says(&page, "/s").await;
    newest_says(&page, " to go").await;
    newest_says(&page, WHERE).await;
    page.picture("backfill-running").await;
    assert_sound(&page, "a backfill that runs").await;
    page.press("Pause").await;
    newest_says(&page, "paused").await;
    assert_eq!(stage.states().await, "paused");
    page.picture("backfill-paused").await;
    page.press("Resume").await;
    newest_says(&page, "running").await;
    assert_eq!(stage.states().await, "running");
    page.press("Cancel").await;
    newest_says(&page, "cancelled").await;
    newest_says(&page, "ended ").await;
    assert_eq!(stage.states().await, "cancelled");
    assert_sound(&page, "a backfill that was ended").await;
}

#[tokio::test]
async fn a_backfill_of_a_strange_table_is_done_and_one_that_fails_says_why() {
    let test = "a_backfill_of_a_strange_table_is_done_and_one_that_fails_says_why";
    let Some(browser) = browser(test).await else { return };
    let stage = old_rows().await;
    let page = browser.page("en").await;
    // From the table to its rows.
    page.open(&stage.url("source")).await;
    is_loaded(&page, "Source").await;
    let links = "[...document.querySelectorAll('main a')].filter((one) => one.textContent === 'Send its rows')";
    page.wait_for(&format!("{links}.length === 2")).await;
    page.eval(&format!("{links}[1].id = 'odd'")).await;
    page.click("#odd").await;
    page.wait_for("document.querySelectorAll('dialog input[name=tables]:checked').length === 1")
        .await;
    page.press("Preview").await;
    dialog_says(&page, "td", "<i>odd. \"name").await;
    page.picture("backfill-strange").await;
    page.press("Count").await;
    page.press("Send 7 rows").await;
    newest_says(&page, "done").await;
    newest_says(&page, "ended ").await;
    assert_eq!(page.eval("location.hash").await, "#/replays", "it is not asked for again");
    let requests = stage.receiver.wait_for(7, AMPLE).await;
    assert!(requests.iter().all(|request| request.json()["type"] == "odd"));

    // A condition that no planner refuses, and that cannot be told of a row: what PostgreSQL says has the row.
    ask_for_new(&page).await;
    page.click(ORDERS).await;
    page.click("dialog select[name=as]").await;
    page.key("ArrowDown").await;
    page.key("Enter").await;
    page.fill("dialog textarea", "note::int = 1").await;
    page.press("Preview").await;
    page.wait_for("[...document.querySelectorAll('dialog button')].some((one) => one.textContent.startsWith('Send about'))").await;
    page.click("dialog button.primary").await;
    newest_says(&page, "failed").await;
    page.picture("backfill-failed").await;
    assert_sound(&page, "a backfill that failed").await;
    page.press("Cancel").await;
    newest_says(&page, "cancelled").await;
    assert_eq!(stage.states().await, "done cancelled");

    let chinese = browser.page("zh-CN").await;
    chinese.open(&stage.url("replays")).await;
    is_loaded(&chinese, "重放").await;
    chinese.press("新建回填…").await;
    chinese.wait_for("document.querySelector('dialog input[name=tables]')").await;
    chinese.picture("backfill-chinese").await;
    assert_sound(&chinese, "in Chinese").await;
}
