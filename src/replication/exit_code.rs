//! What `walhook` exits with when its source stops.

/// What `walhook` exits with when PostgreSQL refuses or is not set up.
pub(crate) const EXIT_NOT_SET_UP: u8 = 3;
/// What `walhook` exits with when changes are lost.
pub(crate) const EXIT_SLOT_LOST: u8 = 4;
/// Everything else.
pub(crate) const EXIT_FAILED: u8 = 1;
