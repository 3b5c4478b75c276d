//! From the start of an INSERT to the receipt of its request, and what walhook costs the inserters.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::load;
use crate::load::Inserted;
use crate::measure::Bench;
use crate::measure::LIMIT;
use crate::measure::SLOT;
use crate::measure::per_second;
use crate::measure::throughput::ratios;
use crate::plot::Chart;
use crate::program::Endpoint;
use crate::program::Job;
use crate::program::Walhook;
use crate::receiver::TIMED;
use crate::report::Goal;
use crate::report::median;

/// Latencies under a steady load, in milliseconds.
#[derive(Debug)]
pub(super) struct Seen {
    sorted: Vec<f64>,
    inserted: Inserted,
    /// Rows that were not there yet when half of the time was over, and at its end.
    open: (u64, u64),
}

impl Seen {
    pub(super) fn quantile(&self, per_mille: usize) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get(last * per_mille / 1000).copied().unwrap_or(f64::NAN)
    }

    /// Less what the inserting client itself waited.
    fn added(&self) -> f64 {
        self.quantile(500) - self.inserted.latency.as_secs_f64() * 1e3
    }
}

impl Bench {
    pub(super) fn latency(&mut self) -> anyhow::Result<()> {
        let mut groups = Vec::new();
        let (mut added_100, mut added_1000, mut p99) = (Vec::new(), Vec::new(), Vec::new());
        let mut batched = Vec::new();
        let mut details = [const { Vec::new() }; 3];
        for run in 0..self.plan.runs {
            let slow = self.under_load(&self.timed(), 100, self.plan.window)?;
            let fast = self.under_load(&self.timed(), 1000, self.plan.window)?;
            let hundred = self.under_load(&self.timed_in_batches(), 100, self.plan.window)?;
            batched.push(hundred.quantile(500));
            added_100.push(slow.added());
            added_1000.push(fast.added());
            p99.push(fast.quantile(990));
            for (detail, value) in details.iter_mut().zip([
                slow.inserted.latency.as_secs_f64() * 1e3,
                fast.inserted.latency.as_secs_f64() * 1e3,
                fast.quantile(500),
            ]) {
                detail.push(value);
            }
            if run + 1 == self.plan.runs {
                groups.push(group("100/s", &slow));
                groups.push(group("1,000/s", &fast));
            }
        }
        let [slow, fast, p50] = details.map(|values| median(&values).unwrap_or_default());
        let goal = Goal::AtMost { must: 1.0, aim: 0.3 };
        let detail = format!("the insert itself takes {slow:.2} ms");
        self.row("p50 at 100/s, less the insert", " ms", added_100, goal, detail);
        let detail = format!("the insert itself takes {fast:.2} ms");
        self.row("p50 at 1,000/s, less the insert", " ms", added_1000, goal, detail);
        let goal = Goal::AtMost { must: 5.0, aim: 2.5 };
        self.row("p99 at 1,000/s", " ms", p99, goal, format!("with the insert; p50 {p50:.2} ms"));
        let goal = Goal::AtMost { must: 2.0, aim: 2.0 };
        self.row("p50 at 100/s in batches of up to 100", " ms", batched, goal, String::new());

        let steady = self.under_load(&self.timed(), 5000, self.plan.steady)?;
        groups.push(group("5,000/s", &steady));
        let (half, end) = steady.open;
        let detail = format!(
            "{:.0}/s for {:.0} s; open at half time {half}, at the end {end}",
            steady.inserted.rows as f64 / self.plan.steady.as_secs_f64(),
            self.plan.steady.as_secs_f64()
        );
        let goal = Goal::AtMost { must: 3.0, aim: 1.5 };
        self.row("p50 at 5,000/s", " ms", vec![steady.quantile(500)], goal, detail);
        let goal = Goal::AtMost { must: 10.0, aim: 4.0 };
        self.row("p99 at 5,000/s", " ms", vec![steady.quantile(990)], goal, String::new());
        self.with_everything()?;
        self.report.charts.push(Chart {
            name: "latency",
            title: "milliseconds from the start of the INSERT to the receipt of its request",
            series: ["p50", "p90", "p99", "p99.9"].map(String::from).to_vec(),
            groups,
        });
        self.flat_out()
    }

    /// A write-back, a filter, a payload of its own and all else that an event can have.
    fn with_everything(&mut self) -> anyhow::Result<()> {
        for (rate, shown, must, aim) in [(1000, "1,000/s", 5.0, 2.5), (5000, "5,000/s", 10.0, 4.0)]
        {
            let (mut p99, mut p50) = (Vec::new(), Vec::new());
            for _ in 0..self.plan.long_runs() {
                let endpoint = Endpoint {
                    when: Some(String::from("customer_id != 8")),
                    ..Endpoint::new(self.stage.receiver.url(TIMED))
                };
                let job = Job::Everything(endpoint);
                let seen = self.under_load(&job, rate, self.plan.window * 2)?;
                p99.push(seen.quantile(990));
                p50.push(seen.quantile(500));
            }
            let detail = format!("p50 {:.2} ms", median(&p50).unwrap_or_default());
            let goal = Goal::AtMost { must, aim };
            self.row(&format!("p99 at {shown} with everything on"), " ms", p99, goal, detail);
        }
        Ok(())
    }

    /// One endpoint that says when requests come.
    fn timed(&self) -> Job {
        Job::Deliver(vec![Endpoint::new(self.stage.receiver.url(TIMED))])
    }

    fn timed_in_batches(&self) -> Job {
        let endpoint = Endpoint::new(self.stage.receiver.url(TIMED));
        Job::Deliver(vec![Endpoint { batch: 100, ..endpoint }])
    }

    pub(super) fn live(&self, job: &Job) -> anyhow::Result<Walhook> {
        self.stage.mark(SLOT)?;
        let mut walhook = Walhook::start(&self.stage, SLOT, job)?;
        walhook.wait_until_ready()?;
        Ok(walhook)
    }

    fn under_load(&self, job: &Job, rate: u64, window: Duration) -> anyhow::Result<Seen> {
        self.under_load_of(job, rate, window, None)
    }

    /// Rows of so many customers come in turn.
    pub(super) fn under_load_of(
        &self,
        job: &Job,
        rate: u64,
        window: Duration,
        customers: Option<u64>,
    ) -> anyhow::Result<Seen> {
        let walhook = self.live(job)?;
        let seen = self.under_load_now(rate, window, customers)?;
        walhook.end(&self.stage)?;
        Ok(seen)
    }

    /// The same where it runs already.
    pub(super) fn under_load_now(
        &self,
        rate: u64,
        window: Duration,
        customers: Option<u64>,
    ) -> anyhow::Result<Seen> {
        // Connections are made before what is measured, not in it.
        let warm_up = self
            .plan
            .warm_up
            .max(Duration::from_secs_f64(customers.unwrap_or_default() as f64 / rate as f64));
        let warm_up = load::paced_for(&self.stage, rate, warm_up, customers).join();
        warm_up.map_err(|_| anyhow::anyhow!("the load panicked"))??;
        thread::sleep(self.plan.warm_up);
        let receiver = &self.stage.receiver;
        drop(receiver.take_latencies());
        let before = receiver.events();
        let load = load::paced_for(&self.stage, rate, window, customers);
        thread::sleep(window / 2);
        let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let expected = rate.saturating_mul(millis) / 2000;
        let half = expected.saturating_sub(receiver.events() - before);
        let inserted = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        let end = inserted.rows - (receiver.events() - before).min(inserted.rows);
        receiver.wait_for(before + inserted.rows, LIMIT)?;
        let latencies = receiver.take_latencies();
        let sorted = latencies.iter().map(|latency| latency.as_secs_f64() * 1e3).collect();
        Ok(Seen { sorted, inserted, open: (half, end) })
    }

    /// Inserts flat out with walhook, which has to deliver all of them, and without.
    fn flat_out(&mut self) -> anyhow::Result<()> {
        let (mut alone, mut together, mut lags) = (Vec::new(), Vec::new(), Vec::new());
        let window = self.plan.window;
        for _ in 0..self.plan.runs {
            alone.push(load::flat_out(&self.stage, window)?.rows as f64 / window.as_secs_f64());
            let walhook = self.live(&self.timed())?;
            let before = self.stage.receiver.events();
            let begun = Instant::now();
            let inserted = load::flat_out(&self.stage, window)?;
            let inserting = begun.elapsed();
            self.stage.receiver.wait_for(before + inserted.rows, LIMIT)?;
            // The time of the last delivery counts: a walhook that falls behind must not look as
            // if it cost the inserters little.
            together.push(inserted.rows as f64 / begun.elapsed().as_secs_f64());
            lags.push((begun.elapsed() - inserting).as_secs_f64());
            walhook.end(&self.stage)?;
        }
        drop(self.stage.receiver.take_latencies());
        let lag = median(&lags).unwrap_or_default();
        let (with, without) = (per_second(&together), per_second(&alone));
        let detail =
            format!("{with} of {without}; the last delivery came {lag:.2} s after the last insert");
        let goal = Goal::AtLeast { must: 0.5, aim: 0.65 };
        let values = ratios(&together, &alone);
        self.row("inserts flat out, all delivered, over inserts alone", "", values, goal, detail);
        Ok(())
    }
}

fn group(label: &str, seen: &Seen) -> (String, Vec<f64>) {
    (label.to_owned(), [500, 900, 990, 999].map(|per_mille| seen.quantile(per_mille)).to_vec())
}
