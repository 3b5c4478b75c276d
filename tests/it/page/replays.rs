//! Replays by clicking: counted first, begun, watched, held back, gone on with, ended.

use super::assert_sound;
use super::is_loaded;
use crate::support::browser::browser;
use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

#[tokio::test]
async fn a_replay_is_counted_begun_paused_resumed_and_ended_by_clicking() {
    let test = "a_replay_is_counted_begun_paused_resumed_and_ended_by_clicking";
    let Some(browser) = browser(test).await else { return };
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let rules = format!(
        "[push_log]\nbodies = \"all\"\n[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\
         [[endpoint]]\nname = \"good\"\nurl = \"{}\"\n",
        receiver.url()
    );
    let service = Service::start(&configuration(&database, &rules)).await;
    sql.batch_execute("INSERT INTO orders SELECT generate_series(1, 200)").await.unwrap();
    receiver.wait_for(200, AMPLE).await;
    wait_for_text(&sql, "SELECT count(*)::text FROM walhook.push_log", "200").await;

    let page = browser.page("en").await;
    page.open(&format!("http://{}/#/replays?endpoint=good", service.http)).await;
    is_loaded(&page, "Replays").await;
    page.shows("Nothing was sent again yet").await;
    page.press("New replay …").await;
    page.fill("dialog input[name=rate]", "5").await;
    page.press("Count").await;
    page.wait_for("document.querySelector('dialog .count')?.innerText.includes('200')").await;
    page.picture("replay-count").await;
    assert_eq!(receiver.count(), 200, "nothing is sent by counting");
    // Another question has another answer: what was counted cannot be sent any more.
    page.fill("dialog input[name=key]", "7").await;
    page.wait_for("!document.querySelector('dialog .count')").await;
    page.press("Count").await;
    page.wait_for("document.querySelector('dialog .count')?.innerText.startsWith('1 ')").await;
    page.fill("dialog input[name=key]", "").await;
    page.press("Count").await;
    page.press("Send 200 again").await;
    let row = "document.querySelector('table[aria-label=Replays] tbody tr')?.innerText ?? ''";
    let says = async |text: &str| page.wait_for(&format!("({row}).includes('{text}')")).await;
    says("running").await;
    receiver.wait_for(201, AMPLE).await;
    page.press("Pause").await;
    says("paused").await;
    page.picture("replay-paused").await;
    assert_sound(&page, "a replay that is paused").await;
    page.press("Resume").await;
    says("running").await;
    page.press("Cancel").await;
    says("cancelled").await;
    says("ended ").await;
    assert_sound(&page, "a replay that was ended").await;
    let again = receiver.requests().split_off(200);
    assert!(again.iter().all(|request| request.header("webhook-replay") == "true"));
    assert!(again.len() < 200, "it was ended before its end");
}
