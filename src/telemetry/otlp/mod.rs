//! Traces and metrics for OpenTelemetry, by OTLP over HTTP.
//!
//! ```text
//! pump, delivery ─ Span ─▶ [tracer] ─ bounded, never waited for ─▶ [exporter] ─ protobuf ─▶ collector
//!                         registry ─▶ [series] ──────────────────▶     │
//! ```
//!
//! Pump and delivery never wait: a span that finds the queue full is dropped and counted. Where nothing is
//! asked for there is neither tracer nor exporter.
//!
//! The messages are those of OpenTelemetry's own crate. Its SDK is not used: the ids of spans follow from the
//! event's id, so that a retry after a crash belongs to the trace of before; a span is known only when it has
//! ended; and the series are those of `/metrics`, which must not be counted twice.
//!
//! | file | holds |
//! | --- | --- |
//! | `exporter` | What goes to the collector, and when |
//! | `probe` | Whether the collector takes anything |
//! | `series` | The metrics as OTLP has them |
//! | `span` | Spans, and what they say |
//! | `tracer` | Which events are traced, and the way of their spans to the exporter |
//! | `upload` | One request to the collector |

pub(crate) mod exporter;
pub(crate) mod probe;
mod series;
pub(crate) mod span;
pub(crate) mod tracer;
mod upload;
