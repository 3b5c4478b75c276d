//! Change to event: route, filter, expiry, payload. Pure.
