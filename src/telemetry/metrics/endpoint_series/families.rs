//! Numbers of endpoints as Prometheus wants them.

use std::sync::Arc;

use prometheus::core::Desc;
use prometheus::proto::Bucket;
use prometheus::proto::Counter;
use prometheus::proto::Gauge;
use prometheus::proto::Histogram;
use prometheus::proto::LabelPair;
use prometheus::proto::Metric;
use prometheus::proto::MetricFamily;
use prometheus::proto::MetricType;

use crate::telemetry::metrics::endpoint_series::counted::CountedTotals;
use crate::telemetry::metrics::endpoint_series::counted::GaugedTotals;
use crate::telemetry::metrics::handles::AttemptMetrics;
use crate::telemetry::metrics::handles::BalanceMetrics;
use crate::telemetry::metrics::plain_numbers::HistogramCounts;
use crate::telemetry::metrics::spec;
use crate::telemetry::metrics::spec::MetricSpec;

/// The values of label `outcome`.
const OUTCOMES: [&str; 4] = ["delivered", "expired", "dead", "filtered"];

/// The values of label `where`.
const PLACES: [&str; 2] = ["memory", "backlog"];

/// The metrics of endpoints.
const SPECS: [&MetricSpec; 13] = [
    &spec::DELIVERIES,
    &spec::DELIVERIES_PENDING,
    &spec::BALANCE,
    &spec::ATTEMPTS,
    &spec::ATTEMPT_DURATION,
    &spec::COMMIT_TO_DELIVERY,
    &spec::QUEUE,
    &spec::OLDEST_PENDING,
    &spec::RETRIES,
    &spec::REPLAYS,
    &spec::BREAKER_OPEN,
    &spec::PAUSED,
    &spec::DEAD_LETTERS,
];

/// All numbers that are shown under one name.
#[derive(Clone, Debug, Default)]
pub(super) struct SeriesLine {
    pub(super) endpoint: Arc<str>,
    pub(super) counted: CountedTotals,
    pub(super) gauged: GaugedTotals,
}

/// What the registry has to know of them.
pub(super) fn described() -> Vec<Desc> {
    SPECS.into_iter().map(spec::described).collect()
}

/// The series of these endpoints.
pub(super) fn of(lines: &[SeriesLine]) -> Vec<MetricFamily> {
    vec![
        counters(&spec::DELIVERIES, lines, |line| {
            OUTCOMES.iter().zip(line.counted.outcomes).map(labelled("outcome")).collect()
        }),
        gauges(&spec::DELIVERIES_PENDING, lines, |line| {
            PLACES.iter().zip(line.gauged.pending).map(labelled("where")).collect()
        }),
        gauges(&spec::BALANCE, lines, |line| {
            let entries = |(table, values): (&Arc<str>, &[i64; 6])| {
                let entries = BalanceMetrics::ENTRIES.into_iter().zip(*values);
                let with_table = |(entry, value)| {
                    let labels = vec![pair("entry", entry), pair("table", table)];
                    (labels, value)
                };
                entries.map(with_table).collect::<Vec<_>>()
            };
            line.gauged.balances.iter().flat_map(entries).collect()
        }),
        counters(&spec::ATTEMPTS, lines, |line| {
            AttemptMetrics::RESULTS
                .iter()
                .zip(line.counted.results)
                .map(labelled("result"))
                .collect()
        }),
        histograms(&spec::ATTEMPT_DURATION, lines, |line| &line.counted.attempt_duration),
        histograms(&spec::COMMIT_TO_DELIVERY, lines, |line| &line.counted.commit_to_delivery),
        histograms(&spec::QUEUE, lines, |line| &line.counted.queue),
        family(&spec::OLDEST_PENDING, MetricType::GAUGE, lines, |line| {
            vec![(Vec::new(), gauge(line.gauged.oldest_pending))]
        }),
        counters(&spec::RETRIES, lines, |line| vec![(Vec::new(), line.counted.retries)]),
        counters(&spec::REPLAYS, lines, |line| vec![(Vec::new(), line.counted.replays)]),
        gauges(&spec::BREAKER_OPEN, lines, |line| vec![(Vec::new(), line.gauged.breaker_open)]),
        gauges(&spec::PAUSED, lines, |line| vec![(Vec::new(), line.gauged.paused)]),
        gauges(&spec::DEAD_LETTERS, lines, |line| vec![(Vec::new(), line.gauged.dead_letters)]),
    ]
}

/// Values with the labels that they have beside the endpoint's name.
type LabelledValues<T> = Vec<(Vec<LabelPair>, T)>;

fn labelled<'v, T>(name: &'static str) -> impl Fn((&&'v str, T)) -> (Vec<LabelPair>, T) {
    move |(value, number)| (vec![pair(name, value)], number)
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
fn counters(
    spec: &MetricSpec,
    lines: &[SeriesLine],
    values: impl Fn(&SeriesLine) -> LabelledValues<u64>,
) -> MetricFamily {
    family(spec, MetricType::COUNTER, lines, |line| {
        let as_metric = |(labels, value)| {
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            let mut metric = Metric::default();
            metric.set_counter(counter);
            (labels, metric)
        };
        values(line).into_iter().map(as_metric).collect()
    })
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
fn gauges(
    spec: &MetricSpec,
    lines: &[SeriesLine],
    values: impl Fn(&SeriesLine) -> LabelledValues<i64>,
) -> MetricFamily {
    family(spec, MetricType::GAUGE, lines, |line| {
        let values = values(line).into_iter();
        values.map(|(labels, value)| (labels, gauge(value as f64))).collect()
    })
}

fn histograms(
    spec: &MetricSpec,
    lines: &[SeriesLine],
    counts: impl Fn(&SeriesLine) -> &HistogramCounts,
) -> MetricFamily {
    family(spec, MetricType::HISTOGRAM, lines, |line| vec![(Vec::new(), histogram(counts(line)))])
}

fn gauge(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    Metric::from_gauge(gauge)
}

/// Prometheus adds the last bucket, of all, itself.
fn histogram(counts: &HistogramCounts) -> Metric {
    let bucket = |(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let buckets = counts.cumulative().into_iter().filter(|(bound, _)| bound.is_finite());
    let mut histogram = Histogram::default();
    histogram.set_sample_count(counts.all());
    histogram.set_sample_sum(counts.sum_seconds());
    histogram.set_bucket(buckets.map(bucket).collect());
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}

fn family(
    spec: &MetricSpec,
    kind: MetricType,
    lines: &[SeriesLine],
    values: impl Fn(&SeriesLine) -> LabelledValues<Metric>,
) -> MetricFamily {
    let named = |line: &SeriesLine| {
        let name = pair("endpoint", &line.endpoint);
        let add_name = move |(mut labels, mut metric): (Vec<LabelPair>, Metric)| {
            labels.push(name.clone());
            labels.sort_by(|a, b| a.name().cmp(b.name()));
            metric.set_label(labels);
            metric
        };
        values(line).into_iter().map(add_name).collect::<Vec<_>>()
    };
    let mut family = MetricFamily::default();
    family.set_name(spec.name.to_owned());
    family.set_help(spec.help.to_owned());
    family.set_field_type(kind);
    family.set_metric(lines.iter().flat_map(named).collect());
    family
}
