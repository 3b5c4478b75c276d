//! `config::sections::telemetry`, by cases.

use std::collections::BTreeMap;

use super::*;
use crate::config;
use crate::config::configuration::Settings;
use crate::config::problem::ConfigProblems;

const SOUND: &str = "postgres.url = 'postgres://u@h/d'\nwebhook.urls = ['https://h/']\n";

type Variables<'a> = &'a [(&'a str, &'a str)];

fn read_with(more: &str, variables: Variables<'_>) -> Result<Settings, ConfigProblems> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let env = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    config::parse(&format!("{SOUND}{more}"), "walhook.toml", &env)
}

fn telemetry(more: &str, variables: Variables<'_>) -> TelemetrySettings {
    read_with(more, variables).unwrap_or_else(|problems| panic!("{problems}")).telemetry
}

fn urls(telemetry: &TelemetrySettings) -> Vec<String> {
    let collector = telemetry.collector.as_ref();
    let targets = collector.map(|collector| [&collector.traces, &collector.metrics]);
    let urls = targets.into_iter().flatten().flatten();
    urls.map(|url| url.reveal().to_string()).collect()
}

#[test]
fn nothing_is_sent_unless_the_section_or_its_variables_say_where() {
    let variable = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")];
    assert_eq!(telemetry("", &variable), TelemetrySettings::default(), "nobody has asked");
    assert_eq!(telemetry("[telemetry]", &[]), TelemetrySettings::default());
    let both = ["http://c:4318/v1/traces", "http://c:4318/v1/metrics"];
    assert_eq!(urls(&telemetry("[telemetry]", &variable)), both);
    let written = "[telemetry]\nendpoint = 'https://o/otlp/'";
    assert_eq!(
        urls(&telemetry(written, &variable)),
        ["https://o/otlp/v1/traces", "https://o/otlp/v1/metrics"]
    );
    let disabled = [variable[0], ("OTEL_SDK_DISABLED", "true")];
    assert_eq!(urls(&telemetry("[telemetry]", &disabled)), Vec::<String>::new());
}

#[test]
fn signals_are_chosen_by_the_section_or_the_variables() {
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    let cases: [(&str, Variables<'_>, &[&str]); 5] = [
        ("signals = ['metrics']", &[base], &["http://c:4318/v1/metrics"]),
        ("", &[base, ("OTEL_METRICS_EXPORTER", "none")], &["http://c:4318/v1/traces"]),
        ("", &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/x")], &["http://t/x"]),
        (
            "",
            &[base, ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m/x")],
            &["http://c:4318/v1/traces", "http://m/x"],
        ),
        ("signals = []", &[base], &[]),
    ];
    for (more, variables, expected) in cases {
        let found = urls(&telemetry(&format!("[telemetry]\n{more}"), variables));
        assert_eq!(found, expected, "case: {more} {variables:?}");
    }
}

#[test]
fn variables_fill_in_what_the_section_leaves_open() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-team = a"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_SERVICE_NAME", "pusher"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,team=a%2Cb"),
    ];
    let collector = telemetry("[telemetry]", &variables).collector.unwrap();
    assert_eq!(collector.headers["authorization"], "Bearer abc");
    assert!(collector.headers["authorization"].is_sensitive());
    assert_eq!(collector.headers["x-team"], "a");
    assert_eq!(collector.timeout, Duration::from_millis(1500));
    assert_eq!(collector.metrics_interval, Duration::from_secs(5));
    assert_eq!(collector.sampling, TraceSampling { share: 0.25, follows_writer: true });
    assert_eq!(collector.service_name, "pusher");
    assert_eq!(collector.attributes[1], (String::from("team"), String::from("a,b")));
    let written = "[telemetry]\nheaders = { X-Team = 'b' }\ntimeout = '2s'\nsample = 1\n\
                   metrics_interval = '10s'\nservice_name = 'other'";
    let collector = telemetry(written, &variables).collector.unwrap();
    assert_eq!(
        (collector.headers.len(), &collector.headers["x-team"]),
        (1, &http::HeaderValue::from_static("b"))
    );
    assert_eq!(collector.timeout, Duration::from_secs(2));
    assert_eq!(collector.sampling, TraceSampling { share: 1.0, follows_writer: true });
    assert_eq!(collector.service_name, "other");
    let samplers = [
        ("always_on", 1.0, false),
        ("parentbased_always_off", 0.0, true),
        ("traceidratio", 0.25, false),
    ];
    for (name, share, follows_writer) in samplers {
        let mut variables = variables;
        variables[4].1 = name;
        let sampling = telemetry("[telemetry]", &variables).collector.unwrap().sampling;
        assert_eq!(sampling, TraceSampling { share, follows_writer }, "case: {name}");
    }
}

#[test]
fn what_is_wrong_is_named_and_no_value_of_a_variable_is_shown() {
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    let cases: [(&str, Variables<'_>, &str); 12] = [
        ("endpoint = 'c:4318'", &[], "telemetry.endpoint: is not a web address"),
        ("sample = 2", &[], "telemetry.sample: 2 is out of range"),
        ("signals = ['logs']", &[], "telemetry.signals: \"logs\" is not known"),
        ("sampler = 1", &[], "did you mean `sample`"),
        ("headers = { x = 'y' }", &[], "telemetry.headers: has no use without `endpoint`"),
        ("service_name = ' '", &[], "telemetry.service_name: is empty"),
        (
            "",
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2")],
            "$OTEL_EXPORTER_OTLP_ENDPOINT is not a web address",
        ),
        (
            "",
            &[base, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            "$OTEL_EXPORTER_OTLP_PROTOCOL is not spoken",
        ),
        ("", &[base, ("OTEL_TRACES_SAMPLER", "hunter2")], "$OTEL_TRACES_SAMPLER is no sampler"),
        (
            "",
            &[base, ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")],
            "$OTEL_EXPORTER_OTLP_HEADERS is no list",
        ),
        (
            "",
            &[base, ("OTEL_EXPORTER_OTLP_TIMEOUT", "hunter2")],
            "$OTEL_EXPORTER_OTLP_TIMEOUT is no number",
        ),
        (
            "",
            &[base, ("OTEL_METRICS_EXPORTER", "hunter2")],
            "$OTEL_METRICS_EXPORTER is no exporter",
        ),
    ];
    for (more, variables, expected) in cases {
        let problems =
            read_with(&format!("[telemetry]\n{more}"), variables).unwrap_err().to_string();
        assert!(problems.contains(expected), "case: {more} {variables:?}: {problems}");
        assert!(!problems.contains("hunter2"), "case: {more} {variables:?}: {problems}");
    }
}

#[test]
fn a_column_of_traces_needs_somebody_who_is_told_of_them() {
    let event = "[[event]]\ntype = 'a'\ntable = 'things'\ntraceparent = 'trace'\n";
    let problems = read_with(event, &[]).unwrap_err().to_string();
    assert!(problems.contains("`traceparent` of event a has no use"), "{problems}");
    for more in ["traceparent = true", "endpoint = 'http://c:4318'"] {
        let settings = read_with(&format!("{event}[telemetry]\n{more}"), &[]).unwrap();
        assert!(settings.events[0].trace.is_wanted, "case: {more}");
        assert!(settings.events[0].columns().contains("trace"), "case: {more}");
    }
    let metrics = "[telemetry]\nendpoint = 'http://c:4318'\nsignals = ['metrics']";
    assert!(read_with(&format!("{event}{metrics}"), &[]).is_err());
}
