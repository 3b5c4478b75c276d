//! `walhook.toml` and the environment, checked and typed.

pub mod secret;
pub mod settings;
