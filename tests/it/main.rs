//! The tests that drive the real program against a real PostgreSQL and real receivers.

mod catalog;
mod crash;
mod decode;
mod endpoints;
mod endurance;
mod http_manners;
mod lanes;
mod letters;
mod memory;
mod ocr_wallet;
mod own_shapes;
mod parking;
mod push_logs;
mod refusals;
mod restart;
mod sandbox;
mod shapes;
mod shutdown;
mod standby;
mod state;
mod support;
mod surface;
mod types;
mod wire;
