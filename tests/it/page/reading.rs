//! What is looked at while it changes: an event that is sent again, and a live view that somebody reads in.

use super::assert_sound;
use super::is_loaded;
use super::stage;
use crate::support::browser::browser;
use crate::support::receiver::Answer;
use crate::support::receiver::always;

#[tokio::test]
async fn an_event_is_sent_again_and_its_new_attempt_is_shown() {
    let test = "an_event_is_sent_again_and_its_new_attempt_is_shown";
    let Some(browser) = browser(test).await else { return };
    let stage = stage("").await;
    stage.fill(1, "again").await;
    stage.receivers[1].behave(always(Answer::status(200)));
    let page = browser.page("en").await;
    page.open(&stage.url(&format!("event/{}", stage.event().await))).await;
    page.shows("The same row before and after").await;
    page.wait_for("document.querySelectorAll('.attempt').length >= 3").await;
    assert_eq!(page.eval("document.querySelectorAll('.attempt.fresh').length").await, 0);
    let button = "[...document.querySelectorAll('.at')].find((one) => one.querySelector('h2').innerText.startsWith('bad'))
                  .querySelector('.buttons button')";
    page.eval(&format!("{button}.id = 'again'")).await;
    page.click("#again").await;
    page.wait_for("document.querySelectorAll('.attempt.fresh').length === 1").await;
    page.wait_for("document.querySelector('.attempt.fresh').innerText.includes('delivered')").await;
    page.picture("event-sent-again").await;
    assert_sound(&page, "an event that is sent again").await;
}

#[tokio::test]
async fn a_live_view_stands_still_while_somebody_reads_further_down() {
    let test = "a_live_view_stands_still_while_somebody_reads_further_down";
    let Some(browser) = browser(test).await else { return };
    let stage = stage("").await;
    let page = browser.page("en").await;
    page.open(&stage.url("events?endpoint=good&live=1")).await;
    is_loaded(&page, "Events").await;
    page.shows("Attempts as they are made").await;
    let rows = "INSERT INTO orders SELECT 'row' || n, 'x', n FROM generate_series(1, 45) AS n";
    stage.sql.batch_execute(rows).await.unwrap();
    page.wait_for("document.querySelectorAll('main tbody tr').length >= 30").await;
    page.eval("scrollTo(0, 600)").await;
    page.wait_for("scrollY > 120").await;
    stage.sql.batch_execute("INSERT INTO orders VALUES ('later', 'x', 1)").await.unwrap();
    page.shows(": to the top").await;
    let is_later = "[...document.querySelectorAll('main tbody tr')].some((row) => row.innerText.includes('later'))";
    assert_eq!(page.eval(is_later).await, false, "what is read does not move");
    page.picture("live-held").await;
    page.click("main p button").await;
    page.wait_for(is_later).await;
    assert_sound(&page, "a live view").await;
}
