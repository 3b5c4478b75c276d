//! The sections of the configuration file, each read and checked: what comes of them is in `settings`.
//!
//! | file | holds |
//! | --- | --- |
//! | `channel` | `channel` of an `[[endpoint]]`, and the keys that stand beside it |
//! | `delivery_terms` | The terms on which an endpoint is served |
//! | `endpoint_connection` | `tls`, `proxy` and `http2` of an `[[endpoint]]` |
//! | `endpoint` | `[[endpoint]]` |
//! | `endpoints_from` | `[endpoints_from]` |
//! | `event` | `[[event]]` |
//! | `headers` | Headers that the configuration adds to requests, and the credentials in them |
//! | `inbound` | `[inbound]` and `[[inbound.source]]` |
//! | `messages` | `[messages]` |
//! | `ocr_wallet` | The preset `ocr-wallet` |
//! | `parking` | `park_after`, `breaker` and `backlog` |
//! | `payload` | `payload`, `payload_file` and `content_type` |
//! | `postgres` | `[postgres]`, `[state]` and `[backfill]`: the servers |
//! | `process` | `[http]`, `[push_log]`, `[dead_letters]`, `[memory]`, `[metrics]`, `[log]` and `[shutdown]` |
//! | `relay` | `[relay]` |
//! | `response_rules` | `success`, `retry.on` and `gone` |
//! | `run_time_endpoints` | `[endpoints]` and `[webhook_api]` |
//! | `signing` | `secret` and `signing` |
//! | `subscriptions` | An existing file of subscriptions, `customer-events`'s |
//! | `telemetry` | `[telemetry]`, and OpenTelemetry's own variables |
//! | `webhook` | `[webhook]` |
//! | `write_back` | `write_back` of an `[[event]]` |

pub(crate) mod channel;
pub(crate) mod delivery_terms;
pub(crate) mod endpoint;
pub(crate) mod endpoint_connection;
pub(crate) mod endpoints_from;
pub(crate) mod event;
pub(crate) mod headers;
pub(crate) mod inbound;
pub(crate) mod messages;
pub(crate) mod ocr_wallet;
pub(crate) mod parking;
pub(crate) mod payload;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod response_rules;
pub(crate) mod run_time_endpoints;
pub(crate) mod signing;
pub(crate) mod subscriptions;
pub(crate) mod telemetry;
pub(crate) mod webhook;
pub(crate) mod write_back;
