//! What is read of a response, and what follows from it.
//!
//! | file | holds |
//! | --- | --- |
//! | `redact` | What a receiver says of the URL that it was called at |
//! | `reply_verdict` | The verdict on a response, by its status, headers and body |
//! | `reply` | What is read of a response, within limits whatever the receiver sends |
//! | `retry_after` | The `Retry-After` header |

pub(crate) mod redact;
pub(crate) mod reply;
pub(crate) mod reply_verdict;
pub(crate) mod retry_after;
