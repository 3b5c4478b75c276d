//! Payloads that make much more of a row than it is: bounded, told to the endpoint that asked for it,
//! and nobody else notices.
#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

use crate::memory::peak_kib;
use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text);
                     ALTER TABLE t ALTER v SET STORAGE EXTERNAL";

/// The rows, the budget, one body that is given up, and what walhook takes anyway.
const PEAK_MAX_KIB: u64 = 120 * 1024;

fn forgetful() -> Receiver {
    Receiver::start_forgetful(always(Answer::status(200)))
}

fn endpoint(name: &str, receiver: &Receiver, rest: &str) -> String {
    let url = receiver.url();
    format!("[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\nevents = [\"t\"]\n{rest}\n\n")
}

/// Copies of a text, slices of a larger one, in JSON, in a text, and whole rows within a text.
#[tokio::test]
async fn columns_that_a_payload_repeats_thousands_of_times_are_a_dead_letter_of_its_endpoint() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let [good, greedy] = [forgetful(), forgetful()];
    let list = vec!["\"{{ v }}\""; 4000].join(", ");
    let endpoints = [
        endpoint("good", &good, ""),
        endpoint("listing", &greedy, &format!("payload = {{ all = [{list}] }}")),
        endpoint("telling", &greedy, &format!("payload = \"{}\"", "{{ v }}".repeat(4000))),
        endpoint(
            "nesting",
            &greedy,
            &format!("payload = {{ a = \"x {}\" }}", "{{ row }}".repeat(4000)),
        ),
    ];
    let rest = format!(
        "[[event]]\ntype = \"t\"\ntable = \"public.t\"\non = [\"insert\"]\n\n{}",
        endpoints.concat()
    );
    let toml = configuration(&database, &rest);
    sql.batch_execute("INSERT INTO t VALUES (1, repeat('x', 200000))").await.unwrap();
    let mut check = crate::support::program::Program::start(&["check"], &toml, &[]);
    check.wait(AMPLE).await;
    let said = check.output().join("\n");
    assert!(said.contains("makes more of a row than a body may have"), "{said}");
    sql.batch_execute("TRUNCATE t").await.unwrap();

    let mut service = Service::start(&toml).await;
    sql.batch_execute(
        "INSERT INTO t VALUES (1, 'small');
         INSERT INTO t SELECT n, repeat('x', 200000) FROM generate_series(2, 11) n;
         INSERT INTO t SELECT n, repeat('x', 300000) FROM generate_series(12, 21) n;
         INSERT INTO t VALUES (22, 'small')",
    )
    .await
    .unwrap();
    good.wait_for(22, AMPLE).await;
    greedy.wait_for(6, AMPLE).await;
    let letters =
        "SELECT string_agg(DISTINCT concat_ws(' ', failure_class, attempts, body IS NULL), ',')
                     || ' ' || count(*) FROM walhook.dead_letters
                    WHERE reason LIKE '%four times the row%'";
    wait_for_text(&sql, letters, "poison 0 t 60").await;
    let balance = "SELECT string_agg(concat_ws(' ', endpoint, captured, delivered, dead, pending),
                          ', ' ORDER BY endpoint) FROM walhook.balance";
    let expected = "good 22 22 0 0, listing 22 2 20 0, nesting 22 2 20 0, telling 22 2 20 0";
    wait_for_text(&sql, balance, expected).await;
    let peak = peak_kib(&service.program);
    println!("at most {} MiB", peak / 1024);
    assert!(peak < PEAK_MAX_KIB, "{} MiB", peak / 1024);
    service.stop().await;
}

/// Bodies of 12 MB that small rows become, one of them on its way to an endpoint that hangs.
#[tokio::test]
async fn bodies_that_small_rows_become_pass_beside_an_endpoint_that_hangs() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let healthy = forgetful();
    let hanging = Receiver::start_forgetful(always(Answer::Hang));
    let rest = format!(
        "[[event]]\ntype = \"t\"\ntable = \"public.t\"\non = [\"insert\"]\n\
         payload = {{ v = \"{{{{ v.replace('a', '{}') }}}}\" }}\n\n\
         [webhook]\ntimeout = \"1h\"\n[shutdown]\ngrace = \"1s\"\n\n{}{}",
        "b".repeat(1000),
        endpoint("good", &healthy, ""),
        endpoint("bad", &hanging, ""),
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    // Of 12 kB, and of a row that has a share of its own.
    for (id, length) in (1..).zip([12_000, 12_000, 12_000, 12_000]) {
        let insert = format!("INSERT INTO t VALUES ({id}, repeat('a', {length}))");
        sql.batch_execute(&insert).await.unwrap();
    }
    sql.batch_execute("INSERT INTO t VALUES (5, repeat('a', 12000) || repeat('c', 100000))")
        .await
        .unwrap();
    sql.batch_execute("INSERT INTO t VALUES (6, 'a')").await.unwrap();
    healthy.wait_for(6, AMPLE).await;
    let peak = peak_kib(&service.program);
    println!("at most {} MiB", peak / 1024);
    assert!(peak < PEAK_MAX_KIB, "{} MiB", peak / 1024);
    service.stop().await;
}
