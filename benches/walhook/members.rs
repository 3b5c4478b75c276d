//! A tail and those who deliver, as child processes, with a broker of their own between them.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use walhook::testing::sandbox::broker::SandboxBroker;

use crate::program::Job;
use crate::program::Walhook;
use crate::stage::Stage;

/// How long it may take until every partition has an owner.
const SHARED_LIMIT: Duration = Duration::from_secs(120);

/// Running members. Dropping them kills them.
pub(crate) struct Members {
    tail: Walhook,
    workers: Vec<Walhook>,
    broker: SandboxBroker,
}

impl Members {
    /// Starts a tail on `slot` and so many who deliver, and waits until all partitions have an owner and no member
    /// has more than its share.
    pub(crate) fn start(
        stage: &Stage,
        slot: &str,
        job: &Job,
        workers: usize,
    ) -> anyhow::Result<Self> {
        let broker = SandboxBroker::found()?;
        let url = broker.url();
        let tail = Walhook::start_as(Some(("tail", &url)), stage, slot, job)?;
        let worker = |_| Walhook::start_as(Some(("deliver", &url)), stage, slot, job);
        let workers = (0..workers).map(worker).collect::<anyhow::Result<Vec<_>>>()?;
        let mut members = Self { tail, workers, broker };
        members.tail.wait_until_ready()?;
        members.wait_until_shared(stage, slot)?;
        Ok(members)
    }

    fn wait_until_shared(&mut self, stage: &Stage, slot: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.are_shared(stage, slot) {
            self.check_alive()?;
            anyhow::ensure!(begun.elapsed() < SHARED_LIMIT, "the partitions are not shared");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Whether every partition has an owner, and no member more than its share.
    pub(crate) fn are_shared(&self, stage: &Stage, slot: &str) -> bool {
        let count = self.workers.len();
        let shared = format!(
            "SELECT count(*) = {count} AND bool_and(owned <= ceil(8.0 / {count})) AND sum(owned) = 8
               FROM (SELECT member, count(*) AS owned FROM walhook.progress
                      WHERE slot = '{slot}' AND partition > 0 AND lease_until > now()
                      GROUP BY member) AS owners"
        );
        stage.ask(&shared).ok().flatten().as_deref() == Some("t")
    }

    /// # Errors
    /// One has ended; the text shows what it logged.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        self.tail.check_alive()?;
        self.workers.iter_mut().try_for_each(Walhook::check_alive)
    }

    /// Of all of them together.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let workers = self.workers.iter().map(Walhook::cpu).sum::<anyhow::Result<Duration>>()?;
        Ok(self.tail.cpu()? + workers)
    }

    /// Kills the one that was started last.
    pub(crate) fn kill_one(&mut self) {
        self.workers.pop().into_iter().for_each(Walhook::kill);
    }

    /// Stops the one that has run longest, and starts another in its place.
    pub(crate) fn replace_one(
        &mut self,
        stage: &Stage,
        slot: &str,
        job: &Job,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(!self.workers.is_empty(), "nobody delivers");
        self.workers.remove(0).stop()?;
        let url = self.broker.url();
        self.workers.push(Walhook::start_as(Some(("deliver", &url)), stage, slot, job)?);
        Ok(())
    }

    /// Kills all, and drops their slot and state.
    pub(crate) fn end(self, stage: &Stage) -> anyhow::Result<()> {
        drop(self.workers);
        self.tail.end(stage)
    }
}
