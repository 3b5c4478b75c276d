//! Change to event: route, filter, expiry, payload. Pure.

pub mod datum;
