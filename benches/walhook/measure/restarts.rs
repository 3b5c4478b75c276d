//! What a kill -9 repeats.

use std::thread;
use std::time::Duration;

use crate::load;
use crate::measure::Bench;
use crate::measure::LIMIT;
use crate::measure::SLOT;
use crate::program::Walhook;
use crate::report::Goal;
use crate::report::median;

/// Rows per second while it is killed.
const RATE: u64 = 5000;

impl Bench {
    pub(super) fn restarts(&mut self) -> anyhow::Result<()> {
        let (mut repeats, mut counts) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.runs {
            let count = self.repeats()? as f64;
            repeats.push(count * 1000.0 / RATE as f64);
            counts.push(count);
        }
        let middle = median(&counts).unwrap_or_default();
        let detail = format!("{middle:.0} events at {RATE}/s");
        let goal = Goal::AtMost { must: 150.0, aim: 75.0 };
        let what = "repeats after a kill -9, in time of the load";
        self.row(what, " ms", repeats, goal, detail);
        Ok(())
    }

    /// Deliveries more than rows.
    fn repeats(&self) -> anyhow::Result<u64> {
        let receiver = &self.stage.receiver;
        self.stage.mark(SLOT)?;
        let mut walhook = Walhook::start(&self.stage, SLOT, &self.one())?;
        walhook.wait_until_ready()?;
        let before = receiver.events();
        let load = load::paced(&self.stage, RATE, self.plan.window);
        thread::sleep(self.plan.window / 2);
        walhook.kill();
        let mut next = Walhook::start(&self.stage, SLOT, &self.one())?;
        let inserted = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        next.wait_until_ready()?;
        receiver.wait_for(before + inserted.rows, LIMIT)?;
        // All have come when none has come for a while.
        let mut seen = receiver.events();
        loop {
            thread::sleep(Duration::from_millis(200));
            let now = receiver.events();
            if now == seen && next.metric("walhook_deliveries_pending")? == 0.0 {
                break;
            }
            seen = now;
        }
        next.end(&self.stage)?;
        Ok(seen - before - inserted.rows)
    }
}
