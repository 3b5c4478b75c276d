//! Where fetched servers and cluster templates outlive a run.
//!
//! ```text
//! <cache>/servers/<name>/...     what `fetch` unpacked
//! <cache>/templates/<key>/...    a data directory fresh from initdb
//! <cache>/*.lock                 one process at a time makes either
//! ```

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use crate::sandbox::error::SandboxError;
use crate::sandbox::error::io_error;
use crate::sandbox::surroundings::Surroundings;

/// A directory of ours that can be written.
#[derive(Clone, Debug)]
pub(super) struct PackageCache {
    root: PathBuf,
}

impl PackageCache {
    /// Opens the first cache directory that can be used, and makes it if need be.
    pub(super) fn open(at: &Surroundings) -> Result<Self, SandboxError> {
        let uid = rustix::process::geteuid().as_raw();
        let mut first_refusal = None;
        for root in at.cache_homes(uid) {
            match prepare(&root, uid) {
                Ok(()) => return Ok(Self { root }),
                Err(source) => {
                    first_refusal.get_or_insert(SandboxError::Cache { path: root, source });
                }
            }
        }
        Err(first_refusal.unwrap_or_else(|| SandboxError::Cache {
            path: PathBuf::new(),
            source: io::ErrorKind::NotFound.into(),
        }))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn servers(&self) -> PathBuf {
        self.root.join("servers")
    }

    pub(super) fn templates(&self) -> PathBuf {
        self.root.join("templates")
    }

    /// Waits until no other process holds the lock of this name; it is free again when the file
    /// is dropped, also by a crash.
    pub(super) fn lock(&self, name: &str) -> Result<File, SandboxError> {
        let path = self.root.join(format!("{name}.lock"));
        // A file of another user can be locked, although not written.
        let file = File::open(&path).or_else(|_| File::create(&path));
        file.and_then(|file| file.lock().map(|()| file))
            .map_err(io_error(format!("lock {}", path.display())))
    }
}

fn prepare(root: &Path, uid: u32) -> io::Result<()> {
    // Absolute, because a path in here ends up in a library path, and the server runs in `/`.
    if !root.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute"));
    }
    // Open to all: as root, the server runs as another user and has to read what was fetched.
    DirBuilder::new().recursive(true).mode(0o755).create(root)?;
    let meta = fs::symlink_metadata(root)?;
    // Another user's directory in /tmp would let that user choose the programs that we run.
    let is_shared_place = root == Path::new(&format!("/tmp/walhook-cache-{uid}"));
    if is_shared_place && (!meta.is_dir() || meta.uid() != uid || meta.mode() & 0o022 != 0) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    for name in ["servers", "templates"] {
        DirBuilder::new().recursive(true).mode(0o755).create(root.join(name))?;
    }
    tempfile::tempfile_in(root.join("servers")).map(drop)
}
