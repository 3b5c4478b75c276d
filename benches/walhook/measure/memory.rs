//! Resident memory: idle, with a full lane, and after a flood.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::measure::Bench;
use crate::measure::LIMIT;
use crate::measure::SLOT;
use crate::program::Endpoint;
use crate::program::Job;
use crate::program::Walhook;
use crate::receiver::HANG;
use crate::report::Goal;
use crate::report::median;

const MIB: f64 = 1024.0 * 1024.0;

/// Events that wait for an endpoint which does not answer: as many as the lane holds by default.
const QUEUED: u64 = 1000;

impl Bench {
    pub(super) fn memory(&mut self) -> anyhow::Result<()> {
        let (mut idle, mut queued) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.runs {
            self.stage.mark(SLOT)?;
            let endpoint = Endpoint::new(self.stage.receiver.url(HANG));
            let mut walhook = Walhook::start(&self.stage, SLOT, &Job::Deliver(vec![endpoint]))?;
            walhook.wait_until_ready()?;
            thread::sleep(Duration::from_millis(300));
            idle.push(walhook.resident()? as f64 / MIB);
            self.stage.fill(QUEUED)?;
            while walhook.metric("walhook_deliveries_pending")? < QUEUED as f64 {
                walhook.check_alive()?;
                thread::sleep(Duration::from_millis(5));
            }
            queued.push(walhook.resident()? as f64 / MIB);
            walhook.end(&self.stage)?;
        }
        let goal = Goal::AtMost { must: 12.0, aim: 8.0 };
        self.row("resident memory idle", " MiB", idle.clone(), goal, String::new());
        let goal = Goal::AtMost { must: 22.0, aim: 11.0 };
        self.row("resident memory with 1,000 queued", " MiB", queued, goal, String::new());
        self.floods(median(&idle).unwrap_or_default())
    }

    /// A long backlog: how fast it goes, and what it leaves in memory that had `idle` MiB.
    fn floods(&mut self, idle: f64) -> anyhow::Result<()> {
        let flood = self.plan.flood;
        self.backlog(self.plan.backlog)?;
        let short = self.drain(&self.one(), self.plan.backlog)?.per_second;
        self.end_backlog()?;
        self.backlog(flood)?;
        let (one, after) = self.flood(self.endpoint(0))?;
        let (_, after_batches) = self.flood(Endpoint { batch: 100, ..self.endpoint(0) })?;
        self.end_backlog()?;
        let what =
            format!("delivered/s of a backlog of {flood}, over one of {}", self.plan.backlog);
        let goal = Goal::AtLeast { must: 0.9, aim: 1.0 };
        let detail = format!("{one:.0}/s of {short:.0}/s");
        self.row(&what, "", vec![one / short], goal, detail);
        for (what, after) in [
            ("resident memory after a drained flood, over idle", after),
            ("the same, in batches of 100", after_batches),
        ] {
            let detail = format!("{after:.1} MiB of {idle:.1} MiB; {flood} rows");
            let goal = Goal::AtMost { must: 2.0, aim: 1.5 };
            self.row(what, "", vec![after / idle], goal, detail);
        }
        Ok(())
    }

    /// Events per second, and MiB when all has been quiet for a while.
    fn flood(&self, endpoint: Endpoint) -> anyhow::Result<(f64, f64)> {
        let receiver = &self.stage.receiver;
        let before = receiver.events();
        let walhook = self.start(&Job::Deliver(vec![endpoint]))?;
        receiver.wait_for(before + 1, LIMIT)?;
        let (begun, first) = (Instant::now(), receiver.events() - before);
        receiver.wait_for(before + self.plan.flood, LIMIT)?;
        let per_second = (self.plan.flood - first) as f64 / begun.elapsed().as_secs_f64();
        thread::sleep(self.plan.rest);
        let after = walhook.resident()? as f64 / MIB;
        walhook.end(&self.stage)?;
        Ok((per_second, after))
    }
}
