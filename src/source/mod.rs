//! Reads committed changes from PostgreSQL by logical replication.
