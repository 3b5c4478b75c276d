//! What the names of `src/` are held to: terms rather than single words, each defined once; and no circles
//! between files.
//!
//! The checks work on the text of the files: definitions stand at the start of a line, and each `use`
//! names one item.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop at once")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Of all type names, the share that may be one word, such as `Lease`: a word alone is a term only where
/// the whole house means the same by it.
const ONE_WORD_MAX: f64 = 0.30;
/// The share of definitions that may have the name of another one.
const SHARED_MAX: f64 = 0.10;

#[test]
fn type_names_are_terms_and_defined_once() {
    let mut defined: BTreeMap<String, usize> = BTreeMap::new();
    for (_, text) in sources() {
        for name in text.lines().filter_map(defined_type) {
            *defined.entry(name.to_owned()).or_default() += 1;
        }
    }
    let all: usize = defined.values().sum();
    assert!(all > 300, "the check looks at the wrong folder: {all} definitions");
    let one_word: Vec<&str> =
        defined.keys().map(String::as_str).filter(|name| is_one_word(name)).collect();
    let shared: Vec<&str> =
        defined.iter().filter(|(_, count)| **count > 1).map(|(name, _)| name.as_str()).collect();
    let sharing: usize = defined.values().filter(|count| **count > 1).sum();
    let share = |part: usize| {
        f64::from(u32::try_from(part).unwrap()) / f64::from(u32::try_from(all).unwrap())
    };
    assert!(share(one_word.len()) < ONE_WORD_MAX, "of {all}: {}", one_word.join(" "));
    assert!(share(sharing) < SHARED_MAX, "of {all}: {}", shared.join(" "));
}

#[test]
fn no_circle_ties_files_together() {
    let files: BTreeMap<String, String> = sources().collect();
    let uses: BTreeMap<&str, BTreeSet<&str>> = files
        .iter()
        .map(|(module, text)| {
            let used = used_modules(text).filter_map(|path| file_of(&files, &path));
            (module.as_str(), used.filter(|other| *other != module).collect())
        })
        .collect();
    let circles = circles(&uses);
    assert!(circles.is_empty(), "files that use one another, by the first of each: {circles:?}");
}

#[test]
fn circles_are_found() {
    let uses = |edges: &[(&'static str, &'static str)]| {
        let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (from, to) in edges {
            uses.entry(from).or_default().insert(to);
            uses.entry(to).or_default();
        }
        uses
    };
    let found = |edges: &[(&'static str, &'static str)]| circles(&uses(edges));
    assert_eq!(found(&[("a", "b"), ("b", "c")]), BTreeSet::new());
    assert_eq!(found(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]), BTreeSet::from(["a"]));
    assert_eq!(
        found(&[("b", "c"), ("c", "b"), ("x", "y"), ("y", "x")]),
        BTreeSet::from(["b", "x"])
    );
}

/// The first file of each circle: of files that reach one another.
fn circles<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let reached = |start: &'a str| {
        let mut seen = BTreeSet::new();
        let mut left = vec![start];
        while let Some(at) = left.pop() {
            for next in uses.get(at).into_iter().flatten() {
                if seen.insert(*next) {
                    left.push(next);
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        uses.keys().map(|module| (*module, reached(module))).collect();
    let in_circle = |module: &&str| reach[*module].contains(*module);
    let first = |module: &'a str| {
        let mates = reach[module].iter().filter(|other| reach[**other].contains(module));
        mates.min().copied().unwrap_or(module)
    };
    uses.keys().copied().filter(|module| in_circle(module)).map(first).collect()
}

/// Every file of `src` but tests, by its module's path.
fn sources() -> impl Iterator<Item = (String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_test = |path: &str| {
        path.split('/').any(|part| part.starts_with("tests") || part.ends_with("_tests.rs"))
            || path.contains("model")
    };
    rust_files(&root).into_iter().filter_map(move |file| {
        let inside = file.strip_prefix(&root).unwrap().display().to_string();
        if is_test(&inside) {
            return None;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
        let module = inside.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        Some((module, text))
    })
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

/// The name of a type that is defined in this line.
fn defined_type(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub") {
        None => line,
        Some(rest) => rest.split_once(' ')?.1,
    };
    let rest = ["struct ", "enum ", "trait "].iter().find_map(|kind| line.strip_prefix(kind))?;
    rest.split(|c: char| !c.is_alphanumeric()).next()
}

fn is_one_word(name: &str) -> bool {
    name.chars().skip(1).all(|c| !c.is_ascii_uppercase())
}

/// Paths behind `crate::` outside of comments.
fn used_modules(text: &str) -> impl Iterator<Item = Vec<String>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.split("crate::").skip(1)).map(|rest| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        let path = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        path.split("::").map(str::to_owned).collect()
    })
}

/// The file that a path leads into: the longest beginning of it that is one.
fn file_of<'f>(files: &'f BTreeMap<String, String>, path: &[String]) -> Option<&'f str> {
    let beginnings = (1..=path.len()).rev().filter_map(|length| path.get(..length));
    beginnings
        .map(|path| path.join("::"))
        .find_map(|path| files.get_key_value(&path).map(|(module, _)| module.as_str()))
}
