//! `telemetry::metrics::endpoint_series`, by cases and properties.

use std::collections::BTreeMap;

use prometheus::Registry;
use prometheus::TextEncoder;
use proptest::prelude::*;

use super::*;
use crate::flow::verdict::FailureClass;

const TABLE: &str = "public.orders";

/// Series and their values at this time.
fn series(series: &EndpointSeries, now: Instant) -> BTreeMap<String, f64> {
    let mut families = series.families(now);
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = String::new();
    TextEncoder::new().encode_utf8(&families, &mut text).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let parted = lines.map(|line| line.rsplit_once(' ').unwrap());
    parted.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

fn delivered(of: &str) -> String {
    format!("walhook_deliveries_total{{endpoint=\"{of}\",outcome=\"delivered\"}}")
}

/// Those that have series of their own.
fn shown(all: &BTreeMap<String, f64>) -> Vec<&str> {
    let retries = |name: &'_ String| name.starts_with("walhook_retries_total");
    let names = all.keys().filter(|name| retries(name));
    names.map(|name| name.split('"').nth(1).unwrap()).collect()
}

fn deliver(numbers: &EndpointMetrics, times: u64) {
    for _ in 0..times {
        numbers.attempted(None, Duration::from_millis(3));
        numbers.commit_to_delivery.observe(0.004);
    }
    numbers.delivered.inc_by(times);
}

#[test]
fn a_registry_takes_them() {
    let registry = Registry::new();
    let endpoints = EndpointSeries::new(3);
    registry.register(Box::new(endpoints.clone())).unwrap();
    endpoints.endpoint("crm", SeriesOrigin::File);
    let gathered = registry.gather();
    assert_eq!(gathered.len(), 12, "the books have no table yet");
    assert!(gathered.iter().all(|family| !family.get_metric().is_empty()));
}

#[test]
fn as_long_as_there_are_few_all_have_their_own_and_there_are_no_others() {
    let endpoints = EndpointSeries::new(2);
    endpoints.add_table(TABLE);
    endpoints.endpoint("crm", SeriesOrigin::File);
    deliver(&endpoints.endpoint("a", SeriesOrigin::RunTime), 1);
    endpoints.endpoint("b", SeriesOrigin::RunTime);
    let all = series(&endpoints, Instant::now());
    assert_eq!(shown(&all), ["a", "b", "crm"]);
    let books = "walhook_balance{endpoint=\"b\",entry=\"dead\",table=\"public.orders\"}";
    assert_eq!((all[&delivered("a")], all[books]), (1.0, 0.0));
}

#[test]
fn who_fails_or_gets_most_has_its_own_and_counters_never_go_down() {
    let (endpoints, start) = (EndpointSeries::new(2), Instant::now());
    let later = |looks: u32| start + CHOOSE_EVERY * looks;
    let [quiet, idle, busy, failing] = ["quiet", "idle", "busy", "failing"]
        .map(|name| endpoints.endpoint(name, SeriesOrigin::RunTime));
    deliver(&quiet, 2);
    deliver(&busy, 100);
    let all = series(&endpoints, start);
    assert_eq!(shown(&all), ["(others)", "busy", "quiet"], "idle has given its place");
    assert_eq!((all[&delivered("busy")], all[&delivered(OTHERS)]), (0.0, 100.0));
    drop(idle);

    deliver(&busy, 5);
    failing.attempted(Some(FailureClass::Timeout), Duration::from_secs(1));
    let early = series(&endpoints, start + CHOOSE_EVERY / 2);
    assert_eq!(shown(&early), ["(others)", "busy", "quiet"], "not at every look");
    let all = series(&endpoints, later(1));
    assert_eq!(shown(&all), ["(others)", "busy", "failing"]);
    assert_eq!((all[&delivered("busy")], all[&delivered(OTHERS)]), (5.0, 100.0));
    let timeout =
        |of: &str| format!("walhook_attempts_total{{endpoint=\"{of}\",result=\"timeout\"}}");
    assert_eq!((all[&timeout("failing")], all[&timeout(OTHERS)]), (0.0, 1.0));

    // What is out of order goes before what fails; what `busy` had counted for itself is not added.
    quiet.breaker_open.set(1);
    let all = series(&endpoints, later(2));
    assert_eq!(shown(&all), ["(others)", "failing", "quiet"]);
    assert_eq!(all[&delivered(OTHERS)], 100.0);
    endpoints.forget("busy");
    assert_eq!(series(&endpoints, later(2))[&delivered(OTHERS)], 100.0, "also who is no more");
}

#[test]
fn gauges_are_those_of_the_endpoints_that_are_not_shown() {
    let (endpoints, now) = (EndpointSeries::new(0), Instant::now());
    for (name, age) in [("a", 3.0), ("b", 7.0)] {
        let numbers = endpoints.endpoint(name, SeriesOrigin::RunTime);
        numbers.dead_letters.set(2);
        numbers.pending_backlog.add(5);
        numbers.oldest_pending.set(age);
        endpoints.balance(name, TABLE).captured.add(4);
    }
    endpoints.endpoint("crm", SeriesOrigin::File).dead_letters.set(9);
    let all = series(&endpoints, now);
    assert_eq!(shown(&all), ["(others)", "crm"]);
    let of_others = [
        ("walhook_dead_letters{endpoint=\"(others)\"}", 4.0),
        ("walhook_deliveries_pending{endpoint=\"(others)\",where=\"backlog\"}", 10.0),
        ("walhook_oldest_pending_seconds{endpoint=\"(others)\"}", 7.0),
        ("walhook_balance{endpoint=\"(others)\",entry=\"captured\",table=\"public.orders\"}", 8.0),
        ("walhook_dead_letters{endpoint=\"crm\"}", 9.0),
    ];
    for (name, value) in of_others {
        assert_eq!(all[name], value, "case: {name}");
    }
}

/// The endpoint comes again, with what the books have of it.
fn come_again(endpoints: &EndpointSeries, name: &str, books: u64) {
    endpoints.endpoint(name, SeriesOrigin::RunTime).delivered.inc_by(books);
}

#[test]
fn who_comes_again_is_not_counted_twice() {
    let (endpoints, now) = (EndpointSeries::new(0), Instant::now());
    deliver(&endpoints.endpoint("a", SeriesOrigin::RunTime), 3);
    for _ in 0..2 {
        endpoints.forget("a");
        endpoints.endpoint("a", SeriesOrigin::RunTime); // it is looked at before its books are there
        endpoints.forget("a");
        come_again(&endpoints, "a", 3);
        assert_eq!(series(&endpoints, now)[&delivered(OTHERS)], 3.0);
    }
    deliver(&endpoints.endpoint("a", SeriesOrigin::RunTime), 2);
    assert_eq!(series(&endpoints, now)[&delivered(OTHERS)], 5.0);
}

fn rename(endpoints: &EndpointSeries, before: &str, name: &str) {
    let numbers = endpoints.endpoint(before, SeriesOrigin::RunTime);
    endpoints.endpoint(name, SeriesOrigin::RunTime).go_on_from(&numbers);
    endpoints.rename(before, name);
    endpoints.forget(before); // as the registry does once more
}

#[test]
fn a_rename_counts_nothing_twice() {
    let attempts =
        |of: &str| format!("walhook_attempts_total{{endpoint=\"{of}\",result=\"delivered\"}}");
    for places in [0, 1] {
        let (endpoints, now) = (EndpointSeries::new(places), Instant::now());
        endpoints.endpoint("first", SeriesOrigin::RunTime); // with one place it has it
        deliver(&endpoints.endpoint("a", SeriesOrigin::RunTime), 3);
        rename(&endpoints, "a", "b");
        deliver(&endpoints.endpoint("b", SeriesOrigin::RunTime), 2);
        endpoints.forget("first");
        let all = series(&endpoints, now);
        assert_eq!(
            all[&delivered(OTHERS)] + all.get(&delivered("b")).unwrap_or(&0.0),
            5.0,
            "{places}"
        );
        assert_eq!(
            all[&attempts(OTHERS)] + all.get(&attempts("b")).unwrap_or(&0.0),
            5.0,
            "{places}"
        );
        // Another one comes again under a name that has had books, and gets it from a third.
        endpoints.forget("b");
        deliver(&endpoints.endpoint("c", SeriesOrigin::RunTime), 1);
        come_again(&endpoints, "b", 5);
        rename(&endpoints, "c", "b");
        let all = series(&endpoints, now);
        assert!(
            all[&delivered(OTHERS)] + all.get(&delivered("b")).unwrap_or(&0.0) <= 6.0,
            "{places}"
        );
    }
    let (endpoints, now) = (EndpointSeries::new(1), Instant::now());
    deliver(&endpoints.endpoint("a", SeriesOrigin::RunTime), 3);
    rename(&endpoints, "a", "b");
    let all = series(&endpoints, now);
    assert_eq!(all[&delivered("b")], 3.0, "it keeps its place");
}

proptest! {
    /// Whatever happens, no counter goes down while its series is there, and all together never show more than
    /// was counted.
    #[test]
    fn no_counter_goes_down(
        places in 0_usize..4,
        steps in prop::collection::vec((0_usize..8, 0_u32..40, prop::bool::ANY, 0_u8..12), 1..60),
    ) {
        let (endpoints, mut now) = (EndpointSeries::new(places), Instant::now());
        let (mut before, mut all) = (BTreeMap::new(), 0.0);
        let mut books = [0_u64; 8];
        for (which, times, is_failing, what) in steps {
            let name = format!("e{which}");
            if what == 0 {
                endpoints.forget(&name);
                before.retain(|series: &String, _: &mut f64| !series.contains(&name));
            } else {
                let origin = match which {
                    0 => SeriesOrigin::File,
                    _ => SeriesOrigin::RunTime,
                };
                let numbers = endpoints.endpoint(&name, origin);
                numbers.delivered.inc_by(books[which].saturating_sub(numbers.delivered.get()));
                deliver(&numbers, u64::from(times));
                books[which] += u64::from(times);
                all += f64::from(times);
                if is_failing {
                    numbers.attempted(Some(FailureClass::Connect), Duration::ZERO);
                }
                numbers.breaker_open.set(i64::from(what == 1));
            }
            now += CHOOSE_EVERY / 2;
            let after = series(&endpoints, now);
            for (name, value) in &after {
                let counts = name.contains("_total") || name.contains("_count") || name.contains("_bucket");
                if let Some(before) = before.get(name).filter(|_| counts) {
                    prop_assert!(value >= before, "{name}: {value} after {before}");
                }
            }
            let of_all = after.iter().filter(|(name, _)| name.contains("outcome=\"delivered\""));
            let sum: f64 = of_all.map(|(_, value)| value).sum();
            prop_assert!(sum <= all, "{sum} of {all}");
            prop_assert!(shown(&after).len() <= places + 2, "with that of the file, and the others");
            before = after;
        }
    }
}
