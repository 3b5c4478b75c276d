//! Reads a small file, and nothing that only looks like one.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The text of a regular file of at most `bytes_max`.
///
/// # Errors
/// What is wrong, as the rest of a sentence whose subject is the file. Nothing of its text is in it.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<String, String> {
    let bytes = read_bytes(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|_| "cannot be read: it is not valid UTF-8".to_owned())
}

/// The same, whatever its bytes are.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    // A pipe or a device would be waited for, maybe for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is no regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}
