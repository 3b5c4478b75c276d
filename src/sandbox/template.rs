//! Makes data directories: with `initdb` once, then as copies of what it made.
//!
//! initdb takes about a second, a copy a tenth of that.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::sandbox::account::ServerAccount;
use crate::sandbox::cache::PackageCache;
use crate::sandbox::command::run;
use crate::sandbox::error::ProcessError;
use crate::sandbox::error::SandboxError;
use crate::sandbox::error::io_error;
use crate::sandbox::installation::PostgresInstallation;

/// `--wal-segsize=1` makes a copy 29 MB instead of 39; `--no-sync` because the data are thrown away.
const INITDB: [&str; 8] = [
    "--username=postgres",
    "--auth=trust",
    "--locale=C",
    "--encoding=UTF8",
    "--no-sync",
    "--wal-segsize=1",
    "--no-instructions",
    "-D",
];

/// More threads than this gain nothing: file systems make files one after the other.
const COPIERS: usize = 4;

/// initdb takes about a second on an idle machine.
const INITDB_LIMIT: Duration = Duration::from_secs(120);

/// Makes a new data directory at `data`, with a system identifier of its own.
pub(super) fn initialise(
    installation: &PostgresInstallation,
    data: &Path,
) -> Result<(), SandboxError> {
    match run(installation.command("initdb").args(INITDB).arg(data), INITDB_LIMIT) {
        Ok(_) => Ok(()),
        Err(ProcessError::Failed { output, .. })
            if output.contains("could not look up effective user ID") =>
        {
            Err(SandboxError::UnknownUser)
        }
        Err(error) => Err(SandboxError::Initdb(error)),
    }
}

/// Makes a data directory at `data` from the template in the cache, which it makes first if there
/// is none. All such directories share one system identifier.
pub(super) fn initialise_or_copy(
    installation: &PostgresInstallation,
    cache: &PackageCache,
    data: &Path,
) -> Result<(), SandboxError> {
    let template = cache.templates().join(key(installation));
    if !template.is_dir() {
        let _one_at_a_time = cache.lock("templates")?;
        if !template.is_dir() {
            initialise(installation, data)?;
            return keep(data, &template)
                .map_err(io_error(format!("keep a template in {}", template.display())));
        }
    }
    copy_tree(&template, data, installation.account())
        .map_err(io_error(format!("copy the template {}", template.display())))
}

/// Version alone is not enough: two builds of one version may differ in what initdb writes.
fn key(installation: &PostgresInstallation) -> String {
    let made_by = format!("{} {}", installation.bin().display(), INITDB.join(" "));
    format!("{}-{:016x}", installation.version(), xxh3_64(made_by.as_bytes()))
}

/// Copies `data` to `template`, which appears whole or not at all. Only under the lock.
fn keep(data: &Path, template: &Path) -> io::Result<()> {
    let mut unfinished = PathBuf::from(template);
    unfinished.add_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    copy_tree(data, &unfinished, &ServerAccount::current())?;
    fs::rename(&unfinished, template)
}

/// Copies directories and files with their modes, and gives them to `owner`.
///
/// With several threads: most of the time goes into making the thousand files, in the kernel.
fn copy_tree(from: &Path, to: &Path, owner: &ServerAccount) -> io::Result<()> {
    let mut files = Vec::new();
    copy_directories(from, to, owner, &mut files)?;
    let share = files.len().div_ceil(COPIERS).max(1);
    thread::scope(|scope| {
        let copiers: Vec<_> = files
            .chunks(share)
            .map(|files| {
                scope.spawn(move || {
                    files.iter().try_for_each(|(from, to)| {
                        fs::copy(from, to)?;
                        owner.own(to)
                    })
                })
            })
            .collect();
        copiers.into_iter().try_for_each(|copier| {
            copier.join().unwrap_or_else(|_| Err(io::Error::other("a copying thread panicked")))
        })
    })
}

/// Makes the directories of `from` in `to`, and notes each file's old and new path.
fn copy_directories(
    from: &Path,
    to: &Path,
    owner: &ServerAccount,
    files: &mut Vec<(PathBuf, PathBuf)>,
) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    owner.own(to)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directories(&entry.path(), &target, owner, files)?;
        } else {
            files.push((entry.path(), target));
        }
    }
    Ok(())
}
