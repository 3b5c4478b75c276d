//! What the tests share: a real PostgreSQL and the real program.

pub(crate) mod postgres;
pub(crate) mod program;
