//! Sessions with PostgreSQL: from a URL to a connection that is watched.
//!
//! | file | holds |
//! | --- | --- |
//! | `answer_watch` | Ends a session whose server owes an answer and says nothing |
//! | `backend` | What the server of a session says of itself: its process, its WAL, its system |
//! | `certificate` | What is asked of a server's certificate that is trusted by itself: its time and its name |
//! | `dial` | Gets from a connection URL to an open `ServerTransport` |
//! | `login` | Who logs in, and with which password, at this moment |
//! | `prepared_statements` | Statements that a session sends again and again: parsed and planned once |
//! | `session_pool` | A few sessions for questions that people ask, beside those of the deliveries |
//! | `tls` | TLS to PostgreSQL |
//! | `transport` | The bytes of a connection |

pub(crate) mod answer_watch;
pub(crate) mod backend;
pub(crate) mod certificate;
pub(crate) mod dial;
pub(crate) mod login;
pub(crate) mod prepared_statements;
pub(crate) mod session_pool;
pub(crate) mod tls;
pub(crate) mod transport;
