//! The spans above the attempts: a change, from its commit until it was read, and the event that it became.

use std::time::Duration;

use crate::clock::DatabaseClock;
use crate::clock::host_now;
use crate::clock::since_boot;
use crate::flow::change::ChangeOp;
use crate::flow::change::CommittedChange;
use crate::flow::event::Event;
use crate::flow::time::Timestamp;
use crate::telemetry::otlp::span::FinishedSpan;
use crate::telemetry::otlp::span::SpanParent;
use crate::telemetry::otlp::tracer::EventTracer;

/// Makes them for events that are traced.
pub(crate) struct ChangeSpans {
    tracer: EventTracer,
    clock: DatabaseClock,
}

impl ChangeSpans {
    pub(crate) fn new(tracer: EventTracer, clock: DatabaseClock) -> Self {
        Self { tracer, clock }
    }

    /// An event that is handed on to so many endpoints. Its change was `read_at` that time since boot.
    pub(super) fn record(
        &self,
        change: &CommittedChange,
        event: &Event,
        takers: usize,
        read_at: Duration,
    ) {
        let Some(traced) = self.tracer.traced(event) else { return };
        let now = host_now();
        // Attempts are on this host's clock, commits on the server's.
        let ahead = self.clock.now().micros().saturating_sub(now.micros());
        let committed = change.committed.shifted(ahead.saturating_neg());
        let waited = since_boot().saturating_sub(read_at).as_micros();
        let read = now.shifted(-i64::try_from(waited).unwrap_or_default());
        let (table, operation) = (event.table.to_string(), operation(&change.op));
        let name = format!("{operation} {table}");
        let times = |start: Timestamp, end: Timestamp| (start.min(end), end);
        let position = change.position;
        let read_span = FinishedSpan::new(
            traced.trace,
            traced.change,
            traced.parent,
            name,
            times(committed, read),
        )
        .consuming()
        .with_text("db.system.name", "postgresql")
        .with_text("db.collection.name", table)
        .with_text("db.operation.name", operation)
        .with_text("walhook.commit_lsn", position.commit.to_string())
        .with_count("walhook.ordinal", position.ordinal);
        self.tracer.record(read_span);
        let parent = SpanParent::Own(traced.change);
        let name = event.event_type.to_string();
        let event_span =
            FinishedSpan::new(traced.trace, traced.event, parent, name, times(read, now))
                .with_text("walhook.event.id", event.id.to_string())
                .with_text("walhook.event.type", &*event.event_type)
                .with_count("walhook.endpoints", i64::try_from(takers).unwrap_or(i64::MAX));
        self.tracer.record(event_span);
    }
}

fn operation(op: &ChangeOp) -> &'static str {
    match op {
        ChangeOp::Insert { .. } => "INSERT",
        ChangeOp::Update { .. } => "UPDATE",
        ChangeOp::Delete { .. } => "DELETE",
        ChangeOp::Truncate => "TRUNCATE",
        ChangeOp::Schema => "ALTER TABLE",
        ChangeOp::Read { .. } => "SELECT",
    }
}
