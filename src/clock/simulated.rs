//! The time of a simulation, thread by thread: that of tokio's clock, which can be paused.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// How long the simulated host had been up when the simulation began, and since when the Unix epoch was.
const UP: Duration = Duration::from_secs(1000);
const SINCE_EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// While it is there, both clocks of this thread go with tokio's.
#[derive(Debug)]
pub(crate) struct SimulatedTime(());

impl SimulatedTime {
    pub(crate) fn begin() -> Self {
        BEGUN.set(Some(Instant::now()));
        Self(())
    }
}

impl Drop for SimulatedTime {
    fn drop(&mut self) {
        BEGUN.set(None);
    }
}

pub(super) fn since_boot() -> Option<Duration> {
    BEGUN.get().map(|begun| UP + begun.elapsed())
}

pub(super) fn since_epoch() -> Option<Duration> {
    BEGUN.get().map(|begun| SINCE_EPOCH + begun.elapsed())
}
