//! Finds a NATS server to run, or fetches one.
//!
//! The order, first that works: the program that `WALHOOK_NATS_SERVER` names (and then no other), `nats-server` on the
//! `PATH`, what an earlier run fetched, what can be fetched now.

use crate::sandbox::broker_installation::BrokerInstallation;
use crate::sandbox::cache::PackageCache;
use crate::sandbox::error::SandboxError;
use crate::sandbox::fetch;
use crate::sandbox::surroundings::Surroundings;

const PROGRAM: &str = "nats-server";

/// Finds a NATS server of version 2.12 or later as the environment asks. `tell` gets one line of text before a step
/// that takes seconds.
///
/// # Errors
/// There is none and none could be fetched, or `WALHOOK_NATS_SERVER` names none.
pub(crate) fn find_broker(
    at: &Surroundings,
    tell: &mut dyn FnMut(&str),
) -> Result<BrokerInstallation, SandboxError> {
    if let Some(named) = &at.nats_server {
        return BrokerInstallation::probe(named, "named by WALHOOK_NATS_SERVER")
            .map_err(|reason| SandboxError::NatsServer { program: named.clone(), reason });
    }
    let mut tried = Vec::new();
    let installed = if at.ignore_installed { Vec::new() } else { at.on_path(PROGRAM) };
    match (at.ignore_installed, installed.is_empty()) {
        (true, _) => {
            tried.push("installed: not looked at, WALHOOK_IGNORE_INSTALLED is set".to_owned());
        }
        (false, true) => tried.push(format!("installed: no {PROGRAM} on the PATH")),
        (false, false) => {}
    }
    for program in installed {
        match BrokerInstallation::probe(&program, "installed") {
            Ok(found) => return Ok(found),
            Err(reason) => tried.push(format!("installed: {}: {reason}", program.display())),
        }
    }
    let cache = PackageCache::open(at)?;
    match fetch::broker(at, &cache, tell, &mut tried)? {
        Some(found) => Ok(found),
        None => Err(SandboxError::BrokerNotFound { tried }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::path::PathBuf;
    use std::process::Command;

    /// A program that says this of its version. A shell writes it: while this process has a file open for
    /// writing, it cannot be run.
    fn program(dir: &Path, says: &str) -> PathBuf {
        let path = dir.join(PROGRAM);
        let write = "printf \"#!/bin/sh\\necho '%s'\\n\" \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let mut shell = Command::new("/bin/sh");
        assert!(shell.args(["-c", write]).arg(&path).arg(says).status().unwrap().success());
        path
    }

    #[test]
    fn the_path_is_searched_and_a_server_that_is_too_old_is_passed_over() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        program(old.path(), "nats-server: v2.9.10");
        let wanted = program(new.path(), "nats-server: v2.14.2").canonicalize().unwrap();
        let path = std::env::join_paths([old.path(), new.path()]).unwrap();
        let at = Surroundings { path, offline: true, ..Surroundings::default() };
        let found = find_broker(&at, &mut |_| {}).unwrap();
        assert_eq!(found.program(), wanted);
        assert!(found.why().starts_with("NATS Server 2.14.2 from "), "{}", found.why());
    }

    #[test]
    fn a_wrong_wish_is_an_error_and_nothing_else_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let cases = [
            (program(dir.path(), "nats-server: v2.9.10"), "2.9.10 is too old, 2.12 is the oldest"),
            (dir.path().join("nothing"), "No such file"),
        ];
        for (named, expected) in cases {
            let at = Surroundings { nats_server: Some(named), ..Surroundings::default() };
            let error = find_broker(&at, &mut |_| {}).unwrap_err();
            assert!(matches!(error, SandboxError::NatsServer { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn offline_with_nothing_at_hand_says_what_was_tried_and_what_to_do() {
        let cache = tempfile::tempdir().unwrap();
        let at = Surroundings {
            offline: true,
            cache: Some(cache.path().to_owned()),
            ..Surroundings::default()
        };
        let text = find_broker(&at, &mut |_| {}).unwrap_err().to_string();
        for part in ["no nats-server on the PATH", "WALHOOK_OFFLINE", "WALHOOK_NATS_SERVER"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
}
