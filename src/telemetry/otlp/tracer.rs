//! Which events are traced, and the way of their spans to the exporter.

use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::config::settings::TraceSampling;
use crate::flow::event::Event;
use crate::flow::trace::SpanId;
use crate::flow::trace::TraceContext;
use crate::flow::trace::TraceId;
use crate::telemetry::otlp::span::FinishedSpan;
use crate::telemetry::otlp::span::SpanParent;

/// Spans that wait for the exporter; one takes about a KiB.
pub(crate) const SPANS_MAX: usize = 4096;

/// The spans of an event that others are below.
const CHANGE: &str = "change";
const EVENT: &str = "event";

/// Decides about events, and takes their spans. Clones are one.
#[derive(Clone, Debug)]
pub struct EventTracer {
    sampling: TraceSampling,
    spans: mpsc::Sender<FinishedSpan>,
    dropped: IntCounter,
}

/// An event whose trace is recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TracedEvent {
    pub trace: TraceId,
    /// The writer's span, where it gave one.
    pub parent: SpanParent,
    /// Of the change as it was read.
    pub change: SpanId,
    /// Of the event that it became. What is sent is below it.
    pub event: SpanId,
}

impl EventTracer {
    /// With the end that the exporter takes spans from.
    pub fn new(
        sampling: TraceSampling,
        dropped: IntCounter,
    ) -> (Self, mpsc::Receiver<FinishedSpan>) {
        let (spans, taken) = mpsc::channel(SPANS_MAX);
        (Self { sampling, spans, dropped }, taken)
    }

    /// The event's trace, if it is recorded: the same answer each time, also after a restart.
    pub fn traced(&self, event: &Event) -> Option<TracedEvent> {
        let writer = TraceContext::of_writer(event);
        let trace = writer.map_or_else(|| TraceId::of_event(event.id), |writer| writer.trace);
        is_sampled(self.sampling, trace, writer).then(|| TracedEvent {
            trace,
            parent: writer.map_or(SpanParent::None, |writer| SpanParent::Remote(writer.span)),
            change: SpanId::of_event(event.id, CHANGE),
            event: SpanId::of_event(event.id, EVENT),
        })
    }

    /// Hands a span to the exporter, unless too many wait for it.
    pub fn record(&self, span: FinishedSpan) {
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

/// The lower 63 bits of the id against the share, as OpenTelemetry's own samplers do it.
fn is_sampled(sampling: TraceSampling, trace: TraceId, writer: Option<TraceContext>) -> bool {
    if let Some(writer) = writer.filter(|_| sampling.follows_writer) {
        return writer.is_sampled;
    }
    if sampling.share >= 1.0 {
        return true;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the product lies between 0 and 2^63"
    )]
    let bound = (sampling.share.max(0.0) * 2f64.powi(63)) as u64;
    trace.lower() >> 1 < bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::event::EventId;
    use crate::flow::event::IdOrigin;
    use crate::flow::lsn::Lsn;
    use crate::flow::lsn::Position;

    fn trace(commit: u64) -> TraceId {
        let position = Position { commit: Lsn::from_raw(commit), ordinal: 0 };
        TraceId::of_event(EventId::new(position, IdOrigin::new(7, "a")))
    }

    fn writer(flags: &str) -> Option<TraceContext> {
        let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        Some(TraceContext::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_writer_decides_where_it_is_followed_and_the_share_elsewhere() {
        let cases = [
            ("all", 1.0, true, None, true),
            ("none", 0.0, true, None, false),
            ("the writer's yes", 0.0, true, writer("01"), true),
            ("the writer's no", 1.0, true, writer("00"), false),
            ("a no that is not followed", 1.0, false, writer("00"), true),
            ("a yes that is not followed", 0.0, false, writer("01"), false),
        ];
        for (name, share, follows_writer, writer, expected) in cases {
            let sampling = TraceSampling { share, follows_writer };
            assert_eq!(is_sampled(sampling, trace(1), writer), expected, "case: {name}");
        }
    }

    #[test]
    fn a_share_is_about_that_share_and_the_smaller_lies_in_the_larger() {
        let sampled = |share, commit| {
            is_sampled(TraceSampling { share, follows_writer: true }, trace(commit), None)
        };
        for (share, least, most) in [(0.01, 60, 140), (0.25, 2300, 2700), (0.5, 4800, 5200)] {
            let found = (0..10_000).filter(|commit| sampled(share, *commit)).count();
            assert!((least..most).contains(&found), "{share}: {found} of 10000");
        }
        assert!((0..10_000).all(|commit| !sampled(0.01, commit) || sampled(0.25, commit)));
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let sampling = TraceSampling { share: 1.0, follows_writer: true };
        let (tracer, _taken) = EventTracer::new(sampling, dropped.clone());
        let times = Default::default();
        let id = EventId::new(Position { commit: Lsn::ZERO, ordinal: 0 }, IdOrigin::new(7, "a"));
        let span = SpanId::of_event(id, EVENT);
        for _ in 0..SPANS_MAX + 3 {
            tracer.record(FinishedSpan::new(
                trace(1),
                span,
                SpanParent::None,
                String::new(),
                times,
            ));
        }
        assert_eq!(dropped.get(), 3);
    }
}
