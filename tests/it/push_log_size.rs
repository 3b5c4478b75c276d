//! How long the first page of Events takes over 10,000,000 rows of the push log, by each filter. A measurement
//! for docs/performance.md: `cargo test --test it -- --ignored --nocapture push_log_size`.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::time::Duration;
use std::time::Instant;

use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::Service;

const ROWS: i64 = 10_000_000;
/// So many rows with one statement.
const PART: i64 = 500_000;
const TIMES: usize = 5;

/// Within the hour that the page asks for, of three endpoints, two types and three outcomes.
const FILL: &str = "
    INSERT INTO walhook.push_log_events (created_at, slot, endpoint, event_id, event_type, table_schema,
           table_name, row_key, retry_count, outcome, http_status, failure_class, error_message,
           request_headers, response_headers, duration_ms)
    SELECT $start + n * (now() - $start) / $rows, 'size',
           CASE WHEN n % 1000000 = 7 THEN 'rare' WHEN n % 10 = 0 THEN 'erp' ELSE 'crm' END,
           'evt_' || lpad(to_hex(n / 100 + 1), 16, '0') || lpad(to_hex(n), 24, '0'),
           CASE WHEN n % 1000000 = 13 THEN 'seldom' ELSE 'order' END, 'public', 'orders', n::text,
           0, CASE WHEN n % 100 = 0 THEN 'retry' WHEN n % 1000 = 501 THEN 'dead' ELSE 'delivered' END,
           CASE WHEN n % 100 = 0 THEN 503 WHEN n % 1000 = 501 THEN 422
                WHEN n % 1000000 = 17 THEN 207 ELSE 200 END,
           CASE WHEN n % 100 = 0 OR n % 1000 = 501 THEN 'status' END,
           CASE WHEN n % 100 = 0 THEN 'answered 503' END,
           '{\"webhook-id\":\"evt\",\"content-type\":\"application/json\"}',
           '{\"server\":\"x\"}', 3.5
      FROM generate_series($from, $to) AS n";

async fn fill(sql: &Sql) {
    let start = "now() - interval '55 minutes'";
    let start = format!("'{}'::timestamptz", sql.text(&format!("SELECT {start}")).await);
    // Those of today and tomorrow are made by walhook; an hour ago it may have been yesterday.
    let days = "SELECT (count(*) >= 2)::text FROM pg_inherits
                 WHERE inhparent = 'walhook.push_log_events'::regclass";
    wait_for_text(sql, days, "true").await;
    let yesterday = "DO $$
        DECLARE day timestamptz := date_trunc('day', now(), 'UTC') - interval '1 day';
        BEGIN
            EXECUTE format('CREATE TABLE walhook.%I PARTITION OF walhook.push_log_events
                            FOR VALUES FROM (%L) TO (%L)',
                'push_log_events_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD'), day,
                day + interval '1 day');
        EXCEPTION WHEN duplicate_table THEN NULL;
        END $$";
    sql.batch_execute(yesterday).await.unwrap();
    let begun = Instant::now();
    for from in (1..=ROWS).step_by(usize::try_from(PART).unwrap()) {
        let fill = FILL
            .replace("$start", &start)
            .replace("$rows", &ROWS.to_string())
            .replace("$from", &from.to_string())
            .replace("$to", &(from + PART - 1).to_string());
        sql.batch_execute(&fill).await.unwrap();
    }
    sql.batch_execute("VACUUM ANALYZE walhook.push_log_events").await.unwrap();
    let size = "SELECT pg_size_pretty(sum(pg_total_relation_size(relid)))
                  FROM pg_partition_tree('walhook.push_log_events')";
    println!("{ROWS} rows, {}, filled in {:?}", sql.text(size).await, begun.elapsed());
}

#[tokio::test]
#[ignore = "a measurement"]
async fn the_first_page_of_events_over_ten_million_rows() {
    let cluster = start_cluster(ClusterOptions::default()).await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    sql.batch_execute("CREATE TABLE orders (id text PRIMARY KEY)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let endpoints: String = ["crm", "erp", "rare"]
        .map(|name| format!("[[endpoint]]\nname = \"{name}\"\nurl = \"{}\"\n", receiver.url()))
        .concat();
    let toml = format!(
        "[postgres]\nurl = \"{}\"\nslot = \"size\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\
         [[event]]\ntype = \"seldom\"\ntable = \"public.orders\"\non = [\"delete\"]\n{endpoints}",
        cluster.url("postgres")
    );
    let service = Service::start(&toml).await;
    fill(&sql).await;
    let key = "SELECT row_key FROM walhook.push_log_events WHERE outcome = 'delivered' LIMIT 1";
    let key = sql.text(key).await;
    let event = format!("SELECT event_id FROM walhook.push_log_events WHERE row_key = '{key}'");
    let event = sql.text(&event).await;
    let hour = sql.text("SELECT to_char((now() - interval '1 hour') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')").await;
    let half = sql.text("SELECT to_char((now() - interval '20 minutes') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')").await;
    let filters = [
        ("none", String::new()),
        ("endpoint=crm", "&endpoint=crm".to_owned()),
        ("endpoint=erp", "&endpoint=erp".to_owned()),
        ("endpoint=rare (10 rows)", "&endpoint=rare".to_owned()),
        ("event_type=order", "&event_type=order".to_owned()),
        ("event_type=seldom (10 rows)", "&event_type=seldom".to_owned()),
        ("key", format!("&key={key}")),
        ("event_id", format!("&event_id={event}")),
        ("status=200", "&status=200".to_owned()),
        ("status=503", "&status=503".to_owned()),
        ("status=207 (10 rows)", "&status=207".to_owned()),
        ("class=status", "&class=status".to_owned()),
        ("class=timeout (none)", "&class=timeout".to_owned()),
        ("outcome=delivered", "&outcome=delivered".to_owned()),
        ("outcome=retry", "&outcome=retry".to_owned()),
        ("outcome=dead", "&outcome=dead".to_owned()),
        ("endpoint=erp, outcome=dead (none)", "&endpoint=erp&outcome=dead".to_owned()),
        ("endpoint=crm, outcome=dead", "&endpoint=crm&outcome=dead".to_owned()),
        ("before 20 minutes ago", format!("&before={half}")),
        ("endpoint=rare, before 20 minutes ago", format!("&endpoint=rare&before={half}")),
    ];
    for (name, filter) in filters {
        let path = format!("/api/v1/push-logs?limit=50&from={hour}{filter}");
        let mut took = Vec::new();
        let mut told = String::new();
        for _ in 0..TIMES {
            let begun = Instant::now();
            let reply = service.get(&path).await;
            took.push(begun.elapsed());
            assert_eq!(reply.status, 200, "{name}: {reply:?}");
            let page = reply.json();
            let rows = page["push_logs"].as_array().map_or(0, Vec::len);
            told = format!("{rows} rows, searched from {}", page["searched_from"]);
        }
        let first = took.first().copied().unwrap_or(Duration::ZERO);
        took.sort_unstable();
        println!("{name}: first {first:?}, median {:?}, {told}", took[took.len() / 2]);
    }
}
