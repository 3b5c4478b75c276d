//! The tests that drive the real program against a real PostgreSQL and real receivers.

mod catalog;
mod crash;
mod decode;
mod endurance;
mod http_manners;
mod memory;
mod sandbox;
mod state;
mod support;
mod types;
mod wire;
