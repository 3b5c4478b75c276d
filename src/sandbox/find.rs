//! Finds PostgreSQL's programs for the sandbox: installed, named by `WALHOOK_PG_BIN`, or fetched.
//!
//! The order, first that works: the directory of `WALHOOK_PG_BIN` (and then no other), what is
//! installed (the highest version), what an earlier run fetched, what can be fetched now.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::sandbox::account::ServerAccount;
use crate::sandbox::cache::PackageCache;
use crate::sandbox::command::run;
use crate::sandbox::error::SandboxError;
use crate::sandbox::fetch::Fetcher;
use crate::sandbox::installation::PostgresInstallation;
use crate::sandbox::surroundings::Surroundings;

/// Directories of binaries below the root of the file system; one `*` stands for any text.
const KNOWN_DIRS: [&str; 8] = [
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "usr/libexec/postgresql*",
    "usr/lib/postgresql*/bin",
    "usr/local/pgsql/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
];

/// Finds a PostgreSQL of version 14 or later as the environment asks.
///
/// # Errors
/// There is none and none could be fetched, or `WALHOOK_PG_BIN` names none.
pub fn find() -> Result<PostgresInstallation, SandboxError> {
    find_with(&Surroundings::read(), &mut |_| {})
}

/// As [`find()`]; `tell` gets one line of text before each step that takes seconds.
///
/// # Errors
/// As [`find()`].
pub(crate) fn find_with(
    at: &Surroundings,
    tell: &mut dyn FnMut(&str),
) -> Result<PostgresInstallation, SandboxError> {
    let accounts = ServerAccount::candidates()?;
    if let Some(dir) = &at.pg_bin {
        // Absolute, because the server runs in `/`.
        let bin = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        return PostgresInstallation::probe(&bin, &[], "named by WALHOOK_PG_BIN", &accounts)
            .map_err(|reason| SandboxError::PgBin { dir: dir.clone(), reason });
    }
    let mut tried = Vec::new();
    if at.ignore_installed {
        tried.push("installed: not looked at, WALHOOK_IGNORE_INSTALLED is set".to_owned());
    } else if let Some(found) = PostgresInstallation::best(installed(at, &accounts, &mut tried)) {
        return Ok(found);
    }
    let cache = PackageCache::open(at)?;
    let fetcher = Fetcher { at, cache: &cache, accounts: &accounts };
    if let Some(found) = fetcher.any(tell, &mut tried)? {
        return Ok(found);
    }
    Err(SandboxError::NotFound { tried, fix: fix_for(at) })
}

/// Provides one major version, for tests against several: installed, or fetched into the cache.
///
/// # Errors
/// It is neither installed nor to be fetched.
pub fn find_version(major: u32) -> Result<PostgresInstallation, SandboxError> {
    let at = Surroundings::read();
    let accounts = ServerAccount::candidates()?;
    let mut tried = Vec::new();
    if !at.ignore_installed {
        let all = installed(&at, &accounts, &mut tried);
        if let Some(found) =
            PostgresInstallation::best(all.into_iter().filter(|found| found.major() == major))
        {
            return Ok(found);
        }
    }
    let cache = PackageCache::open(&at)?;
    let fetcher = Fetcher { at: &at, cache: &cache, accounts: &accounts };
    fetcher.version(major, &mut tried)?.ok_or(SandboxError::VersionNotFound { major, tried })
}

fn installed(
    at: &Surroundings,
    accounts: &[ServerAccount],
    tried: &mut Vec<String>,
) -> Vec<PostgresInstallation> {
    let mut found = Vec::new();
    let dirs = installed_dirs(at, Path::new("/"), pg_config_bindir(at));
    if dirs.is_empty() {
        tried.push("installed: no initdb on the PATH or in the known places".to_owned());
    }
    for dir in dirs {
        match PostgresInstallation::probe(&dir, &[], "installed", accounts) {
            Ok(installation) => found.push(installation),
            Err(reason) => tried.push(format!("installed: {}: {reason}", dir.display())),
        }
    }
    found
}

/// Each directory once: of `initdb` on the `PATH`, of `pg_config`, and the known ones.
fn installed_dirs(at: &Surroundings, root: &Path, bindir: Option<PathBuf>) -> Vec<PathBuf> {
    // Distributions link single programs into /usr/bin; the server lies where the link points.
    let on_path = at.on_path("initdb").into_iter().filter_map(|program| {
        program.canonicalize().ok().and_then(|real| real.parent().map(Path::to_owned))
    });
    let known = KNOWN_DIRS.iter().flat_map(|pattern| expand(root, pattern));
    let mut dirs = Vec::new();
    for dir in on_path.chain(bindir).chain(known) {
        let dir = dir.canonicalize().unwrap_or(dir);
        if dir.join("initdb").is_file() && !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs
}

/// `pg_config` is also part of the client library and then names a directory without a server.
fn pg_config_bindir(at: &Surroundings) -> Option<PathBuf> {
    let program = at.on_path("pg_config").into_iter().next()?;
    let answer = run(Command::new(program).arg("--bindir"), Duration::from_secs(10)).ok()?;
    Some(PathBuf::from(answer.trim()))
}

/// The paths below `root` that fit `pattern`, in the order of their names.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut paths = vec![root.to_owned()];
    for step in pattern.split('/') {
        paths = match step.split_once('*') {
            None => paths.into_iter().map(|path| path.join(step)).collect(),
            Some((start, end)) => {
                paths.iter().flat_map(|path| matching(path, start, end)).collect()
            }
        };
    }
    paths
}

fn matching(dir: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let Ok(entries) = dir.read_dir() else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)))
        .collect();
    names.sort();
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// The shortest way to a server on this system, told by its package manager.
fn fix_for(at: &Surroundings) -> &'static str {
    let fixes = [
        ("apt-get", "install one: apt-get install postgresql"),
        ("apk", "install one: apk add postgresql17"),
        ("dnf", "install one: dnf install postgresql-server"),
        ("yum", "install one: yum install postgresql-server"),
        ("zypper", "install one: zypper install postgresql-server"),
        ("pacman", "install one: pacman -S postgresql"),
        ("brew", "install one: brew install postgresql@17"),
    ];
    fixes
        .iter()
        .find(|(program, _)| !at.on_path(program).is_empty())
        .map_or("install the server package of PostgreSQL 14 or later", |(_, fix)| fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn server_in(dir: &Path) -> PathBuf {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("initdb"), "").unwrap();
        dir.canonicalize().unwrap()
    }

    #[test]
    fn candidates_come_once_each_from_path_then_pg_config_then_known_places() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let fifteen = server_in(&root.join("usr/lib/postgresql/15/bin"));
        let nine = server_in(&root.join("usr/lib/postgresql/9.6/bin"));
        let rpm = server_in(&root.join("usr/pgsql-16/bin"));
        let told = server_in(&root.join("opt/told/bin"));
        let linked = server_in(&root.join("opt/linked/bin"));
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        std::os::unix::fs::symlink(linked.join("initdb"), root.join("usr/bin/initdb")).unwrap();
        fs::create_dir_all(root.join("usr/lib/postgresql/14/bin")).unwrap(); // no server in it
        let at = Surroundings { path: root.join("usr/bin").into(), ..Surroundings::default() };

        let dirs = installed_dirs(&at, root, Some(told.clone()));
        assert_eq!(dirs, [linked.clone(), told, fifteen.clone(), nine.clone(), rpm.clone()]);

        let dirs = installed_dirs(&at, root, Some(fifteen.clone()));
        assert_eq!(dirs, [linked, fifteen, nine, rpm]);
    }

    #[test]
    fn a_pattern_fits_one_step_of_a_path() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["usr/pgsql-14/bin", "usr/pgsql-9/bin", "usr/other-14/bin"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let found = expand(root.path(), "usr/pgsql-*/bin");
        let expected = ["usr/pgsql-14/bin", "usr/pgsql-9/bin"].map(|dir| root.path().join(dir));
        assert_eq!(found, expected);
        assert_eq!(expand(root.path(), "nowhere/*/bin"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_wrong_wish_is_an_error_and_nothing_else_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let at = Surroundings { pg_bin: Some(dir.path().to_owned()), ..Surroundings::default() };
        let error = find_with(&at, &mut |_| {}).unwrap_err();
        assert!(matches!(error, SandboxError::PgBin { .. }), "{error}");
        assert!(error.to_string().contains("there is no initdb"), "{error}");
    }

    #[test]
    fn offline_with_nothing_at_hand_says_what_was_tried_and_what_to_do() {
        let cache = tempfile::tempdir().unwrap();
        let at = Surroundings {
            ignore_installed: true,
            offline: true,
            cache: Some(cache.path().to_owned()),
            ..Surroundings::default()
        };
        let text = find_with(&at, &mut |_| {}).unwrap_err().to_string();
        for part in ["WALHOOK_IGNORE_INSTALLED", "WALHOOK_OFFLINE", "install the server package"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
}
