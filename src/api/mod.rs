//! The HTTP surface: health, readiness, metrics, stats, status; endpoints, dead letters, push log,
//! replay.
//!
//! Reads copies through handles, and hands what changes something to those who may; it never holds
//! up the flow of events. With a token set, everything but `/health`, `/ready` and `/metrics` needs
//! `Authorization: Bearer`; without one, only the names of the loopback are answered.
//!
//! | file | holds |
//! | --- | --- |
//! | `admin_answer` | An answer of the administration, and what a call expects of it |
//! | `admin_caller` | Asks whoever administers endpoints, on behalf of a request |
//! | `handler_answers` | Answers of handlers: with a status of their own, of a dry run, of texts that are no JSON |
//! | `backfill_calls` | What is asked of whoever reads rows that were there before |
//! | `backfills` | `/api/v1/backfills` |
//! | `endpoint_condition` | How an endpoint does, in words, and what is to be done about it |
//! | `connections` | The connections of the HTTP surface |
//! | `dead_letters` | `/api/v1/dead-letters` |
//! | `described_types` | What the types of a handler say of its operation |
//! | `document_shape` | The shape of a document that another room reads |
//! | `endpoint_answers` | What the administration answers, each answer with its type |
//! | `endpoint_calls` | What is asked of whoever administers endpoints |
//! | `endpoint_document` | The document that an endpoint is made of, as the API takes and shows it |
//! | `endpoints` | `/api/v1/endpoints` |
//! | `events` | `GET /api/v1/events/{event_id}` |
//! | `field_kinds` | Kinds of fields in requests and answers |
//! | `fields` | Parameters of a request by name |
//! | `guard` | Who may ask |
//! | `allowed_hosts` | By which names walhook may be asked while there is no token |
//! | `letter_bulk` | Dead letters by the filter rather than by the page |
//! | `letter_fields` | How dead letters are chosen and shown |
//! | `live` | `GET /api/v1/live`, server-sent events |
//! | `live_readers` | Who reads `/api/v1/live`, and that they are few |
//! | `message_history` | `GET /api/v1/messages/{message_id}/status` and `/history` |
//! | `message_queries` | Where messages are looked up |
//! | `openapi` | `GET /api/v1/openapi.json` |
//! | `operation` | An operation of the surface: its path, who answers it, and what the document says of it |
//! | `operations` | Every operation of the surface |
//! | `operator_orders` | What operators have ordered, named by a number |
//! | `overview` | The last hour and day in numbers |
//! | `page` | The page that an operator looks at, and how it gets in |
//! | `path_parts` | Parts of paths that name something |
//! | `problem` | Errors as `application/problem+json` (RFC 9457) |
//! | `push_logs` | `GET /api/v1/push-logs` |
//! | `refusals` | What the surface refuses, seen |
//! | `replay` | `/api/v1/replay` |
//! | `request` | What a request brings |
//! | `request_shape` | What a request may say, as a type |
//! | `routes` | What stands before every operation |
//! | `schemas` | Schemas of the document, made of types |
//! | `shared_refusal` | Refusals that many operations have |
//! | `source` | The database behind the events: its slot, tables, findings; a row to try |
//! | `source_status` | The source as the API shows it |
//! | `state_queries` | What the surface can look up and ask for in the state, beside the deliveries |
//! | `stats` | `GET /api/v1/webhook/stats`, as `ocr-wallet` reads it |
//! | `status` | `/health`, `/ready`, `/metrics` and `GET /api/v1/status` |
//! | `status_report` | What `GET /api/v1/status` shows |
//! | `success_answer` | Answers of the calls that clients of the five systems make |
//! | `surface` | What the surface shows, by handles to those who know it |
//! | `webhook_api` | Calls of `wechat-messages`, at the paths and with the field names that its clients have |
//! | `webhook_fields` | A webhook as clients of `wechat-messages` write and see it |

pub(crate) mod admin_answer;
mod admin_caller;
pub(crate) mod allowed_hosts;
pub(crate) mod backfill_calls;
mod backfills;
mod connections;
mod dead_letters;
mod described_types;
mod document_shape;
pub(crate) mod endpoint_answers;
pub(crate) mod endpoint_calls;
mod endpoint_condition;
mod endpoint_document;
mod endpoints;
mod events;
pub(crate) mod field_kinds;
mod fields;
mod guard;
mod handler_answers;
mod letter_bulk;
mod letter_fields;
mod live;
pub(crate) mod live_readers;
mod message_history;
pub(crate) mod message_queries;
pub(crate) mod openapi;
mod operation;
mod operations;
mod operator_orders;
mod overview;
mod page;
mod path_parts;
mod problem;
mod push_logs;
pub(crate) mod refusals;
mod replay;
mod request;
mod request_shape;
mod routes;
mod schemas;
mod shared_refusal;
mod source;
mod source_status;
pub(crate) mod state_queries;
mod stats;
mod status;
mod status_report;
mod success_answer;
pub(crate) mod surface;
mod webhook_api;
pub(crate) mod webhook_fields;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::surface::HttpSurface;

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, surface: HttpSurface, stop: CancellationToken) {
    let refusals = surface.refusals.clone();
    connections::serve(listener, routes::router(surface), refusals, stop).await;
}
