//! How fast a backlog of single-row transactions is delivered.

use crate::client;
use crate::measure::Bench;
use crate::measure::per_second;
use crate::plot::Chart;
use crate::program::Endpoint;
use crate::program::Job;
use crate::report::Goal;
use crate::report::median;

pub(super) const IN_FLIGHT: usize = 32;
const BATCH: usize = 100;

impl Bench {
    pub(super) fn throughput(&mut self) -> anyhow::Result<()> {
        self.backlog(self.plan.backlog)?;
        let (mut plain, mut wrks, mut strict, mut wrks_1, mut batched) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut cpu, mut bare_cpu, mut resident) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.plan.runs {
            let (events, window) = (self.plan.backlog, self.plan.window);
            wrks.push(self.bare(IN_FLIGHT)?);
            let drain = self.drain(&self.one(), events)?;
            plain.push(drain.per_second);
            resident.push(drain.resident_max as f64 / (1024.0 * 1024.0));
            let address = self.stage.receiver.address();
            let bare = client::hyper(address, "/in/0", &self.sample, IN_FLIGHT, window)?;
            cpu.push(drain.cpu_per_event.as_secs_f64() * 1e6);
            bare_cpu.push(bare.cpu_per_request.as_secs_f64() * 1e6);
            wrks_1.push(self.bare(1)?);
            let one = Endpoint { in_flight: Some(1), strict: true, ..self.endpoint(0) };
            strict.push(self.rate(one, window)?);
            let hundred = Endpoint { batch: BATCH, ..self.endpoint(0) };
            batched.push(self.drain(&Job::Deliver(vec![hundred]), events)?.per_second);
        }
        let detail = format!("{} of {}", per_second(&plain), per_second(&wrks));
        let goal = Goal::AtLeast { must: 0.35, aim: 0.5 };
        self.row(
            "delivered/s, 32 in flight, over wrk -c32",
            "",
            ratios(&plain, &wrks),
            goal,
            detail,
        );
        let detail = format!("{} of {}", per_second(&strict), per_second(&wrks_1));
        let goal = Goal::AtLeast { must: 0.6, aim: 0.8 };
        self.row("in strict order, over wrk -c1", "", ratios(&strict, &wrks_1), goal, detail);
        let detail = format!("{} of {}", per_second(&batched), per_second(&plain));
        let goal = Goal::AtLeast { must: 3.0, aim: 4.0 };
        self.row("in batches of 100, over unbatched", "", ratios(&batched, &plain), goal, detail);
        let micros = |values: &[f64]| median(values).unwrap_or_default();
        let detail = format!("{:.1} µs of {:.1} µs", micros(&cpu), micros(&bare_cpu));
        let goal = Goal::AtMost { must: 2.3, aim: 1.8 };
        self.row(
            "CPU per event, over a bare hyper client's",
            "",
            ratios(&cpu, &bare_cpu),
            goal,
            detail,
        );
        let goal = Goal::AtMost { must: 32.0, aim: 20.0 };
        self.row("resident memory at full rate", " MiB", resident, goal, String::new());
        self.end_backlog()
    }

    /// Requests per second of the comparison client.
    fn bare(&self, connections: usize) -> anyhow::Result<f64> {
        let (receiver, window) = (&self.stage.receiver, self.plan.window);
        if client::has_wrk() {
            client::wrk(&receiver.url("/in/0"), &self.sample, connections, window)
        } else {
            let bare =
                client::hyper(receiver.address(), "/in/0", &self.sample, connections, window)?;
            Ok(bare.per_second)
        }
    }

    pub(super) fn plots(&mut self) -> anyhow::Result<()> {
        self.backlog(self.plan.backlog)?;
        let mut groups = Vec::new();
        for in_flight in [1, 2, 4, 8, 16, 32, 64] {
            let endpoint = Endpoint { in_flight: Some(in_flight), ..self.endpoint(0) };
            groups.push((in_flight.to_string(), vec![self.rate(endpoint, self.plan.glance)?]));
        }
        self.report.charts.push(Chart {
            name: "in-flight",
            title: "events per second by requests in flight",
            series: vec![String::from("one URL, unbatched")],
            groups,
        });
        let mut groups = Vec::new();
        for batch in [1, 2, 5, 10, 20, 50, 100] {
            let endpoint = Endpoint { batch, ..self.endpoint(0) };
            let per_second =
                self.drain(&Job::Deliver(vec![endpoint]), self.plan.backlog)?.per_second;
            groups.push((batch.to_string(), vec![per_second]));
        }
        self.report.charts.push(Chart {
            name: "batch-size",
            title: "events per second by batch size",
            series: vec![String::from("one URL, 32 in flight")],
            groups,
        });
        self.end_backlog()
    }
}

/// Run by run.
pub(super) fn ratios(values: &[f64], over: &[f64]) -> Vec<f64> {
    values.iter().zip(over).map(|(value, over)| value / over).collect()
}
