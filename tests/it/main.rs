//! The tests that drive the real program against a real PostgreSQL.

mod http_manners;
mod support;
