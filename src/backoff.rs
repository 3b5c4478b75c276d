//! Waits that grow, with jitter.
