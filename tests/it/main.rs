//! The tests that drive the real program against a real PostgreSQL.
