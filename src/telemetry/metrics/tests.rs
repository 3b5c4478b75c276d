//! Names, helps, labels and units are promises to dashboards and alerts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::flow::lsn::Lsn;
use crate::flow::verdict::FailureClass;

fn metrics() -> WalhookMetrics {
    let tables = [TableName::new("public", "orders")];
    WalhookMetrics::new(&tables, ["order.created"], (["crm"], 5))
}

/// Series and their values, without the buckets and without the process.
fn series(text: &str) -> BTreeMap<&str, f64> {
    let own = |line: &&str| line.starts_with("walhook_") && !line.contains("_bucket{");
    let lines = text.lines().filter(own);
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(k, v)| (k, v.parse().unwrap())).collect()
}

/// All is 0, but for the limit of WAL, which there is none of as far as is known.
fn is_untouched(series: &BTreeMap<&str, f64>) -> bool {
    series.iter().all(|(name, value)| match *name {
        "walhook_slot_safe_wal_bytes" => *value == f64::INFINITY,
        name if name.starts_with("walhook_build_info") => *value == 1.0,
        _ => *value == 0.0,
    })
}

/// With the names and values of labels, in the order of the alphabet.
const SERIES: &[&str] = &[
    r#"walhook_attempt_duration_seconds_count{endpoint="crm"}"#,
    r#"walhook_attempt_duration_seconds_sum{endpoint="crm"}"#,
    r#"walhook_attempts_total{endpoint="crm",result="connect"}"#,
    r#"walhook_attempts_total{endpoint="crm",result="delivered"}"#,
    r#"walhook_attempts_total{endpoint="crm",result="dns"}"#,
    r#"walhook_attempts_total{endpoint="crm",result="local"}"#,
    r#"walhook_attempts_total{endpoint="crm",result="protocol"}"#,
    r#"walhook_attempts_total{endpoint="crm",result="refused"}"#,
    r#"walhook_attempts_total{endpoint="crm",result="request"}"#,
    r#"walhook_attempts_total{endpoint="crm",result="status"}"#,
    r#"walhook_attempts_total{endpoint="crm",result="timeout"}"#,
    r#"walhook_attempts_total{endpoint="crm",result="tls"}"#,
    r#"walhook_balance{endpoint="crm",entry="captured",table="public.orders"}"#,
    r#"walhook_balance{endpoint="crm",entry="dead",table="public.orders"}"#,
    r#"walhook_balance{endpoint="crm",entry="delivered",table="public.orders"}"#,
    r#"walhook_balance{endpoint="crm",entry="expired",table="public.orders"}"#,
    r#"walhook_balance{endpoint="crm",entry="filtered",table="public.orders"}"#,
    r#"walhook_balance{endpoint="crm",entry="pending",table="public.orders"}"#,
    r#"walhook_breaker_open{endpoint="crm"}"#,
    concat!("walhook_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"),
    "walhook_clock_ahead_seconds",
    r#"walhook_commit_to_delivery_seconds_count{endpoint="crm"}"#,
    r#"walhook_commit_to_delivery_seconds_sum{endpoint="crm"}"#,
    "walhook_confirmed_lsn",
    r#"walhook_dead_letters{endpoint="crm"}"#,
    "walhook_deliveries_orphaned",
    r#"walhook_deliveries_pending{endpoint="crm",where="backlog"}"#,
    r#"walhook_deliveries_pending{endpoint="crm",where="memory"}"#,
    r#"walhook_deliveries_total{endpoint="crm",outcome="dead"}"#,
    r#"walhook_deliveries_total{endpoint="crm",outcome="delivered"}"#,
    r#"walhook_deliveries_total{endpoint="crm",outcome="expired"}"#,
    r#"walhook_deliveries_total{endpoint="crm",outcome="filtered"}"#,
    r#"walhook_endpoint_paused{endpoint="crm"}"#,
    "walhook_endpoints_refused",
    "walhook_endpoints_table_errors_total",
    r#"walhook_events_captured_total{table="public.orders"}"#,
    r#"walhook_events_filtered_total{event="order.created"}"#,
    r#"walhook_events_repeated_total{event="order.created"}"#,
    r#"walhook_events_total{event="order.created"}"#,
    r#"walhook_http_refused_total{reason="connections"}"#,
    r#"walhook_http_refused_total{reason="host"}"#,
    r#"walhook_http_refused_total{reason="origin"}"#,
    r#"walhook_http_refused_total{reason="slow"}"#,
    r#"walhook_http_refused_total{reason="token"}"#,
    "walhook_last_reload_successful",
    "walhook_last_reload_timestamp_seconds",
    "walhook_ledger_flush_seconds_count",
    "walhook_ledger_flush_seconds_sum",
    r#"walhook_obstacle{what="endpoints_table"}"#,
    r#"walhook_obstacle{what="state"}"#,
    r#"walhook_obstacle{what="write_backs"}"#,
    r#"walhook_oldest_pending_seconds{endpoint="crm"}"#,
    r#"walhook_otlp_requests_total{result="failed",signal="metrics"}"#,
    r#"walhook_otlp_requests_total{result="failed",signal="traces"}"#,
    r#"walhook_otlp_requests_total{result="taken",signal="metrics"}"#,
    r#"walhook_otlp_requests_total{result="taken",signal="traces"}"#,
    r#"walhook_otlp_spans_total{result="dropped"}"#,
    r#"walhook_otlp_spans_total{result="exported"}"#,
    r#"walhook_queue_seconds_count{endpoint="crm"}"#,
    r#"walhook_queue_seconds_sum{endpoint="crm"}"#,
    "walhook_received_lsn",
    "walhook_reconnects_total",
    r#"walhook_replays_total{endpoint="crm"}"#,
    "walhook_replication_blocked",
    "walhook_replication_connected",
    "walhook_replication_lag_bytes",
    "walhook_replication_lag_seconds",
    r#"walhook_retries_total{endpoint="crm"}"#,
    r#"walhook_role{role="active"}"#,
    r#"walhook_role{role="standby"}"#,
    "walhook_slot_retained_wal_bytes",
    "walhook_slot_safe_wal_bytes",
    "walhook_source_problems",
    "walhook_write_backs_failing",
];

#[test]
fn every_series_is_there_from_the_start_with_0() {
    let metrics = metrics();
    let text = metrics.render();
    let series = series(&text);
    let names: Vec<&str> = series.keys().copied().collect();
    assert_eq!(names, SERIES);
    assert!(is_untouched(&series), "{series:?}");
}

#[test]
fn names_end_in_their_unit_and_every_metric_has_a_help() {
    let text = metrics().render();
    let ours = |line: &&str| line.contains(" walhook_");
    let mut types = 0;
    for line in text.lines().filter(|line| line.starts_with("# TYPE")).filter(ours) {
        types += 1;
        let [name, kind] = line.split(' ').skip(2).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        if kind == "histogram" {
            assert!(name.ends_with("_seconds"), "{line}");
        }
    }
    let helps = text.lines().filter(|line| line.starts_with("# HELP")).filter(ours);
    for help in helps.clone() {
        assert!(help.ends_with('.') && help.split(' ').count() > 6, "{help}");
    }
    assert_eq!((types, helps.count()), (41, 41));
}

#[test]
fn handles_count_in_the_series_of_their_name() {
    let metrics = metrics();
    metrics.table(&TableName::new("public", "orders")).captured.inc_by(3);
    let event = metrics.event("order.created");
    event.raised.inc_by(2);
    event.filtered.inc();
    let endpoint = metrics.clone().endpoint("crm");
    endpoint.delivered.inc();
    endpoint.pending_memory.add(5);
    endpoint.attempted(Some(FailureClass::Timeout), Duration::from_millis(1500));
    endpoint.attempted(None, Duration::from_micros(300));
    let replication = metrics.replication();
    replication.set_connected(true);
    replication.set_lag(42, Duration::from_millis(250));
    replication.set_received("16/B374D848".parse().unwrap());
    replication.set_confirmed(Lsn::from_raw(u64::MAX));

    let text = metrics.render();
    let series = series(&text);
    let expected = [
        (r#"walhook_events_captured_total{table="public.orders"}"#, 3.0),
        (r#"walhook_events_total{event="order.created"}"#, 2.0),
        (r#"walhook_events_filtered_total{event="order.created"}"#, 1.0),
        (r#"walhook_deliveries_total{endpoint="crm",outcome="delivered"}"#, 1.0),
        (r#"walhook_deliveries_pending{endpoint="crm",where="memory"}"#, 5.0),
        (r#"walhook_attempts_total{endpoint="crm",result="timeout"}"#, 1.0),
        (r#"walhook_attempts_total{endpoint="crm",result="delivered"}"#, 1.0),
        (r#"walhook_attempt_duration_seconds_count{endpoint="crm"}"#, 2.0),
        (r#"walhook_attempt_duration_seconds_sum{endpoint="crm"}"#, 1.5003),
        ("walhook_replication_connected", 1.0),
        ("walhook_replication_lag_bytes", 42.0),
        ("walhook_replication_lag_seconds", 0.25),
        ("walhook_received_lsn", 97_500_059_720.0),
        ("walhook_confirmed_lsn", 9_223_372_036_854_775_807.0),
    ];
    for (name, value) in expected {
        assert_eq!(series[name], value, "case: {name}");
    }
    let bucket = r#"walhook_attempt_duration_seconds_bucket{endpoint="crm",le="0.0005"} 1"#;
    assert!(text.lines().any(|line| line == bucket), "a third of a millisecond can be told");
}

#[test]
#[cfg(target_os = "linux")]
fn the_process_is_measured_too() {
    let text = metrics().render();
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
    }
}

#[test]
fn two_processes_in_one_do_not_share_numbers() {
    let (one, other) = (metrics(), metrics());
    one.endpoint("crm").delivered.inc();
    assert!(is_untouched(&series(&other.render())));
}

#[test]
fn an_endpoint_that_is_no_more_has_no_series() {
    let metrics = metrics();
    let handles = metrics.endpoint("shop");
    handles.attempted(Some(FailureClass::Tls), Duration::ZERO);
    assert!(metrics.render().contains("shop"));
    metrics.forget_endpoint("shop");
    handles.delivered.inc();
    let text = metrics.render();
    assert!(!text.contains("shop") && text.contains("crm"), "{text}");
}

/// Every family, also those that have no series before there is something to count.
fn families() -> BTreeMap<String, (String, String)> {
    let metrics = metrics();
    let inbound = metrics.inbound("erp");
    inbound.refused("signature");
    metrics.write_backs("order.created").wrote(true, 1);
    metrics.values_as_text(&TableName::new("public", "t")).inc();
    metrics.backfill().rows(&TableName::new("public", "t"), 1, 1);
    metrics.backfill().progress(&TableName::new("public", "t"), 1.0);
    metrics.backfill().read_again(&TableName::new("public", "t"), RereadReason::Conflict);
    let text = metrics.render();
    let of = |start: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(start)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let (kinds, helps) = (of("# TYPE "), of("# HELP "));
    let ours = kinds.into_iter().filter(|(name, _)| name.starts_with("walhook_"));
    ours.map(|(name, kind)| (name.clone(), (kind, helps[&name].clone()))).collect()
}

/// The names of series in a text that is about them, without what histograms add.
fn named(text: &str, families: &BTreeMap<String, (String, String)>) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("walhook_"));
    let plain = |word: &str| {
        let ends = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end));
        ends.filter(|name| families.contains_key(*name)).unwrap_or(word).to_owned()
    };
    ours.map(plain).collect()
}

#[test]
fn the_page_about_metrics_has_every_series_as_it_is_and_no_other() {
    let families = families();
    let page = include_str!("../../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `walhook_"));
    let described: BTreeMap<String, (String, String)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
            let name = format!("walhook_{}", cells[0].trim_end_matches('`'));
            (name, (cells[1].to_owned(), cells[3].to_owned()))
        })
        .collect();
    assert_eq!(described, families);
}

#[test]
fn alerts_and_the_dashboard_ask_for_series_that_there_are() {
    let families = families();
    for (file, text) in [
        ("alerts.yml", include_str!("../../../deploy/prometheus/alerts.yml")),
        ("alerts.test.yml", include_str!("../../../deploy/prometheus/alerts.test.yml")),
        ("walhook.json", include_str!("../../../deploy/grafana/walhook.json")),
    ] {
        let named = named(text, &families);
        assert!(named.len() > 15, "{file}: {named:?}");
        for name in named {
            assert!(families.contains_key(&name), "{file}: there is no {name}");
        }
    }
}

#[test]
fn each_alert_names_the_screen_and_the_command_that_say_more() {
    let text = include_str!("../../../deploy/prometheus/alerts.yml");
    let alerts: Vec<&str> = text.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10, "{}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap_or_default();
        for field in ["summary: ", "description: ", "page: ", "command: "] {
            assert!(alert.contains(field), "{name} has no {field}");
        }
        let page = alert.lines().find_map(|line| line.trim().strip_prefix("page: ")).unwrap();
        let screens = ["overview", "events", "endpoints", "letters", "replays", "source", "try"];
        let is_screen = screens.iter().any(|screen| page.contains(&format!("#/{screen}")));
        assert!(is_screen || page.contains("none"), "{name}: {page}");
    }
}
