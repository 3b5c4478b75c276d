//! The metrics as OTLP has them: the series of `/metrics` under their own names, cumulative.

use opentelemetry_proto::tonic::metrics::v1::AggregationTemporality;
use opentelemetry_proto::tonic::metrics::v1::Gauge;
use opentelemetry_proto::tonic::metrics::v1::Histogram;
use opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::Sum;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use prometheus::proto::MetricFamily;
use prometheus::proto::MetricType;

use crate::telemetry::otlp::span::text_attribute;

/// Since when counters count, and when they were looked at, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeriesTimes {
    pub(super) start: u64,
    pub(super) now: u64,
}

/// All families; one of a kind that walhook does not have is left out.
pub(super) fn metrics(families: Vec<MetricFamily>, times: SeriesTimes) -> Vec<Metric> {
    families.iter().filter_map(|family| metric(family, times)).collect()
}

fn metric(family: &MetricFamily, times: SeriesTimes) -> Option<Metric> {
    let cumulative = AggregationTemporality::Cumulative as i32;
    let data = match family.get_field_type() {
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: numbers(family, times, |series| series.get_counter().get_value()),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::GAUGE => {
            let data_points = numbers(family, times, |series| series.get_gauge().get_value());
            Data::Gauge(Gauge { data_points })
        }
        MetricType::HISTOGRAM => {
            let series = family.get_metric().iter();
            let data_points = series.map(|series| distribution(series, times)).collect();
            Data::Histogram(Histogram { data_points, aggregation_temporality: cumulative })
        }
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    Some(Metric {
        name: family.name().to_owned(),
        description: family.help().to_owned(),
        unit: unit(family.name()).to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

fn numbers(
    family: &MetricFamily,
    times: SeriesTimes,
    value: impl Fn(&prometheus::proto::Metric) -> f64,
) -> Vec<NumberDataPoint> {
    let point = |series: &prometheus::proto::Metric| NumberDataPoint {
        attributes: labels(series),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        value: Some(Value::AsDouble(value(series))),
        ..NumberDataPoint::default()
    };
    family.get_metric().iter().map(point).collect()
}

/// Prometheus counts up to each bound, OTLP between one and the next.
fn distribution(series: &prometheus::proto::Metric, times: SeriesTimes) -> HistogramDataPoint {
    let histogram = series.get_histogram();
    let finite = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let (mut below, mut bounds, mut counts) = (0, Vec::new(), Vec::new());
    for bucket in finite {
        bounds.push(bucket.upper_bound());
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    let count = histogram.get_sample_count();
    counts.push(count.saturating_sub(below));
    HistogramDataPoint {
        attributes: labels(series),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count,
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

fn labels(
    series: &prometheus::proto::Metric,
) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    let labels = series.get_label().iter();
    labels.map(|label| text_attribute(label.name(), label.value())).collect()
}

/// As UCUM writes it, from the end of the name.
fn unit(name: &str) -> &'static str {
    let name = name.trim_end_matches("_total");
    match name {
        _ if name.ends_with("_seconds") => "s",
        _ if name.ends_with("_bytes") => "By",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::HistogramOpts;
    use prometheus::IntCounterVec;
    use prometheus::IntGauge;
    use prometheus::Opts;
    use prometheus::Registry;

    const TIMES: SeriesTimes = SeriesTimes { start: 1, now: 9 };

    #[test]
    fn counters_gauges_and_histograms_keep_names_labels_and_numbers() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_total", "help"), &["endpoint"]).unwrap();
        let gauge = IntGauge::new("b_bytes", "help").unwrap();
        let options = HistogramOpts::new("c_seconds", "help").buckets(vec![0.1, 1.0]);
        let histogram = prometheus::Histogram::with_opts(options).unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        registry.register(Box::new(gauge.clone())).unwrap();
        registry.register(Box::new(histogram.clone())).unwrap();
        counter.with_label_values(&["crm"]).inc_by(7);
        gauge.set(-3);
        [0.05, 0.5, 0.5, 5.0].into_iter().for_each(|seconds| histogram.observe(seconds));
        let found = metrics(registry.gather(), TIMES);
        let names: Vec<_> = found.iter().map(|m| (m.name.as_str(), m.unit.as_str())).collect();
        assert_eq!(names, [("a_total", ""), ("b_bytes", "By"), ("c_seconds", "s")]);
        let [Some(Data::Sum(sum)), Some(Data::Gauge(gauge)), Some(Data::Histogram(times))] =
            [&found[0].data, &found[1].data, &found[2].data]
        else {
            panic!("{found:?}")
        };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
        assert_eq!(sum.data_points[0].value, Some(Value::AsDouble(7.0)));
        assert_eq!(sum.data_points[0].attributes, [text_attribute("endpoint", "crm")]);
        assert_eq!(
            (sum.data_points[0].start_time_unix_nano, sum.data_points[0].time_unix_nano),
            (1, 9)
        );
        assert_eq!(gauge.data_points[0].value, Some(Value::AsDouble(-3.0)));
        let point = &times.data_points[0];
        assert_eq!((point.count, point.sum), (4, Some(6.05)));
        assert_eq!(
            (&point.explicit_bounds[..], &point.bucket_counts[..]),
            (&[0.1, 1.0][..], &[1, 2, 1][..])
        );
    }
}
