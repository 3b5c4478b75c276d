//! Reads a small text file, and nothing that only looks like one.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The text of a regular file of at most `bytes_max`.
///
/// # Errors
/// What is wrong, as the rest of a sentence whose subject is the file. Nothing of its text is in it.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<String, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    // A pipe or a device would be waited for, maybe for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is no regular file".to_owned());
    }
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.take(bytes_max + 1).read_to_string(&mut text).map_err(unreadable)?;
    if bytes as u64 > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    Ok(text)
}
