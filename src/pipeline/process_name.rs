//! The name of this process, as the holder of the slot and in leases.

/// What this process calls itself as the holder of the slot.
pub(crate) fn own_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("walhook {} on host {host}, pid {}", env!("CARGO_PKG_VERSION"), std::process::id())
}
