//! Members on the page: who has which partition, on every member; and nothing of it where a source is not shared.

use super::assert_sound;
use super::is_loaded;
use super::stage;
use crate::support::broker::Broker;
use crate::support::browser::browser;
use crate::support::postgres::Database;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::Service;
use crate::support::service::configuration;

#[tokio::test]
async fn every_member_shows_who_has_which_partition_and_names_those_without_an_owner() {
    let test = "every_member_shows_who_has_which_partition_and_names_those_without_an_owner";
    let Some(browser) = browser(test).await else { return };
    let Some(broker) = Broker::start(test).await else { return };
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let rules = format!(
        "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\
         [[endpoint]]\nname = \"good\"\nurl = \"{}\"\n\
         [relay]\nurl = \"{}\"\nreplicas = 1\npartitions = 4\npatience = \"1h\"\n",
        receiver.url(),
        broker.url()
    );
    let toml = configuration(&database, &rules);
    let mut tail = Service::start_as(&["--role", "tail"], &toml).await;
    let page = browser.page("en").await;
    let source = |service: &Service| format!("http://{}/#/source", service.http);
    page.open(&source(&tail)).await;
    is_loaded(&page, "Source").await;
    page.shows("Nobody delivers for partitions 1, 2, 3, 4 of 4: start a worker").await;
    let worker = Service::start_as(&["--role", "deliver"], &toml).await;
    let name = format!("pid {}", worker.program.id());
    let row = "document.querySelector('table[aria-label=Members] tbody tr')?.innerText ?? ''";
    for member in [&tail, &worker] {
        page.open(&source(member)).await;
        is_loaded(&page, "Source").await;
        page.shows("Each of the 4 partitions has an owner").await;
        for text in [&name, "1, 2, 3, 4", "alive", &worker.http.to_string()] {
            page.wait_for(&format!("({row}).includes('{text}')")).await;
        }
    }
    page.picture("members").await;
    page.size(400, 800).await;
    page.wait_for("document.documentElement.scrollWidth <= 400").await;
    page.picture("members-narrow").await;
    page.size(1200, 800).await;
    assert_sound(&page, "members").await;
    // The role of a worker is none that something is wrong with.
    page.shows("delivers for partitions 1, 2, 3, 4").await;
    page.shows("Another process has the slot").await;
    assert_eq!(page.eval("document.querySelectorAll('.tile.bad').length").await, 0);
    worker.program.kill();
    page.open(&source(&tail)).await;
    page.shows("Nobody delivers for partitions 1, 2, 3, 4 of 4").await;
    page.wait_for(&format!("({row}).includes('not seen')")).await;
    page.picture("members-unowned").await;
    assert_sound(&page, "members without a worker").await;
    // The first screen says so as well, and so do its badge and the title of its tab.
    page.open(&format!("http://{}/#/overview", tail.http)).await;
    is_loaded(&page, "Overview").await;
    page.shows("nobody delivers for partitions 1, 2, 3, 4 of 4").await;
    page.shows("Nobody delivers for 1, 2, 3, 4").await;
    page.wait_for("document.title.startsWith('(1) ')").await;
    page.wait_for("document.querySelector('header .badge.bad')?.innerText === '1 problem'").await;
    page.wait_for("document.querySelectorAll('.tile.bad').length === 1").await;
    page.picture("overview-unowned").await;
    assert_sound(&page, "overview without a worker").await;
    tail.stop().await;
}

#[tokio::test]
async fn a_source_that_is_not_shared_has_no_members_to_speak_of() {
    let test = "a_source_that_is_not_shared_has_no_members_to_speak_of";
    let Some(browser) = browser(test).await else { return };
    let stage = stage("").await;
    let page = browser.page("en").await;
    page.open(&stage.url("source")).await;
    is_loaded(&page, "Source").await;
    // Twice, so that what came of the first answer is there to be seen.
    page.key("r").await;
    let asked = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/api/v1/members') && one.responseEnd > 0).length >= 2";
    page.wait_for(asked).await;
    assert_eq!(page.eval("document.querySelector('#members')").await, serde_json::Value::Null);
    page.open(&stage.url("overview")).await;
    is_loaded(&page, "Overview").await;
    page.wait_for("document.title.endsWith('Overview · walhook')").await;
    let tile = "document.body.innerText.includes('Partitions with an owner')";
    assert_eq!(page.eval(tile).await, false);
    assert_sound(&page, "no members").await;
}
