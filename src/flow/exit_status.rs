//! How a command ends: the codes that scripts depend on, and what each says of who must act.

/// Exit codes, the graver the later.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ExitStatus {
    Done = 0,
    /// Anything that the other codes do not name.
    Failed = 1,
    /// Bad usage or configuration: nothing was begun.
    Usage = 2,
    /// PostgreSQL refuses or is not set up: privilege, `wal_level`, missing object.
    Postgres = 3,
    /// The slot is lost or there is a gap in what it sent.
    SlotLost = 4,
}
