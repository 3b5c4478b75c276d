//! The HTTP surface: health, readiness, metrics, stats, status; endpoints, dead letters, push log,
//! replay.
//!
//! Reads copies through handles, and hands what changes something to those who may; it never holds
//! up the flow of events. With a token set, everything but `/health`, `/ready` and `/metrics` needs
//! `Authorization: Bearer`; without one, only the names of the loopback are answered.
//!
//! | file | holds |
//! | --- | --- |
//! | `backfill_calls` | What is asked of whoever reads rows that were there before |
//! | `backfills` | `/api/v1/backfills` |
//! | `condition` | How an endpoint does, in words, and what is to be done about it |
//! | `connections` | The connections of the HTTP surface |
//! | `dead_letters` | `/api/v1/dead-letters` |
//! | `endpoint_calls` | What is asked of whoever administers endpoints |
//! | `endpoints` | `/api/v1/endpoints` |
//! | `events` | `GET /api/v1/events/{event_id}` |
//! | `fields` | Parameters of a request, from its query or its JSON body |
//! | `guard` | Who may ask |
//! | `host` | By which names walhook may be asked while there is no token |
//! | `letter_bulk` | Dead letters by the filter rather than by the page |
//! | `live` | `GET /api/v1/live`, server-sent events |
//! | `live_readers` | Who reads `/api/v1/live`, and that they are few |
//! | `message_history` | `GET /api/v1/messages/{message_id}/status` and `/history` |
//! | `message_queries` | Where messages are looked up |
//! | `openapi` | `GET /api/v1/openapi.json` |
//! | `orders` | What operators have ordered, named by a number |
//! | `overview` | The last hour and day in numbers |
//! | `page` | The page that an operator looks at, and how it gets in |
//! | `problem` | Errors as `application/problem+json` (RFC 9457) |
//! | `push_logs` | `GET /api/v1/push-logs` |
//! | `refusals` | What the surface refuses, seen |
//! | `replay` | `/api/v1/replay` |
//! | `request` | What a request brings |
//! | `routes` | Every path of the surface |
//! | `source` | The database behind the events: its slot, tables, findings; a row to try |
//! | `state_queries` | What the surface can look up and ask for in the state, beside the deliveries |
//! | `stats` | `GET /api/v1/webhook/stats`, contract 1 |
//! | `status` | `/health`, `/ready`, `/metrics` and `GET /api/v1/status` |
//! | `surface` | What the surface shows, by handles to those who know it |
//! | `webhook_api` | Contract 4's calls, at the paths and with the field names that its clients have |

pub(crate) mod backfill_calls;
mod backfills;
mod condition;
mod connections;
mod dead_letters;
pub(crate) mod endpoint_calls;
mod endpoints;
mod events;
mod fields;
mod guard;
pub(crate) mod host;
mod letter_bulk;
mod live;
pub(crate) mod live_readers;
mod message_history;
pub(crate) mod message_queries;
mod openapi;
mod orders;
mod overview;
mod page;
mod problem;
mod push_logs;
pub(crate) mod refusals;
mod replay;
mod request;
mod routes;
mod source;
pub(crate) mod state_queries;
mod stats;
mod status;
pub(crate) mod surface;
mod webhook_api;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::surface::HttpSurface;

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, surface: HttpSurface, stop: CancellationToken) {
    let refusals = surface.refusals.clone();
    connections::serve(listener, routes::router(surface), refusals, stop).await;
}
