//! What requests are read into, and what is asked of the other rooms for them.
//!
//! | file | holds |
//! | --- | --- |
//! | `backfill_calls` | What is asked of the backfill service |
//! | `endpoint_calls` | What is asked of the administration of endpoints |
//! | `endpoint_document` | The document that an endpoint is made of, as the API takes and shows it |
//! | `endpoint_pages` | Which of many endpoints a list shows |
//! | `field_kinds` | Kinds of fields in requests and answers |
//! | `fields` | Parameters of a request by name |
//! | `letter_fields` | How dead letters are chosen and shown |
//! | `message_queries` | Where messages are looked up |
//! | `operator_orders` | What operators have ordered, named by a number |
//! | `path_parts` | Parts of paths that name something |
//! | `request` | What a request brings |
//! | `state_queries` | What the surface can look up and ask for in the state, beside the deliveries |
//! | `webhook_fields` | A webhook as clients of `wechat-messages` write and see it |

pub(crate) mod backfill_calls;
pub(crate) mod endpoint_calls;
pub(crate) mod endpoint_document;
pub(crate) mod endpoint_pages;
pub(crate) mod field_kinds;
pub(crate) mod fields;
pub(crate) mod letter_fields;
pub(crate) mod message_queries;
pub(crate) mod operator_orders;
pub(crate) mod path_parts;
pub(crate) mod request;
pub(crate) mod state_queries;
pub(crate) mod webhook_fields;
