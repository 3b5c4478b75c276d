//! A private, throw-away PostgreSQL for `demo` and the tests.
