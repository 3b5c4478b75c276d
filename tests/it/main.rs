//! The tests that drive the real program against a real PostgreSQL and real receivers.

mod catalog;
mod crash;
mod decode;
mod endurance;
mod http_manners;
mod kills;
mod lanes;
mod letters;
mod memory;
mod ocr_wallet;
mod outage;
mod own_shapes;
mod parking;
mod poison;
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
