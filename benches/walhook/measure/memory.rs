//! Resident memory: idle, with a full lane, and after a flood.

use std::thread;
use std::time::Duration;

use crate::measure::Bench;
use crate::measure::LIMIT;
use crate::measure::SLOT;
use crate::program::Endpoint;
use crate::program::Job;
use crate::program::Walhook;
use crate::receiver::HANG;
use crate::report::Goal;

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
        let goal = Goal::AtMost { must: 20.0, aim: 10.0 };
        self.row("resident memory idle", " MiB", idle.clone(), goal, String::new());
        let goal = Goal::AtMost { must: 22.0, aim: 11.0 };
        self.row("resident memory with 1,000 queued", " MiB", queued, goal, String::new());
        let what = "resident memory after a drained flood, over idle";
        self.after_a_flood(what, self.endpoint(0))?;
        let what = "the same, in batches of 100";
        self.after_a_flood(what, Endpoint { batch: 100, ..self.endpoint(0) })
    }

    fn after_a_flood(&mut self, what: &str, endpoint: Endpoint) -> anyhow::Result<()> {
        let flood = self.plan.flood;
        // Idle is measured in the same process, before the flood.
        self.stage.mark(SLOT)?;
        let mut walhook = Walhook::start(&self.stage, SLOT, &Job::Deliver(vec![endpoint]))?;
        walhook.wait_until_ready()?;
        thread::sleep(Duration::from_millis(300));
        let idle = walhook.resident()? as f64;
        let before = self.stage.receiver.events();
        self.stage.fill(flood)?;
        self.stage.receiver.wait_for(before + flood, LIMIT)?;
        thread::sleep(self.plan.rest);
        let after = walhook.resident()? as f64;
        walhook.end(&self.stage)?;
        let detail = format!("{:.1} MiB of {:.1} MiB; {flood} rows", after / MIB, idle / MIB);
        let goal = Goal::AtMost { must: 2.0, aim: 1.5 };
        self.row(what, "", vec![after / idle], goal, detail);
        Ok(())
    }
}
