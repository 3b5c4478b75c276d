//! What walhook says about itself: log lines, metrics and traces.
//!
//! Neither ever holds row data, secrets or URLs of endpoints: fields and labels are names from the
//! configuration, positions, counts and times.

mod fields;
mod lines;
pub(crate) mod metrics;
pub(crate) mod obstacles;
pub(crate) mod otlp;
pub(crate) mod samples;

use std::fmt;
use std::io;
use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::flow::time::Timestamp;
use crate::telemetry::fields::FieldText;
use crate::telemetry::lines::LineWriter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LogFormatter {
    /// For people: one short line an event, coloured on a terminal.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(
        "{filter:?} is not a log filter: give a level such as info, or levels for modules such as \
         info,walhook=debug"
    )]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("the log is set up already: set it up once, at the start of the process")]
    Taken(#[source] tracing_subscriber::util::TryInitError),
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
}

/// The process's log. It is dropped before the process ends, or the last lines are lost.
#[must_use]
pub(crate) struct LogSetup(LineWriter);

impl LogSetup {
    /// Writes what was logged until now.
    pub(crate) fn write_out(&self) {
        self.0.write_out();
    }
}

impl Drop for LogSetup {
    fn drop(&mut self) {
        self.write_out();
    }
}

/// Sends log lines that pass `filter` to standard error, from here on and for the whole process, with
/// the time that `now` tells.
///
/// # Errors
/// `filter` is not one, the process has a log already, or the system gives no thread.
pub(crate) fn init(
    format: LogFormatter,
    filter: &str,
    now: fn() -> Timestamp,
) -> Result<LogSetup, LogError> {
    let filter = parse_filter(filter)?;
    let coloured = io::stderr().is_terminal() && !asks_for_no_colour();
    let lines = LineWriter::start(Box::new(io::stderr())).map_err(LogError::Thread)?;
    let subscriber = subscriber(format, filter, coloured, LogTime(now), lines.clone());
    subscriber.try_init().map_err(LogError::Taken)?;
    Ok(LogSetup(lines))
}

/// Stands at the beginning of each line. The library's own takes three times as long to write.
struct LogTime(fn() -> Timestamp);

impl FormatTime for LogTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&self.0().iso_millis())
    }
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    let parsed = EnvFilter::builder().parse(filter);
    parsed.map_err(|source| LogError::Filter { filter: filter.to_owned(), source })
}

/// The convention of no-color.org: set and not empty.
fn asks_for_no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn subscriber<W>(
    format: LogFormatter,
    filter: EnvFilter,
    coloured: bool,
    time: LogTime,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_timer(time);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormatter::Text => {
            let layer = layer.fmt_fields(FieldText).compact().with_ansi(coloured);
            Box::new(registry.with(layer))
        }
        // Fields stand beside `level` and `message`, where log collectors look for them.
        LogFormatter::Json => {
            let layer = layer.json().flatten_event(true).with_span_list(false);
            Box::new(registry.with(layer))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::MutexGuard;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    struct HeldLines<'w>(MutexGuard<'w, Vec<u8>>);

    impl io::Write for HeldLines<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Lines {
        type Writer = HeldLines<'w>;

        fn make_writer(&'w self) -> HeldLines<'w> {
            HeldLines(self.0.lock().unwrap())
        }
    }

    const NOON: LogTime = LogTime(|| Timestamp::from_micros(1_763_812_800_000_000));

    fn logged(format: LogFormatter, filter: &str) -> String {
        let lines = Lines::default();
        let subscriber =
            subscriber(format, parse_filter(filter).unwrap(), false, NOON, lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            let _attempt = tracing::info_span!("attempt", endpoint = "crm").entered();
            tracing::warn!(status = 503, "gave up");
            tracing::debug!("skipped");
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_is_one_plain_line_an_event() {
        let text = logged(LogFormatter::Text, "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in
            ["2025-11-22T12:00:00.000Z", "WARN", "gave up", "status=503", "endpoint=\"crm\""]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains('\u{1b}'), "no colours where there is no terminal");
    }

    #[test]
    fn values_are_quoted_and_control_characters_escaped() {
        let lines = Lines::default();
        let filter = parse_filter("info").unwrap();
        let subscriber = subscriber(LogFormatter::Text, filter, false, NOON, lines.clone());
        let (wild, shown) = ("a\u{1b}[31m", format_args!("not {}", "quoted"));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(plain = "x y", count = 7, wild, quote = "\"", %shown, "said {wild}");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let expected = concat!(
            "said a\\u{1b}[31m plain=\"x y\" count=7 wild=\"a\\u{1b}[31m\" ",
            "quote=\"\\\"\" shown=not quoted\n"
        );
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn json_is_one_flat_object_an_event() {
        let text = logged(LogFormatter::Json, "debug");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["timestamp"], "2025-11-22T12:00:00.000Z");
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["message"], "gave up");
        assert_eq!(lines[0]["status"], 503);
        assert_eq!(lines[0]["span"]["endpoint"], "crm");
        assert_eq!(lines[1]["message"], "skipped");
    }

    #[test]
    fn a_filter_that_is_none_is_an_error_that_says_what_to_do() {
        let error = parse_filter("walhook=loud").unwrap_err();
        assert!(
            error.to_string().starts_with("\"walhook=loud\" is not a log filter: give a level")
        );
    }
}
