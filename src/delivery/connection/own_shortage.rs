//! What walhook or its system has none left of: no endpoint can be blamed for it, and no attempt is
//! spent.

use std::error::Error;
use std::io;

use rustix::io::Errno;

use crate::delivery::connection::resolve_error::LOOKUPS_BUSY;
use crate::delivery::connection::resolve_error::ResolveError;
use crate::delivery::connection::sockets::NoSocket;

/// What walhook has none left of, if the system says so. No endpoint can be blamed for it.
pub(crate) fn of_system(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some("walhook has no file descriptor left: raise its limit (LimitNOFILE)"),
        Errno::NFILE => Some("the system has no file descriptor left: raise fs.file-max"),
        Errno::ADDRNOTAVAIL => Some("the system has no local port or address left for it"),
        Errno::NOBUFS | Errno::NOMEM => Some("the system has no memory left for a socket"),
        _ => None,
    }
}

/// The same of a name that did not resolve.
pub(crate) fn of_lookup(error: &ResolveError) -> Option<&'static str> {
    match error {
        ResolveError::Failed(error) => of_system(error),
        ResolveError::Busy => Some(LOOKUPS_BUSY),
        ResolveError::Empty | ResolveError::Late => None,
    }
}

/// Says so if there was no descriptor for a connection.
pub(crate) fn of_descriptors(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(none) = cause.downcast_ref::<NoSocket>() {
            return Some(none.to_string());
        }
        let io = match cause.downcast_ref() {
            Some(ResolveError::Failed(io)) => Some(io),
            _ => cause.downcast_ref(),
        };
        let errno = io.and_then(Errno::from_io_error);
        if matches!(errno, Some(Errno::MFILE | Errno::NFILE)) {
            return io.and_then(of_system).map(str::to_owned);
        }
        next = cause_of(cause);
    }
    None
}

/// What caused an error.
pub(crate) fn cause_of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        // Its source is not what it holds but the source of that.
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    }
}
