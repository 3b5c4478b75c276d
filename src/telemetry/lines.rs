//! Writes log lines to standard error, gathered on a thread of their own.
//!
//! There is a line for every delivery, and to write each by itself takes a twentieth of a delivery. So
//! lines gather for a moment. A warning or an error goes out at once, with all that came before it;
//! lines never change places. What a killed process can lose is the last moment of lines below that.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tracing::Level;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// How long a line waits for others.
const GATHER: Duration = Duration::from_millis(10);

/// So much is written without waiting.
const FULL_BYTES: usize = 64 * 1024;

/// Where lines gather. Cheap to clone.
#[derive(Clone)]
pub(super) struct LineWriter(Arc<LinesShared>);

struct LinesShared {
    gathered: Mutex<GatheredLines>,
    /// There is something to write.
    arrived: Condvar,
}

struct GatheredLines {
    text: Vec<u8>,
    out: Box<dyn Write + Send>,
}

impl LineWriter {
    /// Starts the thread that writes what has gathered to `out`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(out: Box<dyn Write + Send>) -> io::Result<Self> {
        let gathered = Mutex::new(GatheredLines { text: Vec::new(), out });
        let lines = Self(Arc::new(LinesShared { gathered, arrived: Condvar::new() }));
        let thread = lines.clone();
        std::thread::Builder::new()
            .name(String::from("log"))
            .spawn(move || thread.keep_writing())?;
        Ok(lines)
    }

    fn keep_writing(&self) -> ! {
        loop {
            let gathered = self.0.gathered();
            let arrived = self.0.arrived.wait_while(gathered, |gathered| gathered.text.is_empty());
            drop(arrived);
            std::thread::sleep(GATHER);
            self.write_out();
        }
    }

    /// Writes all that has gathered.
    pub(super) fn write_out(&self) {
        self.0.gathered().write_out();
    }
}

impl LinesShared {
    fn gathered(&self) -> MutexGuard<'_, GatheredLines> {
        // A thread that panicked has left whole lines, or the beginning of one.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GatheredLines {
    /// As with standard error itself, nobody can be told if it is gone.
    fn write_out(&mut self) {
        drop(self.out.write_all(&self.text).and_then(|()| self.out.flush()));
        self.text.clear();
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine { lines: self, is_urgent: true }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> LogLine<'a> {
        LogLine { lines: self, is_urgent: *meta.level() <= Level::WARN }
    }
}

/// Takes one line.
pub(super) struct LogLine<'a> {
    lines: &'a LineWriter,
    is_urgent: bool,
}

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut gathered = self.lines.0.gathered();
        if gathered.text.is_empty() && !self.is_urgent {
            self.lines.0.arrived.notify_one();
        }
        gathered.text.extend_from_slice(bytes);
        if self.is_urgent || gathered.text.len() >= FULL_BYTES {
            gathered.write_out();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::sync::mpsc::RecvTimeoutError;
    use std::sync::mpsc::Sender;

    /// Tells of each write.
    struct LineOutput(Sender<String>);

    impl Write for LineOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const AMPLE: Duration = Duration::from_secs(30);

    fn log(lines: &LineWriter, text: &[u8], is_urgent: bool) {
        LogLine { lines, is_urgent }.write_all(text).unwrap();
    }

    #[test]
    fn lines_gather_and_come_in_their_order() {
        let (out, written) = mpsc::channel();
        let lines = LineWriter::start(Box::new(LineOutput(out))).unwrap();
        let mut all = String::new();
        for round in 0..3 {
            for number in 0..100 {
                let line = format!("{round} {number}\n");
                log(&lines, line.as_bytes(), false);
                all.push_str(&line);
            }
            let mut text = String::new();
            while text.len() < all.len() {
                text.push_str(&written.recv_timeout(AMPLE).unwrap());
            }
            assert_eq!(text, all);
            all.clear();
        }
    }

    #[test]
    fn an_urgent_line_goes_out_at_once_behind_those_before_it() {
        let (out, written) = mpsc::channel();
        // Nobody else writes what has gathered.
        let gathered =
            Mutex::new(GatheredLines { text: Vec::new(), out: Box::new(LineOutput(out)) });
        let lines = LineWriter(Arc::new(LinesShared { gathered, arrived: Condvar::new() }));
        log(&lines, b"pushed\n", false);
        assert_eq!(written.try_recv().ok(), None);
        log(&lines, b"given up\n", true);
        assert_eq!(written.try_recv().unwrap(), "pushed\ngiven up\n");
        log(&lines, b"stopped\n", false);
        lines.write_out();
        assert_eq!(written.try_recv().unwrap(), "stopped\n");
        log(&lines, &[b'x'; FULL_BYTES], false);
        assert_eq!(written.try_recv().unwrap().len(), FULL_BYTES, "it does not grow on");
        drop(lines);
        assert_eq!(written.recv_timeout(AMPLE), Err(RecvTimeoutError::Disconnected));
    }
}
