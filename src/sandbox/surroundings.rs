//! What the environment says about where to look, where to keep and where to run.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;

/// The environment variables that the sandbox obeys, read once and handed on as values, so that
/// tests can choose them.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `WALHOOK_PG_BIN`: use the PostgreSQL in this directory and no other.
    pub pg_bin: Option<PathBuf>,
    /// `WALHOOK_NATS_SERVER`: use this NATS server and no other.
    pub nats_server: Option<PathBuf>,
    /// `WALHOOK_IGNORE_INSTALLED=1`: act as on a machine without PostgreSQL and NATS.
    pub ignore_installed: bool,
    /// `WALHOOK_OFFLINE=1`: fetch nothing.
    pub offline: bool,
    /// `WALHOOK_CACHE`: where fetched servers and templates are kept.
    pub cache: Option<PathBuf>,
    /// `PATH`
    pub path: OsString,
    /// `HOME`
    pub home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`
    pub xdg_cache: Option<PathBuf>,
    /// `TMPDIR`
    pub tmp: Option<PathBuf>,
}

impl Surroundings {
    /// As this process was started.
    pub fn read() -> Self {
        // An empty variable counts as unset, as in a shell script that clears it.
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let switch = |name: &str| set(name).is_some_and(|value| value != "0");
        Self {
            pg_bin: path("WALHOOK_PG_BIN"),
            nats_server: path("WALHOOK_NATS_SERVER"),
            ignore_installed: switch("WALHOOK_IGNORE_INSTALLED"),
            offline: switch("WALHOOK_OFFLINE"),
            cache: path("WALHOOK_CACHE"),
            path: set("PATH").unwrap_or_default(),
            home: path("HOME"),
            xdg_cache: path("XDG_CACHE_HOME"),
            tmp: path("TMPDIR"),
        }
    }

    /// Every `program` on the `PATH`, in its order.
    pub(super) fn on_path(&self, program: &str) -> Vec<PathBuf> {
        env::split_paths(&self.path)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(program))
            .filter(|file| file.is_file())
            .collect()
    }

    /// Directories for data, best first.
    pub(super) fn data_bases(&self) -> Vec<PathBuf> {
        let mut bases: Vec<PathBuf> =
            self.tmp.iter().filter(|p| p.is_absolute()).cloned().collect();
        for base in ["/tmp", "/var/tmp"] {
            if !bases.iter().any(|known| known == Path::new(base)) {
                bases.push(PathBuf::from(base));
            }
        }
        bases
    }

    /// Directories for the cache, best first: the one that was asked for, or what suits the user.
    pub(super) fn cache_homes(&self, uid: u32) -> Vec<PathBuf> {
        if let Some(asked) = &self.cache {
            return vec![asked.clone()];
        }
        let mut homes = Vec::new();
        if uid == 0 {
            // Not below /root, which the user that runs the server cannot enter.
            homes.push(PathBuf::from("/var/cache/walhook"));
        } else {
            homes.extend(self.xdg_cache.iter().map(|dir| dir.join("walhook")));
            homes.extend(self.home.iter().map(|dir| dir.join(".cache/walhook")));
        }
        homes.push(PathBuf::from(format!("/tmp/walhook-cache-{uid}")));
        homes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(list: &[&str]) -> Vec<PathBuf> {
        list.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn the_cache_suits_the_user_and_a_wish_ends_the_search() {
        let mut at = Surroundings { home: Some("/home/ann".into()), ..Surroundings::default() };
        assert_eq!(at.cache_homes(0), paths(&["/var/cache/walhook", "/tmp/walhook-cache-0"]));
        assert_eq!(at.cache_homes(7), paths(&["/home/ann/.cache/walhook", "/tmp/walhook-cache-7"]));
        at.xdg_cache = Some("/x".into());
        assert_eq!(at.cache_homes(7).first(), Some(&PathBuf::from("/x/walhook")));
        at.cache = Some("/asked".into());
        assert_eq!(at.cache_homes(7), paths(&["/asked"]));
    }

    #[test]
    fn data_goes_to_tmpdir_first_and_never_to_a_relative_one() {
        let mut at = Surroundings { tmp: Some("/var/tmp".into()), ..Surroundings::default() };
        assert_eq!(at.data_bases(), paths(&["/var/tmp", "/tmp"]));
        at.tmp = Some("here".into());
        assert_eq!(at.data_bases(), paths(&["/tmp", "/var/tmp"]));
    }
}
