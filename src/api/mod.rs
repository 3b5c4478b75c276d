//! The HTTP surface: health, readiness, metrics, stats, status; endpoints, dead letters, push log,
//! replay.
//!
//! Reads copies through handles, and hands what changes something to the parts that may; it never holds
//! up the flow of events. With a token set, everything but `/health`, `/ready` and `/metrics` needs
//! `Authorization: Bearer`; without one, only the names of the loopback are answered.
//!
//! | file | holds |
//! | --- | --- |
//! | `admin_caller` | Asks the administration of endpoints, on behalf of a request |
//! | `allowed_hosts` | By which names walhook may be asked while there is no token |
//! | `answers` | What answers are made of: their types, their words, and errors |
//! | `connections` | The connections of the HTTP surface |
//! | `guard` | Who may ask |
//! | `handlers` | What answers each call: one file for a path, or for a few that belong together |
//! | `live_readers` | Who reads `/api/v1/live`, and that they are few |
//! | `openapi` | `GET /api/v1/openapi.json` |
//! | `page` | The page that an operator looks at, and how it gets in |
//! | `refusals` | What the surface refuses, seen |
//! | `requests` | What requests are read into, and what is asked of the other rooms for them |
//! | `routes` | What stands before every operation |
//! | `surface` | What the surface shows, by handles to the parts that know it |

mod admin_caller;
pub(crate) mod allowed_hosts;
pub(crate) mod answers;
mod connections;
mod guard;
mod handlers;
pub(crate) mod live_readers;
pub(crate) mod openapi;
mod page;
pub(crate) mod refusals;
pub(crate) mod requests;
mod routes;
pub(crate) mod surface;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::surface::HttpSurface;

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, surface: HttpSurface, stop: CancellationToken) {
    let refusals = surface.refusals.clone();
    connections::serve(listener, routes::router(surface), refusals, stop).await;
}
