//! The tests that drive the real program against a real PostgreSQL and real receivers.

mod catalog;
mod decode;
mod http_manners;
mod sandbox;
mod shapes;
mod support;
mod types;
mod wire;
