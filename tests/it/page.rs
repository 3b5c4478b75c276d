//! The page, in a real browser: each screen on an empty, a normal and a hostile data set; what an operator
//! does by clicking; and what happens without the token and without a network.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod backfills;
mod cost;
mod members;
mod night;
mod reading;
mod replays;

use std::sync::Arc;

use serde_json::Value;
use serde_json::json;

use crate::support::browser::Page;
use crate::support::browser::browser;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::sent;

/// 32 bytes in base64.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const TOKEN: &str = "a-token-that-is-long-enough";

/// What would do something if it were taken for anything but text.
const HOSTILE: &str = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=2</script>\
                       {{7*7}}${7*7}`'\"&lt;\u{202e}gnp.exe\u{202c}javascript:window.hacked=3";

const SCREENS: [(&str, &str); 8] = [
    ("overview", "Overview"),
    ("events", "Events"),
    ("endpoints", "Endpoints"),
    ("letters", "Dead letters"),
    ("replays", "Replays"),
    ("source", "Source"),
    ("try", "Try"),
    ("types", "Event types"),
];

/// A walhook with an endpoint that takes everything, one that refuses it for good, and one that is away.
struct Stage {
    _database: Database,
    sql: Sql,
    service: Service,
    receivers: [Receiver; 3],
}

async fn stage(http: &str) -> Stage {
    let database = Database::create().await;
    let sql = database.sql().await;
    let table = "CREATE TABLE orders (id text PRIMARY KEY, note text, total numeric);
                 ALTER TABLE orders REPLICA IDENTITY FULL";
    sql.batch_execute(table).await.unwrap();
    let good = Receiver::start(always(Answer::status(200).body(HOSTILE)));
    let bad = Receiver::start(Arc::new(|_: &Request| Answer::status(422).body(HOSTILE)));
    let away = Receiver::start(always(Answer::status(503)));
    let toml = configuration(
        &database,
        &format!(
            "[state]\nkey = \"{KEY}\"\n[endpoints]\nallow = [\"127.0.0.1\"]\n\
             [push_log]\nbodies = \"all\"\n\
             [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\
             [[endpoint]]\nname = \"good\"\nurl = \"{}\"\n\
             [[endpoint]]\nname = \"bad\"\nurl = \"{}\"\n\
             [[endpoint]]\nname = \"away\"\nurl = \"{}\"\n\
             retry = {{ max = 100, interval = \"1h\", cap = \"1h\" }}\n",
            good.url(),
            bad.url(),
            away.url()
        ),
    );
    let service = Service::start(&toml.replace("[http]", &format!("[http]{http}"))).await;
    Stage { _database: database, sql, service, receivers: [good, bad, away] }
}

impl Stage {
    fn url(&self, place: &str) -> String {
        format!("http://{}/#/{place}", self.service.http)
    }

    /// Rows that were delivered at one endpoint, died at one and wait for one.
    async fn fill(&self, rows: usize, note: &str) {
        for number in 0..rows {
            let key = format!("{note}{number}").replace('\'', "''");
            let note = note.replace('\'', "''");
            let insert = format!("INSERT INTO orders VALUES ('{key}', '{note}', {number})");
            self.sql.batch_execute(&insert).await.unwrap();
        }
        self.sql.batch_execute("UPDATE orders SET total = total + 0.5").await.unwrap();
        let each = rows * 2;
        self.receivers[0].wait_for(each, AMPLE).await;
        let dead = "SELECT count(*) FROM walhook.dead_letters WHERE endpoint = 'bad'";
        wait_for_text(&self.sql, dead, &each.to_string()).await;
        let parked = "SELECT count(*) FROM walhook.backlog WHERE endpoint = 'away'";
        wait_for_text(&self.sql, parked, &each.to_string()).await;
        let logged = "SELECT count(*) FROM walhook.push_log WHERE endpoint = 'good'";
        wait_for_text(&self.sql, logged, &each.to_string()).await;
    }

    async fn event(&self) -> String {
        self.sql.text("SELECT min(event_id) FROM walhook.dead_letters").await
    }
}

/// Nothing failed, nothing was blocked, and no text became anything else.
async fn assert_sound(page: &Page, about: &str) {
    assert_eq!(page.complaints(), Vec::<String>::new(), "{about}");
    assert_eq!(page.eval("window.hacked ?? null").await, Value::Null, "{about}");
    let foreign =
        "document.querySelectorAll('main script, main img, main iframe, main [onerror]').length";
    assert_eq!(page.eval(foreign).await, 0, "{about}");
    // The address holds no more than the host's own.
    let links = "[...document.querySelectorAll('main a')].filter((a) => !a.getAttribute('href').startsWith('#')).length";
    assert_eq!(page.eval(links).await, 0, "{about}");
}

async fn is_loaded(page: &Page, title: &str) {
    page.wait_for(&format!("document.querySelector('h1')?.textContent === {}", json!(title))).await;
    page.wait_for("!document.querySelector('main [aria-busy]')").await;
}

/// Goes through all screens of one data set, and takes pictures.
async fn walk(page: &Page, stage: &Stage, set: &str) {
    for (screen, title) in SCREENS {
        page.open(&stage.url(screen)).await;
        is_loaded(page, title).await;
        if screen == "try" {
            page.press("Try it").await;
            page.wait_for("document.querySelector('#results')").await;
        }
        page.picture(&format!("{set}-{screen}")).await;
        assert_sound(page, &format!("{set}: {screen}")).await;
        page.size(400, 800).await;
        page.wait_for("document.documentElement.scrollWidth <= 400").await;
        page.picture(&format!("{set}-{screen}-narrow")).await;
        page.size(1200, 800).await;
    }
}

#[tokio::test]
async fn each_screen_shows_an_empty_a_normal_and_a_hostile_data_set() {
    let test = "each_screen_shows_an_empty_a_normal_and_a_hostile_data_set";
    let Some(browser) = browser(test).await else { return };
    for (set, rows, note) in [("empty", 0, ""), ("normal", 6, "a note "), ("hostile", 3, HOSTILE)] {
        let stage = stage("").await;
        stage.fill(rows, note).await;
        let page = browser.page("en").await;
        walk(&page, &stage, set).await;
        if rows == 0 {
            continue;
        }
        let event = stage.event().await;
        page.open(&stage.url(&format!("event/{event}"))).await;
        page.shows("The same row before and after").await;
        page.wait_for("document.querySelectorAll('.attempt').length >= 3").await;
        // All of them opened, with what was sent and answered.
        page.eval("document.querySelectorAll('.attempt .head[aria-expanded=false]').forEach((one) => one.click())").await;
        page.shows("Copy as curl").await;
        page.picture(&format!("{set}-event")).await;
        assert_sound(&page, &format!("{set}: event")).await;
        page.open(&stage.url("endpoints/away")).await;
        page.shows("Where it is configured").await;
        page.picture(&format!("{set}-endpoint")).await;
        assert_sound(&page, &format!("{set}: endpoint")).await;
        page.open(&stage.url("letters")).await;
        page.click("main tbody button").await;
        page.wait_for("document.querySelector('dialog pre')").await;
        page.picture(&format!("{set}-letter")).await;
        assert_sound(&page, &format!("{set}: letter")).await;
        page.dark(true).await;
        for (screen, title) in SCREENS {
            page.open(&stage.url(screen)).await;
            is_loaded(&page, title).await;
            page.picture(&format!("{set}-{screen}-dark")).await;
        }
        page.open(&stage.url(&format!("event/{event}"))).await;
        page.shows("The same row before and after").await;
        page.picture(&format!("{set}-event-dark")).await;
        page.size(400, 800).await;
        page.wait_for("document.documentElement.scrollWidth <= 400").await;
        page.picture(&format!("{set}-event-narrow")).await;
    }
}

#[tokio::test]
async fn the_page_speaks_the_language_of_the_browser_and_can_be_switched() {
    let test = "the_page_speaks_the_language_of_the_browser_and_can_be_switched";
    let Some(browser) = browser(test).await else { return };
    let stage = stage("").await;
    stage.fill(1, "x").await;
    let page = browser.page("zh-CN,zh;q=0.9").await;
    page.open(&stage.url("letters")).await;
    is_loaded(&page, "死信").await;
    page.shows("条符合条件").await;
    page.picture("chinese-letters").await;
    for (screen, title) in [
        ("events", "事件"),
        ("endpoints", "端点"),
        ("replays", "重放"),
        ("source", "数据源"),
        ("try", "试运行"),
        ("types", "事件类型"),
        ("overview", "总览"),
    ] {
        page.open(&stage.url(screen)).await;
        is_loaded(&page, title).await;
        page.picture(&format!("chinese-{screen}")).await;
    }
    page.open(&stage.url("endpoints/away")).await;
    page.shows("配置位置").await;
    page.picture("chinese-endpoint").await;
    page.open(&stage.url("overview")).await;
    is_loaded(&page, "总览").await;
    page.press("English").await;
    is_loaded(&page, "Overview").await;
    assert_eq!(page.eval("document.documentElement.lang").await, "en");
    assert_sound(&page, "languages").await;
}

#[tokio::test]
async fn an_operator_pauses_resends_rotates_and_looks_on_by_clicking() {
    let test = "an_operator_pauses_resends_rotates_and_looks_on_by_clicking";
    let Some(browser) = browser(test).await else { return };
    let stage = stage("").await;
    stage.fill(2, "n").await;
    let page = browser.page("en").await;

    // A pause, and its end.
    page.open(&stage.url("endpoints/good")).await;
    page.press("Pause").await;
    page.shows("paused by 127.0.0.1").await;
    stage.sql.batch_execute("INSERT INTO orders VALUES ('paused', 'x', 1)").await.unwrap();
    let parked = "SELECT count(*) FROM walhook.backlog WHERE endpoint = 'good'";
    wait_for_text(&stage.sql, parked, "1").await;
    page.picture("click-paused").await;
    page.press("Resume").await;
    stage.receivers[0].wait_for(5, AMPLE).await;

    // A test event, made from a row.
    page.press("Send a test event").await;
    page.shows("Test event").await;
    stage.receivers[0].wait_for(6, AMPLE).await;

    // All dead letters of a filter, counted first, then sent again.
    let dead = "SELECT count(*) FROM walhook.dead_letters WHERE state = 'dead'";
    wait_for_text(&stage.sql, dead, "5").await;
    // Without a filter it is all of them, and that is said and counted before anything is done.
    page.open(&stage.url("letters")).await;
    is_loaded(&page, "Dead letters").await;
    page.press("Discard …").await;
    page.shows("All dead letters").await;
    page.wait_for("document.querySelector('#count')?.textContent === '5'").await;
    page.press("Leave").await;
    stage.receivers[1].behave(always(Answer::status(200)));
    page.open(&stage.url("letters?endpoint=bad&class=status")).await;
    is_loaded(&page, "Dead letters").await;
    page.press("Send again …").await;
    page.wait_for("document.querySelector('#count')?.textContent === '5'").await;
    page.picture("click-resend-preview").await;
    page.press("Send 5 again").await;
    page.shows("5 of 5 done, 0 to go").await;
    page.picture("click-resend-done").await;
    let sent = "SELECT count(*) FROM walhook.dead_letters WHERE state = 'delivered'";
    assert_eq!(stage.sql.text(sent).await, "5", "what the page says is so");
    page.shows("No dead letter fits this filter").await;

    // A secret of an endpoint that was made over the API.
    let made = json!({ "name": "api", "url": stage.receivers[0].url(), "secret": "a secret of sixteen bytes" });
    assert_eq!(stage.service.post("/api/v1/endpoints", &made).await.status, 201);
    page.open(&stage.url("endpoints/api")).await;
    page.press("Rotate the secret").await;
    page.press("Rotate").await;
    page.shows("The one before signs as well until").await;
    let shown = page.eval("document.querySelector('.secret')?.textContent ?? ''").await;
    assert!(shown.as_str().unwrap().len() > 20, "{shown}");
    page.picture("click-rotated").await;
    page.press("Done").await;
    page.shows("The secret before signs until").await;
    let hidden = page.eval(&format!("document.body.innerText.includes({shown})")).await;
    assert_eq!(hidden, false, "the secret is shown once");

    // Another name: one that is taken is refused with the reason, and then another one is given.
    page.press("Rename").await;
    page.fill("input[name=rename]", "good").await;
    page.press("Rename").await;
    page.shows("there is an endpoint good already").await;
    page.fill("input[name=rename]", "api-2").await;
    page.picture("click-rename").await;
    page.press("Rename").await;
    page.wait_for("location.hash === '#/endpoints/api-2'").await;
    page.shows("The secret before signs until").await;

    // What happens, as it happens.
    page.open(&stage.url("events?endpoint=good")).await;
    page.press("Live: off").await;
    page.shows("Nothing was sent since you look on").await;
    page.shows("Attempts as they are made").await;
    stage.sql.batch_execute("INSERT INTO orders VALUES ('live', 'x', 1)").await.unwrap();
    page.wait_for("[...document.querySelectorAll('main tbody tr')].some((row) => row.innerText.includes('live'))").await;
    assert_eq!(page.eval("location.hash").await, "#/events?endpoint=good&live=1");
    page.picture("click-live").await;
    assert_sound(&page, "clicks").await;
}

#[tokio::test]
async fn keys_go_through_rows_and_filters_stand_in_the_address() {
    let test = "keys_go_through_rows_and_filters_stand_in_the_address";
    let Some(browser) = browser(test).await else { return };
    let stage = stage("").await;
    stage.fill(2, "k").await;
    let page = browser.page("en").await;
    page.open(&stage.url("events")).await;
    is_loaded(&page, "Events").await;
    page.wait_for("document.querySelectorAll('main tbody tr').length >= 8").await;
    page.key("/").await;
    assert_eq!(page.eval("document.activeElement.name").await, "endpoint");
    page.write("bad").await;
    page.key("Tab").await;
    page.wait_for("location.hash === '#/events?endpoint=bad'").await;
    page.wait_for("document.querySelectorAll('main tbody tr').length === 4").await;
    page.eval("document.activeElement.blur()").await;
    page.key("j").await;
    page.key("j").await;
    page.key("k").await;
    let place = "[...document.querySelectorAll('main tr.row')].indexOf(document.activeElement)";
    assert_eq!(page.eval(place).await, 0);
    page.key("o").await;
    page.wait_for("location.hash.startsWith('#/event/evt_')").await;
    page.shows("The same row before and after").await;
    page.key("?").await;
    page.wait_for("document.querySelector('dialog[open]')").await;
    page.key("Escape").await;
    page.wait_for("!document.querySelector('dialog')").await;
    assert_sound(&page, "keys").await;
}

#[tokio::test]
async fn a_cut_network_is_told_and_what_is_shown_stays() {
    let test = "a_cut_network_is_told_and_what_is_shown_stays";
    let Some(browser) = browser(test).await else { return };
    let stage = stage("").await;
    stage.fill(1, "c").await;
    let page = browser.page("en").await;
    page.open(&stage.url("letters")).await;
    is_loaded(&page, "Dead letters").await;
    page.shows("fit this filter").await;
    page.offline(true).await;
    page.key("r").await;
    page.shows("walhook does not answer").await;
    page.shows("What is shown may be old").await;
    page.shows("no answer").await;
    assert!(
        page.eval("document.querySelectorAll('main tbody tr').length").await.as_u64() > Some(0)
    );
    page.picture("offline").await;
    page.offline(false).await;
    page.key("r").await;
    page.wait_for("!document.body.innerText.includes('walhook does not answer')").await;
    assert_sound(&page, "offline").await;
}

#[tokio::test]
async fn with_a_token_nothing_of_a_row_is_shown_before_it_is_given() {
    let test = "with_a_token_nothing_of_a_row_is_shown_before_it_is_given";
    let Some(browser) = browser(test).await else { return };
    let stage = stage(&format!("\ntoken = \"{TOKEN}\"")).await;
    stage.fill(1, "secret-row").await;
    let page = browser.page("en").await;
    page.open(&stage.url("events")).await;
    page.shows("Token").await;
    page.picture("login").await;
    let all = page.eval("document.documentElement.outerHTML").await;
    assert!(!all.as_str().unwrap().contains("secret-row"), "{all}");
    page.fill("input[name=token]", "not-the-token").await;
    page.press("Enter").await;
    page.shows("this is not the token").await;
    page.fill("input[name=token]", TOKEN).await;
    page.press("Enter").await;
    page.shows("secret-row0").await;
    assert_eq!(page.eval("document.cookie").await, "", "no script reads it");
    page.open(&stage.url("endpoints/good")).await;
    page.press("Pause").await;
    page.shows("paused by token").await;
    assert_eq!(page.eval("window.hacked ?? null").await, Value::Null);
}

#[tokio::test]
async fn a_cookie_alone_gives_no_orders() {
    let stage = stage(&format!("\ntoken = \"{TOKEN}\"")).await;
    let http = stage.service.http;
    let ask = async |method: &str, path: &str, headers: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n{headers}\
             content-length: {length}\r\n\r\n{body}"
        );
        sent(http, &request).await.unwrap()
    };
    let token = json!({ "token": TOKEN }).to_string();
    let head = sent_head(http, &token).await;
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    for wanted in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(wanted), "{cookie}");
    }
    assert!(!cookie.contains(TOKEN), "{cookie}");
    let cookie = format!("cookie: {}\r\n", cookie.split(';').next().unwrap());
    let path = "/api/v1/endpoints/good/pause";
    assert_eq!(ask("GET", "/api/v1/status", &cookie, "").await.status, 200);
    assert_eq!(ask("POST", path, &cookie, "").await.status, 403, "no header of ours");
    let ours = format!("{cookie}x-walhook: page\r\n");
    assert_eq!(ask("POST", path, &ours, "").await.status, 200);
    assert_eq!(ask("POST", path, "x-walhook: page\r\n", "").await.status, 401, "no cookie");
    let wrong = "cookie: walhook=0000\r\n";
    assert_eq!(ask("GET", "/api/v1/status", wrong, "").await.status, 401);
    let other = format!("{ours}origin: https://evil.example.com\r\n");
    assert_eq!(ask("POST", path, &other, "").await.status, 403, "a page of another site");
    for path in ["/", "/ui/app.js", "/ui/page.css"] {
        assert_eq!(ask("GET", path, "", "").await.status, 200, "{path} is nobody's secret");
    }
    assert_eq!(ask("GET", "/ui/nothing.js", "", "").await.status, 404);
}

/// The head of the answer to a token.
async fn sent_head(http: std::net::SocketAddr, token: &str) -> String {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    let mut stream = tokio::net::TcpStream::connect(http).await.unwrap();
    let length = token.len();
    let request = format!(
        "POST /login HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\nx-walhook: page\r\n\
         content-length: {length}\r\n\r\n{token}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
