//! The floors of `docs/architecture.md`, checked: a file names only modules of lower floors.
//!
//! The check works on the text of the files in `src/`. That is enough because each `use` stands on
//! a line of its own and names one item; what would get around it (`crate::{..}`, `super::super`)
//! is refused.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The modules directly below `src/`, floor by floor, the lowest first. Modules of one floor never
/// use one another.
const FLOORS: [&[&str]; 15] = [
    &["flow"],
    &["expression"],
    // The settings are words as well: the other modules of floor 1 are told by them what to do.
    &["config", "failpoint"],
    &["store", "telemetry", "sandbox", "task", "backoff", "clock", "listen_socket"],
    &["replication", "event", "lane", "delivery", "ledger", "relay"],
    &["api", "inbound"],
    &["backfill"],
    &["pipeline"],
    &["preflight"],
    &["endpoints"],
    &["redelivery"],
    &["ha"],
    &["app"],
    &["cli"],
    &["main", "lib", "testing"],
];

#[test]
fn each_file_uses_lower_floors_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&root);
    assert!(files.len() > 10, "the check looks at the wrong folder: {}", root.display());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let inside = file.strip_prefix(&root).unwrap();
        wrong.extend(violations(&inside.display().to_string(), &text));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn wrong_uses_are_found() {
    let beside = "event stands beside lane";
    let cases = [
        ("lane/core.rs", "use crate::event::route;", Some("event stands beside lane")),
        ("lane.rs", "fn f() { crate::event::x() }", Some(beside)),
        ("flow/lsn.rs", "pub(in crate::app) fn f() {}", Some("app stands above flow")),
        ("lane/core.rs", "let x = (crate::cli::y)();", Some("cli stands above lane")),
        ("lane/core.rs", "use crate::{event, flow};", Some("name one item a line")),
        ("lane/core.rs", "use super::super::event::x;", Some("goes around the floors")),
        ("lane/mod.rs", "use super::event::x;", Some("goes around the floors")),
        ("lane/core.rs", "use crate::utils::x;", Some("utils has no floor")),
        ("utils/mod.rs", "", Some("utils has no floor")),
        ("flow/lsn.rs", "use walhook::cli::x;", Some("say crate::")),
        ("lane/core.rs", "use crate::flow::event::Event;", None),
        ("lane/core.rs", "use crate::lane::error::QueueError;", None),
        ("lane/core/tests.rs", "use super::*;", None),
        ("store/mod.rs", "use crate::config::settings::Server;", None),
        ("flow/lsn.rs", "/// As [`crate::app::run`] does.", None),
        ("flow/lsn.rs", "// crate::app", None),
        ("main.rs", "use walhook::Cli;", None),
        ("flow/lsn.rs", "mycrate::app::x();", None),
    ];
    for (file, line, expected) in cases {
        let found = violations(file, line);
        match expected {
            Some(text) => {
                assert_eq!(found.len(), 1, "case: {file}: {line}: {found:?}");
                assert!(found[0].contains(text), "case: {file}: {line}: {found:?}");
            }
            None => assert!(found.is_empty(), "case: {file}: {line}: {found:?}"),
        }
    }
}

/// What is wrong in one file; `file` is its path below `src/`.
fn violations(file: &str, text: &str) -> Vec<String> {
    let own = file.split(['/', '.']).next().unwrap_or_default();
    let Some(own_floor) = floor(own) else {
        return vec![format!("{file}: {own} has no floor: add it to FLOORS")];
    };
    // In these, `super` is the root of the crate, or the module itself in a `mod tests`.
    let is_top = file.split('/').count() == 1 || file == format!("{own}/mod.rs");
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // Links in comments are for readers and make nothing depend on anything.
        if line.trim_start().starts_with("//") {
            continue;
        }
        let mut wrong = |why: String| found.push(format!("{file}:{number}: {why}: {line}"));
        for after in following(line, "crate::") {
            if after.starts_with(['{', '*']) {
                wrong("name one item a line".to_owned());
                continue;
            }
            let name = first_name(after);
            match floor(name) {
                None => wrong(format!("{name} has no floor")),
                Some(_) if name == own => {}
                Some(other) if other < own_floor => {}
                Some(other) if other == own_floor => {
                    wrong(format!("{name} stands beside {own}"));
                }
                Some(_) => wrong(format!("{name} stands above {own}")),
            }
        }
        for after in following(line, "super::") {
            let to_root = is_top && floor(first_name(after)).is_some();
            if after.starts_with("super::") || to_root {
                wrong("super goes around the floors".to_owned());
            }
        }
        if own != "main" && following(line, "walhook::").next().is_some() {
            wrong("say crate:: inside of the crate".to_owned());
        }
    }
    found
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// What follows each occurrence of `path` in `line` that is not the end of a longer name.
fn following<'a>(line: &'a str, path: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(path).filter_map(move |(at, _)| {
        let (before, here) = line.split_at(at);
        let is_longer = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        here.strip_prefix(path).filter(|_| !is_longer)
    })
}

fn first_name(path: &str) -> &str {
    path.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
