//! Spans, and what they say: names of the configuration, positions, counts. Never row data, nor a URL beyond its
//! origin.

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::span::Link;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use crate::flow::time::Timestamp;
use crate::flow::trace::SpanId;
use crate::flow::trace::TraceContext;
use crate::flow::trace::TraceId;

/// W3C's flag for a trace that is recorded, as a span's flags have it.
const SAMPLED: u32 = 0x01;
/// It is known whether the parent is of another process, and it is.
const PARENT_KNOWN: u32 = 0x100;
const PARENT_REMOTE: u32 = 0x200;

/// Who a span's parent is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SpanParent {
    None,
    /// Of this walhook, or an earlier one.
    Own(SpanId),
    /// The writer's.
    Remote(SpanId),
}

/// A span that has ended. `start` and `end` are on this host's clock.
#[derive(Clone, Debug)]
pub struct FinishedSpan(Span);

impl FinishedSpan {
    pub fn new(
        trace: TraceId,
        span: SpanId,
        parent: SpanParent,
        name: String,
        (start, end): (Timestamp, Timestamp),
    ) -> Self {
        let (parent, flags) = match parent {
            SpanParent::None => (None, 0),
            SpanParent::Own(parent) => (Some(parent), PARENT_KNOWN),
            SpanParent::Remote(parent) => (Some(parent), PARENT_KNOWN | PARENT_REMOTE),
        };
        Self(Span {
            trace_id: trace.bytes().to_vec(),
            span_id: span.bytes().to_vec(),
            parent_span_id: parent.map(|parent| parent.bytes().to_vec()).unwrap_or_default(),
            flags: flags | SAMPLED,
            name,
            kind: SpanKind::Internal as i32,
            start_time_unix_nano: nanos(start),
            end_time_unix_nano: nanos(end.max(start)),
            ..Span::default()
        })
    }

    /// It took something in from elsewhere.
    #[must_use]
    pub fn consuming(mut self) -> Self {
        self.0.kind = SpanKind::Consumer as i32;
        self
    }

    /// It is a call of another program.
    #[must_use]
    pub fn calling(mut self) -> Self {
        self.0.kind = SpanKind::Client as i32;
        self
    }

    #[must_use]
    pub fn with_text(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.attributes.push(attribute(key, Value::StringValue(value.into())));
        self
    }

    #[must_use]
    pub fn with_count(mut self, key: &str, count: impl Into<i64>) -> Self {
        self.0.attributes.push(attribute(key, Value::IntValue(count.into())));
        self
    }

    /// It belongs to another trace as well.
    #[must_use]
    pub fn linked(mut self, to: TraceContext) -> Self {
        self.0.links.push(Link {
            trace_id: to.trace.bytes().to_vec(),
            span_id: to.span.bytes().to_vec(),
            flags: SAMPLED,
            ..Link::default()
        });
        self
    }

    #[must_use]
    pub fn failed(mut self, why: String) -> Self {
        self.0.status = Some(Status { message: why, code: StatusCode::Error as i32 });
        self
    }

    pub(super) fn into_message(self) -> Span {
        self.0
    }
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

pub(super) fn text_attribute(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

pub(super) fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.micros()).unwrap_or_default().saturating_mul(1000)
}
