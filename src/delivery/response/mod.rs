//! What is read of a response, and what follows from it.
//!
//! | file | holds |
//! | --- | --- |
//! | `redact` | What a receiver says of the URL that it was called at |
//! | `reply_verdict` | What follows from a reply |
//! | `reply` | What is read of a response, within limits whatever the receiver sends |

pub(crate) mod redact;
pub(crate) mod reply;
pub(crate) mod reply_verdict;
