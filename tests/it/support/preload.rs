//! `preload.c` in the program under test: names that are never found, and a wall clock that is set.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// The library, built with the linker that Rust needs anyway, and the clock that it reads.
pub(crate) struct Preload {
    folder: TempDir,
    clock: File,
}

impl Preload {
    pub(crate) fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/preload.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([folder.path().join("preload.so").as_os_str(), source.as_ref()])
            .arg("-ldl")
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let clock = File::create(folder.path().join("clock")).unwrap();
        clock.write_all_at(&0_i64.to_ne_bytes(), 0).unwrap();
        Self { folder, clock }
    }

    /// What the program's environment needs beside its own.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| -> String {
            let path: PathBuf = self.folder.path().join(name);
            path.to_str().unwrap().to_owned()
        };
        vec![("LD_PRELOAD", path("preload.so")), ("TEST_CLOCK", path("clock"))]
    }

    /// Sets the program's wall clock so many seconds ahead of the machine's.
    pub(crate) fn set_clock(&self, ahead: i64) {
        self.clock.write_all_at(&ahead.to_ne_bytes(), 0).unwrap();
    }
}
