//! Plain SQL connections to PostgreSQL.
