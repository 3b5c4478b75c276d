//! The directory of one program, and how it vanishes.
//!
//! ```text
//! <base>/walhook-pg-XXXXXX/lock    locked while the process that made it lives
//! <base>/walhook-pg-XXXXXX/data    what initdb makes
//! <base>/walhook-pg-XXXXXX/log     what the server says
//! <base>/walhook-pg-XXXXXX/.s.*    its socket
//! <base>/walhook-run-XXXXXX/...    the same of another program, with its configuration
//! ```
//!
//! A directory whose lock is free belongs to nobody: [`sweep`] removes it.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::sandbox::account::ServerAccount;
use crate::sandbox::error::SandboxError;
use crate::sandbox::error::io_error;

/// Begins the name of a cluster's directory.
pub(super) const CLUSTER: &str = "walhook-pg-";

/// Begins the name of any other program's directory.
pub(super) const PROGRAM: &str = "walhook-run-";

/// Ends the name of a directory whose lock is not held yet.
const UNLOCKED: &str = ".new";

/// A directory is given its lock microseconds after it is made; one that still has none after this
/// time was left by a process that was killed in between.
const UNLOCKED_MAX: Duration = Duration::from_secs(600);

/// The longest base: a socket's path has room for 107 bytes, our names in it need up to 36.
const BASE_MAX: usize = 70;

/// How many lines of the log are shown when something went wrong.
const LOG_LINES_SHOWN: usize = 15;

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct SandboxDirectory {
    path: PathBuf,
    _lock: File,
}

impl SandboxDirectory {
    /// Makes one in the first of `bases` that `account` can enter; its name begins with `prefix`.
    pub(super) fn create(
        prefix: &'static str,
        bases: &[PathBuf],
        account: &ServerAccount,
    ) -> Result<Self, SandboxError> {
        let base = bases
            .iter()
            .find(|base| base.as_os_str().as_bytes().len() <= BASE_MAX && account.can_enter(base))
            .ok_or_else(|| SandboxError::NoRoom { account: account.name.clone() })?;
        let unlocked = tempfile::Builder::new()
            .prefix(prefix)
            .suffix(UNLOCKED)
            .tempdir_in(base)
            .map_err(io_error(format!("make a directory in {}", base.display())))?;
        let lock = File::create(unlocked.path().join("lock"))
            .and_then(|file| file.lock().map(|()| file))
            .and_then(|file| account.own(unlocked.path()).map(|()| file))
            .map_err(io_error(format!("lock {}", unlocked.path().display())))?;
        // The final name says that the lock is held, so a sweep never sees it without.
        let path = unlocked.path().with_extension("");
        fs::rename(unlocked.path(), &path)
            .map_err(io_error(format!("name the directory {}", path.display())))?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(super) fn log_length(&self) -> u64 {
        fs::metadata(self.log()).map_or(0, |meta| meta.len())
    }

    /// What the log says behind its first `start` bytes.
    pub(super) fn log_from(&self, start: u64) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.log())?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    pub(super) fn socket(&self, port: u16) -> PathBuf {
        self.path.join(format!(".s.PGSQL.{port}"))
    }
}

impl Drop for SandboxDirectory {
    fn drop(&mut self) {
        // What cannot be removed is left for the next sweep; there is nobody to tell.
        fs::remove_dir_all(&self.path).unwrap_or_default();
    }
}

/// Removes the directories of processes that are gone, and returns how many there were.
///
/// Looks only at those that `account` or this process owns, and never at one that is in use.
pub(super) fn sweep(bases: &[PathBuf], account: &ServerAccount) -> usize {
    let own = [rustix::process::geteuid().as_raw(), account.uid];
    bases
        .iter()
        .filter_map(|base| base.read_dir().ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.path())
        .filter(|path| is_ours(path, &own) && is_abandoned(path))
        .filter(|path| fs::remove_dir_all(path).is_ok())
        .count()
}

fn is_ours(path: &Path, owners: &[u32]) -> bool {
    let is_named_so = path.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        [CLUSTER, PROGRAM].iter().any(|prefix| name.starts_with(prefix))
    });
    // Of the link and not of its target: another user may have put one there.
    is_named_so
        && fs::symlink_metadata(path)
            .is_ok_and(|meta| meta.is_dir() && owners.contains(&meta.uid()))
}

fn is_abandoned(path: &Path) -> bool {
    if path.extension().is_some_and(|extension| extension == "new") {
        let made = fs::metadata(path).and_then(|meta| meta.modified());
        return made.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > UNLOCKED_MAX));
    }
    // Without a lock file a removal was cut short. A lock that another user made and hid from us
    // cannot be judged.
    match File::open(path.join("lock")) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The last lines of a log.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines.into_iter().skip(skipped).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_vanishes_with_its_owner() {
        let base = tempfile::tempdir_in("/tmp").unwrap();
        let bases = [base.path().to_owned()];
        let directory =
            SandboxDirectory::create(CLUSTER, &bases, &ServerAccount::current()).unwrap();
        assert!(directory.path().join("lock").is_file());
        assert!(!directory.path().to_string_lossy().ends_with(UNLOCKED));
        drop(directory);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_abandoned_directories_are_swept() {
        let base = tempfile::tempdir_in("/tmp").unwrap();
        let bases = [base.path().to_owned()];
        let alive = SandboxDirectory::create(CLUSTER, &bases, &ServerAccount::current()).unwrap();
        for name in
            ["walhook-pg-dead", "walhook-run-half", "walhook-pg-begun.new", "walhook-cache-0"]
        {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        fs::write(base.path().join("walhook-pg-dead/lock"), "").unwrap();
        fs::write(base.path().join("walhook-pg-file"), "").unwrap();
        std::os::unix::fs::symlink("walhook-cache-0", base.path().join("walhook-pg-link")).unwrap();

        assert_eq!(sweep(&bases, &ServerAccount::current()), 2);
        let mut left: Vec<String> = fs::read_dir(base.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let alive = alive.path().file_name().unwrap().to_string_lossy().into_owned();
        let mut expected = vec![
            "walhook-cache-0",
            "walhook-pg-begun.new",
            "walhook-pg-file",
            "walhook-pg-link",
            &alive,
        ];
        expected.sort_unstable();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_base_that_is_too_long_or_closed_is_passed_over() {
        let base = tempfile::tempdir_in("/tmp").unwrap();
        let long = base.path().join("x".repeat(BASE_MAX));
        fs::create_dir(&long).unwrap();
        let refused = SandboxDirectory::create(
            PROGRAM,
            std::slice::from_ref(&long),
            &ServerAccount::current(),
        )
        .unwrap_err();
        assert!(matches!(refused, SandboxError::NoRoom { .. }), "{refused}");
        let bases = [long, base.path().to_owned()];
        let taken = SandboxDirectory::create(PROGRAM, &bases, &ServerAccount::current()).unwrap();
        assert_eq!(taken.path().parent(), Some(base.path()));
    }

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let log: String = (1..=40).map(|n| format!("line {n}\n")).collect();
        let shown = last_lines(&log);
        assert!(shown.starts_with("line 26\n") && shown.ends_with("line 40"), "{shown}");
    }
}
