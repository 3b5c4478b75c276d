//! The HTTP surface: health, readiness, metrics, stats, status.
