//! `telemetry::samples`, by cases.

use super::*;

fn totals(captured: u64, buckets: [u64; 3]) -> MetricTotals {
    let bounds = [0.01, 0.1, f64::INFINITY];
    MetricTotals {
        captured,
        delivered: captured,
        latency: bounds.into_iter().zip(buckets).collect(),
        ..MetricTotals::default()
    }
}

#[test]
fn counters_become_rates_and_histograms_quantiles_of_what_came_since() {
    let history = SampleHistory::default();
    history.look(&totals(1000, [1000, 1000, 1000]), [], Timestamp::from_seconds(100));
    assert!(history.hour().is_empty(), "of one look nothing follows");
    let slower = totals(1500, [1000, 1500, 1500]);
    history.look(&slower, [], Timestamp::from_seconds(110));
    let MetricSample { at, captured_rate, p50, p99, .. } = history.hour().remove(0);
    assert_eq!((at, captured_rate), (110_000, 50.0));
    assert!((p50.unwrap() - 0.055).abs() < 1e-9, "in the middle of its bucket: {p50:?}");
    assert!(p99.unwrap() > 0.09 && p99.unwrap() < 0.1, "{p99:?}");
    history.look(&slower, [], Timestamp::from_seconds(120));
    let last = history.hour().pop().unwrap();
    assert_eq!((last.captured_rate, last.p50), (0.0, None), "nothing came");
}

#[test]
fn of_an_endpoints_hour_it_tells_how_much_was_delivered_and_how_fast() {
    let (history, crm) = (SampleHistory::default(), Arc::from("crm"));
    assert!(history.endpoint_hours().is_empty());
    let looks = [(0, 0), (300, 0), (300, 100), (300, 100)];
    for (look, (delivered, failed)) in (0..).zip(looks) {
        let buckets = [delivered, delivered, delivered];
        let totals = MetricTotals { failed, ..totals(delivered, buckets) };
        for part in 0..3 {
            let now = Timestamp::from_seconds(look * 30 + part * 10);
            history.look(&totals, [(Arc::clone(&crm), totals.clone())], now);
        }
    }
    let EndpointHour { success, p99 } = history.endpoint_hours()[&crm];
    assert!((success.unwrap() - 0.75).abs() < 1e-9, "300 of 400: {success:?}");
    assert!(p99.unwrap() < 0.01, "nothing was delivered since: {p99:?}");
}

#[test]
fn an_hour_and_a_day_are_kept_and_no_more() {
    let history = SampleHistory::default();
    let crm: Arc<str> = "crm".into();
    for look in 0..=(360 * 24 + 30) {
        let one = (Arc::clone(&crm), totals(0, [0; 3]));
        history.look(&totals(0, [0; 3]), [one], Timestamp::from_seconds(look * 10));
    }
    let of = |samples: Vec<MetricSample>| {
        let first = samples.first().unwrap().at;
        (samples.len(), samples.last().unwrap().at - first)
    };
    assert_eq!(of(history.hour()), (360, 3590 * 1000));
    assert_eq!(of(history.day()), (288, 287 * 300 * 1000));
    assert_eq!(of(history.endpoint("crm")), (120, 119 * 30 * 1000));
    history.look(&totals(0, [0; 3]), [], Timestamp::from_seconds(0));
    assert!(history.endpoint("crm").is_empty(), "it is no more");
}

#[test]
fn of_many_endpoints_the_busiest_and_those_that_are_looked_at_have_charts() {
    let history = SampleHistory::default();
    let look = |number: u64| {
        let all = (0..CHARTS_MAX as u64 * 2).map(|place| {
            // The later its name, the busier it is.
            let totals = MetricTotals { delivered: place * number, ..MetricTotals::default() };
            (Arc::from(format!("e{place:03}")), totals)
        });
        let now = Timestamp::from_seconds(i64::try_from(number).unwrap() * 10);
        history.look(&MetricTotals::default(), all, now);
    };
    (1..=8).for_each(look);
    let charted = |name: &str| !history.endpoint(name).is_empty();
    assert!(charted("e399") && charted("e200"), "the busiest");
    assert!(!charted("e010") && !charted("e199"));
    (9..=16).for_each(look);
    assert!(charted("e010"), "somebody looked at it");
    assert!(charted("e399"));
    let kept = history.0.lock().unwrap().endpoints.len();
    assert_eq!(kept, CHARTS_MAX);
}

#[test]
fn what_lies_beyond_the_last_bound_is_told_as_that_bound() {
    let buckets = [(0.01, 0), (0.1, 1), (f64::INFINITY, 100)];
    assert_eq!(quantile(&buckets, 0.99), Some(0.1));
    assert_eq!(quantile(&[], 0.5), None);
}
