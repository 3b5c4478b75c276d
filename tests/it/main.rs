//! The tests that drive the real program against a real PostgreSQL.

mod decode;
mod types;
