//! The user that runs the server: PostgreSQL refuses to run as root.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::sandbox::command::run;
use crate::sandbox::error::SandboxError;

/// Where a command of the server finds `sh`, `sleep` and `rm`.
const PLAIN_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A user under whose id the server's commands run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerAccount {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Whether this process is root and has to become this user first.
    switch: bool,
}

impl ServerAccount {
    /// The users to try, best first: this one, or as root `postgres` and then `nobody`.
    ///
    /// # Errors
    /// This process is root and may not become either (a container with one user id only).
    pub(super) fn candidates() -> Result<Vec<Self>, SandboxError> {
        let current = Self::current();
        if current.uid != 0 {
            return Ok(vec![current]);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let mut reason = "there is neither a user postgres nor nobody".to_owned();
        let mut usable = Vec::new();
        for account in ["postgres", "nobody"].iter().filter_map(|name| entry_of(&passwd, name)) {
            let nothing = &mut account.command("/bin/sh");
            match run(nothing.args(["-c", ":"]), Duration::from_secs(10)) {
                Ok(_) => usable.push(account),
                Err(error) => reason = error.in_one_line(),
            }
        }
        if usable.is_empty() {
            return Err(SandboxError::CannotLeaveRoot { reason });
        }
        Ok(usable)
    }

    /// The user of this process, under whose id everything runs anyway.
    pub(super) fn current() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = name_of(&passwd, uid).unwrap_or_else(|| format!("number {uid}"));
        Self { name, uid, gid, switch: false }
    }

    /// A command under this user, with nothing of our environment: a stray `PGDATA`, `PGPORT` or
    /// locale must not reach the server. std also clears the supplementary groups.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("PATH", PLAIN_PATH).env("LC_ALL", "C").current_dir("/");
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives a file that this process made to this user.
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        if self.switch { chown(path, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }

    /// Whether this user can reach what lies in `dir`: it and all above must be open to it.
    pub(super) fn can_enter(&self, dir: &Path) -> bool {
        let Ok(dir) = dir.canonicalize() else { return false };
        dir.ancestors().all(|step| {
            fs::metadata(step).is_ok_and(|meta| {
                let shift = match (meta.uid() == self.uid, meta.gid() == self.gid) {
                    (true, _) => 6,
                    (false, true) => 3,
                    (false, false) => 0,
                };
                meta.is_dir() && meta.mode() >> shift & 0o1 == 1
            })
        })
    }
}

/// `name:password:uid:gid:...`, as in passwd(5).
fn entry_of(passwd: &str, name: &str) -> Option<ServerAccount> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        found.then(|| ServerAccount { name: name.to_owned(), uid, gid, switch: true })
    })
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\nodd:x:-2:-2::/:\n\
        nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin\n";

    #[test]
    fn users_are_read_from_the_user_database() {
        let nobody = entry_of(PASSWD, "nobody").unwrap();
        assert_eq!((nobody.uid, nobody.gid), (65534, 65533));
        assert_eq!(entry_of(PASSWD, "postgres"), None);
        assert_eq!(entry_of(PASSWD, "odd"), None);
        assert_eq!(name_of(PASSWD, 0).as_deref(), Some("root"));
        assert_eq!(name_of(PASSWD, 1), None);
    }

    #[test]
    fn a_directory_is_open_only_if_all_above_it_are() {
        use std::os::unix::fs::PermissionsExt;
        let outer = tempfile::tempdir_in("/tmp").unwrap();
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let stranger =
            ServerAccount { name: "stranger".into(), uid: 54_321, gid: 54_321, switch: false };
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        set(&inner, 0o755).unwrap();
        for (mode, open) in [(0o755, true), (0o711, true), (0o770, false), (0o700, false)] {
            set(outer.path(), mode).unwrap();
            assert_eq!(stranger.can_enter(&inner), open, "case: {mode:o}");
        }
        assert!(!stranger.can_enter(&outer.path().join("missing")));
    }
}
