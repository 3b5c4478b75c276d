//! What answers each call: one file for a path, or for a few that belong together.
//!
//! | file | holds |
//! | --- | --- |
//! | `backfills` | `/api/v1/backfills` |
//! | `dead_letters` | `/api/v1/dead-letters` |
//! | `endpoints` | `/api/v1/endpoints` |
//! | `events` | `GET /api/v1/events/{event_id}` |
//! | `letter_bulk` | `/api/v1/dead-letters/groups` and `/cancel`: by the filter rather than by the page |
//! | `live` | `GET /api/v1/live`, server-sent events |
//! | `members` | `GET /api/v1/members`: who delivers for the source |
//! | `message_history` | `GET /api/v1/messages/{message_id}/status` and `/history` |
//! | `overview` | `GET /api/v1/overview` and samples: the last hour and day in numbers |
//! | `push_logs` | `GET /api/v1/push-logs` |
//! | `replay` | `/api/v1/replay` |
//! | `source` | `GET /api/v1/source`, `/findings`, `POST /api/v1/try`: the database behind the events: its slot, tables, findings; a row to try |
//! | `stats` | `GET /api/v1/webhook/stats`, as `ocr-wallet` reads it |
//! | `status` | `/health`, `/ready`, `/metrics` and `GET /api/v1/status` |
//! | `webhook_api` | Calls of `wechat-messages`, at the paths and with the field names that its clients have |

pub(crate) mod backfills;
pub(crate) mod dead_letters;
pub(crate) mod endpoints;
pub(crate) mod events;
pub(crate) mod letter_bulk;
pub(crate) mod live;
pub(crate) mod members;
pub(crate) mod message_history;
pub(crate) mod overview;
pub(crate) mod push_logs;
pub(crate) mod replay;
pub(crate) mod source;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod webhook_api;
