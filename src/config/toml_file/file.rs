//! Files that the configuration consists of, read with a limit and a deadline.
//!
//! A pipe that nobody writes to, a mount that hangs and a device that never ends must stop neither a
//! start nor a running walhook. Reading cannot be cancelled, so it is done by a thread of its own, which is
//! left behind when it does not come back.

use std::fs::File;
use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// For one file. A pipe's writer, such as the shell's `<(...)`, may be at work.
const FILE_TIME: Duration = Duration::from_secs(5);

/// A file's text, or why there is none.
#[derive(Debug)]
pub(crate) enum FileError {
    Unreadable(String),
    TooLarge,
}

/// The text of a file of up to so many bytes.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<String, FileError> {
    read_text_within(path, bytes_max, FILE_TIME)
}

fn read_text_within(path: &Path, bytes_max: u64, time: Duration) -> Result<String, FileError> {
    let (done, read) = mpsc::channel();
    let own = path.to_owned();
    let reader = thread::Builder::new().name("a file".to_owned());
    // The caller may have stopped waiting.
    let started = reader.spawn(move || done.send(read_all(own, bytes_max)).ok());
    started.map_err(|error| FileError::Unreadable(error.to_string()))?;
    match read.recv_timeout(time) {
        Ok(Ok(text)) if text.len() as u64 > bytes_max => Err(FileError::TooLarge),
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(FileError::Unreadable(error.to_string())),
        Err(_) => Err(FileError::Unreadable(format!(
            "nothing came of it within {} s: is it a pipe that nobody writes to, or on a file system \
             that hangs?",
            time.as_secs_f64()
        ))),
    }
}

/// At most one byte too many.
fn read_all(path: PathBuf, bytes_max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        // Where it is cut may be within a character.
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    let not_utf8 = |_| io::Error::new(ErrorKind::InvalidData, "it is not valid UTF-8");
    String::from_utf8(bytes).map_err(not_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_too_large_and_what_never_comes_is_late() {
        assert!(matches!(read_text(Path::new("/dev/zero"), 100), Err(FileError::TooLarge)));
        let home = tempfile::tempdir().expect("a directory");
        let pipe = home.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        let late = read_text_within(&pipe, 100, Duration::from_millis(50));
        let Err(FileError::Unreadable(told)) = late else { panic!("{late:?}") };
        assert!(told.contains("a pipe that nobody writes to"), "{told}");
        // So that the reader that was left behind ends.
        drop(std::fs::write(pipe, ""));
    }

    #[test]
    fn a_file_is_read_as_it_is_up_to_its_limit() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("file");
        for (bytes, limit, expected) in [
            (b"text".as_slice(), 4, Ok("text")),
            (b"text", 3, Err("TooLarge")),
            (b"\xff", 4, Err("Unreadable(\"it is not valid UTF-8\")")),
            ("ä".as_bytes(), 1, Err("TooLarge")),
        ] {
            std::fs::write(&file, bytes).expect("it is written");
            let read = read_text(&file, limit).map_err(|error| format!("{error:?}"));
            assert_eq!(
                read.as_deref().map_err(String::as_str),
                expected,
                "case: {bytes:?} {limit}"
            );
        }
        let missing = read_text(&home.path().join("none"), 4);
        assert!(matches!(missing, Err(FileError::Unreadable(_))), "{missing:?}");
    }
}
