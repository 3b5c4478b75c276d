//! Endpoints that could never get an event.

use super::*;

const EVENTS: &str = "[[event]]\ntype = \"order\"\ntable = \"orders\"\non = [\"insert\", \"update\"]\n\
                      [[event]]\ntype = \"alert\"\ntable = \"alerts\"\n\
                      [[endpoint]]\nname = \"crm\"\nurl = \"http://127.0.0.1:9/\"\n";

#[tokio::test]
async fn what_an_endpoint_names_has_to_be_there_for_some_event_that_it_takes() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE orders (id int PRIMARY KEY, region int);
         CREATE TABLE alerts (id int PRIMARY KEY)",
    )
    .await
    .unwrap();
    let with = |keys: &str| configuration(&database, &format!("{EVENTS}{keys}\n"));
    let full = "ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL;";
    let unsent = "`when` of endpoint crm needs values of the old row of public.orders";
    let regoin = "`when` of endpoint crm names column regoin, which public.";
    let cases: [(&str, &[&str]); 4] = [
        ("when = \"regoin == 7\"", &[regoin, "orders does not have", "alerts does not have"]),
        ("when = \"old.region != region\"\nevents = [\"order\"]", &[unsent, full]),
        ("when = \"old.region != region\"", &[unsent, "column region, which public.alerts"]),
        (
            "payload = { r = \"{{ regoin }}\" }\nevents = [\"order\"]",
            &["`payload` of endpoint crm names column regoin, which public.orders does not have"],
        ),
    ];
    for (keys, parts) in cases {
        assert_refused(&with(keys), 3, parts).await;
    }
    // For some events is enough; the others are worth a word.
    let (code, said) = finished(&["check"], &with("when = \"region == 7\"")).await;
    assert_eq!(code, Some(0), "{said}");
    let warning =
        "warn `when` of endpoint crm names column region, which public.alerts does not have";
    assert!(said.contains(warning) && !said.contains("which public.orders"), "{said}");
    sql.batch_execute(full).await.unwrap();
    let old = with("when = \"old.region != region\"\nevents = [\"order\"]");
    assert_eq!(finished(&["check"], &old).await.0, Some(0));
}

#[tokio::test]
async fn the_rows_of_endpoints_from_are_judged_by_what_the_file_says_of_them_all() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE orders (id int PRIMARY KEY, region int);
         CREATE TABLE webhooks (id int PRIMARY KEY, region int);
         INSERT INTO webhooks VALUES (1, 7)",
    )
    .await
    .unwrap();
    let toml = |keys: &str| {
        let event = "[[event]]\ntype = \"order\"\ntable = \"orders\"\n";
        let from = "[endpoints_from]\ntable = \"webhooks\"\nmatch = { region = \"region\" }\n\
                    [endpoints_from.endpoint]\nname = \"wh-{{ id }}\"\nurl = \"http://127.0.0.1:9/\"\n";
        configuration(&database, &format!("{event}{from}{keys}\n"))
    };
    let typo = toml("").replace("{ region =", "{ regoin =");
    let names = "`match` of [endpoints_from] names column regoin, which no event's table has";
    assert_refused(&typo, 3, &[names, "the events' column stands first"]).await;
    let when = "`when` of endpoint wh-1 names column regoin";
    assert_refused(&toml("when = \"regoin > 1\""), 3, &[when]).await;
    assert_eq!(finished(&["check"], &toml("when = \"region > 1\"")).await.0, Some(0));
}
