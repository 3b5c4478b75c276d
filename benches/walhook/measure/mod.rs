//! The measurements, part by part.

mod backfill;
mod decode;
mod endpoints;
mod inbound;
mod latency;
mod many;
mod memory;
mod push_log;
mod restarts;
mod roles;
mod shapes;
mod slow;
mod throughput;

use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::client;
use crate::load;
use crate::plan::PARTS;
use crate::plan::Plan;
use crate::process;
use crate::program::Endpoint;
use crate::program::Job;
use crate::program::Walhook;
use crate::receiver::Sample;
use crate::receiver::TIMED;
use crate::report::Goal;
use crate::report::Report;
use crate::report::Row;
use crate::stage::Stage;

/// Nothing takes longer but what is broken.
const LIMIT: Duration = Duration::from_secs(300);

/// The slot that runs read from, a copy of the one at the backlog's start.
const SLOT: &str = "walhook";

/// The slot at the backlog's start.
const MARK: &str = "mark";

/// Everything that measurements share.
pub(crate) struct Bench {
    stage: Stage,
    plan: Plan,
    /// What walhook sends for one row; the bare clients send the same.
    sample: Sample,
    report: Report,
}

/// What draining a backlog has shown.
#[derive(Clone, Copy, Debug)]
struct Drain {
    per_second: f64,
    cpu_per_event: Duration,
    resident_max: u64,
}

impl Bench {
    pub(crate) fn new(plan: Plan) -> anyhow::Result<Self> {
        let stage = Stage::set(plan.binary.clone())?;
        let sample = take_sample(&stage)?;
        let client =
            if client::has_wrk() { "wrk" } else { "a hyper client, as wrk is not installed" };
        let report = Report {
            machine: process::machine(),
            postgres: stage.postgres().to_owned(),
            client: client.to_owned(),
            ..Report::default()
        };
        Ok(Self { stage, plan, sample, report })
    }

    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        for part in PARTS {
            if !self.plan.has(part) {
                continue;
            }
            eprintln!("measuring {part} ...");
            match part {
                "throughput" => self.throughput()?,
                "decode" => self.decode()?,
                "latency" => self.latency()?,
                "slow" => self.slow()?,
                "endpoints" => self.endpoints()?,
                "many" => self.many()?,
                "shapes" => self.shapes()?,
                "restarts" => self.restarts()?,
                "memory" => self.memory()?,
                "inbound" => self.inbound()?,
                "push-log" => self.push_log()?,
                "backfill" => self.backfill()?,
                "roles" => self.roles()?,
                _ => self.plots()?,
            }
        }
        Ok(())
    }

    pub(crate) fn report(self) -> Report {
        self.report
    }

    fn row(
        &mut self,
        what: &str,
        unit: &'static str,
        values: Vec<f64>,
        goal: Goal,
        detail: String,
    ) {
        eprintln!("  {what}: {values:.2?}{unit} {detail}");
        self.report.rows.push(Row { what: what.to_owned(), unit, values, goal, detail });
    }

    /// Marks where a backlog begins and fills it with single-row transactions.
    fn backlog(&self, rows: u64) -> anyhow::Result<()> {
        self.stage.mark(MARK)?;
        self.stage.fill(rows)
    }

    fn end_backlog(&self) -> anyhow::Result<()> {
        self.stage.drop_slot(MARK)
    }

    fn start(&self, job: &Job) -> anyhow::Result<Walhook> {
        self.stage.copy_slot(MARK, SLOT)?;
        Walhook::start(&self.stage, SLOT, job)
    }

    /// Delivers a whole backlog; measured from its first delivery to its last.
    fn drain(&self, job: &Job, events: u64) -> anyhow::Result<Drain> {
        let receiver = &self.stage.receiver;
        let before = receiver.events();
        let mut walhook = self.start(job)?;
        receiver.wait_for(before + 1, LIMIT)?;
        let (begun, cpu, first) = (Instant::now(), walhook.cpu()?, receiver.events() - before);
        let mut resident_max = 0;
        while receiver.events() - before < events {
            resident_max = walhook.resident()?.max(resident_max);
            walhook.check_alive()?;
            anyhow::ensure!(begun.elapsed() < LIMIT, "the backlog did not end within {LIMIT:?}");
            // The last wait adds to the time: about 0.1 % of it.
            thread::sleep(Duration::from_millis(5));
        }
        let (took, cpu) = (begun.elapsed(), walhook.cpu()? - cpu);
        walhook.end(&self.stage)?;
        let done = (events - first).max(1) as f64;
        Ok(Drain {
            per_second: done / took.as_secs_f64(),
            cpu_per_event: cpu.div_f64(done),
            resident_max,
        })
    }

    /// Events per second at each of the receiver's paths while the backlog lasts, or for `window`.
    /// `healthy` of the endpoints answer.
    fn rates(
        &self,
        endpoints: Vec<Endpoint>,
        healthy: usize,
        window: Duration,
    ) -> anyhow::Result<Vec<f64>> {
        let receiver = &self.stage.receiver;
        let before = receiver.events();
        let mut walhook = self.start(&Job::Deliver(endpoints))?;
        receiver.wait_for(before + 1, LIMIT)?;
        thread::sleep(self.plan.warm_up);
        let (begun, counts) = (Instant::now(), receiver.by_path());
        let all = before + self.plan.backlog * healthy as u64;
        while begun.elapsed() < window && receiver.events() < all {
            thread::sleep(Duration::from_millis(1));
        }
        let (took, counts_after) = (begun.elapsed(), receiver.by_path());
        walhook.check_alive()?;
        walhook.end(&self.stage)?;
        let done = counts_after.iter().zip(counts).map(|(after, before)| after - before);
        Ok(done.map(|done| done as f64 / took.as_secs_f64()).collect())
    }

    fn rate(&self, endpoint: Endpoint, window: Duration) -> anyhow::Result<f64> {
        Ok(self.rates(vec![endpoint], 1, window)?.iter().sum())
    }

    /// Waits until the sum of a metric's series is as wanted.
    fn wait_for_metric(
        walhook: &mut Walhook,
        name: &str,
        is_reached: impl Fn(f64) -> bool,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let value = walhook.metric(name)?;
            if is_reached(value) {
                return Ok(());
            }
            walhook.check_alive()?;
            anyhow::ensure!(begun.elapsed() < LIMIT, "{name} stays at {value}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// One endpoint that takes everything.
    fn one(&self) -> Job {
        Job::Deliver(vec![self.endpoint(0)])
    }

    /// An endpoint at `/in/N` of the receiver.
    fn endpoint(&self, number: usize) -> Endpoint {
        Endpoint::new(self.stage.receiver.url(&format!("/in/{number}")))
    }
}

/// Has walhook deliver a row and keeps the request.
fn take_sample(stage: &Stage) -> anyhow::Result<Sample> {
    stage.mark(SLOT)?;
    stage.receiver.sample_anew();
    let endpoint = Endpoint::new(stage.receiver.url(TIMED));
    let mut walhook = Walhook::start(stage, SLOT, &Job::Deliver(vec![endpoint]))?;
    walhook.wait_until_ready()?;
    let inserted = load::paced(stage, 10, Duration::from_millis(100)).join();
    inserted.map_err(|_| anyhow::anyhow!("the inserting client panicked"))??;
    stage.receiver.wait_for(1, LIMIT)?;
    walhook.end(stage)?;
    drop(stage.receiver.take_latencies());
    stage.receiver.sample()
}

fn per_second(rates: &[f64]) -> String {
    let middle = crate::report::median(rates).unwrap_or_default();
    format!("{middle:.0}/s")
}
