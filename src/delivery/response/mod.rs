//! What is read of a response, and what follows from it.
//!
//! | file | holds |
//! | --- | --- |
//! | `redact` | What a receiver says of the URL that it was called at |
//! | `reply` | What is read of a response, within limits whatever the receiver sends |
//! | `reply_verdict` | What follows from a reply |

pub(crate) mod redact;
pub(crate) mod reply;
pub(crate) mod reply_verdict;
