//! Receivers that take their time: what latency costs the rate, and PostgreSQL.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::client;
use crate::measure::Bench;
use crate::measure::LIMIT;
use crate::measure::per_second;
use crate::measure::throughput::IN_FLIGHT;
use crate::program::Endpoint;
use crate::program::Job;
use crate::receiver::GATE;
use crate::receiver::SLOW;
use crate::report::Goal;
use crate::report::median;

/// What may be set by hand, and is beyond what a receiver usually gets.
const WIDE: usize = 512;

/// What walhook's `concurrency` is by default.
const DEFAULT: usize = 128;

/// What Go and Node programs are written with.
const YARDSTICK: usize = 256;

/// A window of a backlog that is delivered.
#[derive(Clone, Copy, Debug)]
struct Window {
    per_second: f64,
    /// Microseconds of PostgreSQL per event.
    server_cpu: f64,
}

impl Bench {
    pub(super) fn slow(&mut self) -> anyhow::Result<()> {
        self.backlog(self.plan.backlog)?;
        for latency in [20, 200] {
            self.answering_after(latency, &[DEFAULT, WIDE])?;
        }
        self.server_cpu()?;
        self.end_backlog()?;
        self.by_way_of_the_backlog()
    }

    /// All rows are parked while the endpoint is down, and come back when it is there again.
    fn by_way_of_the_backlog(&mut self) -> anyhow::Result<()> {
        let (receiver, rows) = (self.stage.receiver.clone(), self.plan.parked);
        self.backlog(rows)?;
        let (mut cpu, mut ours, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.plan.long_runs() {
            receiver.open_gate(false);
            let endpoint = Endpoint::new(receiver.url(GATE));
            let mut walhook = self.start(&Job::Deliver(vec![endpoint]))?;
            walhook.wait_until_ready()?;
            let server = self.stage.server_cpu()?;
            let own = walhook.cpu()?;
            let parked = "walhook_deliveries_pending{endpoint=\"e0\",where=\"backlog\"}";
            Self::wait_for_metric(&mut walhook, parked, |parked| parked >= rows as f64)?;
            let before = receiver.events();
            receiver.open_gate(true);
            receiver.wait_for(before + 1, LIMIT)?;
            let (begun, first) = (Instant::now(), receiver.events());
            receiver.wait_for(before + rows, LIMIT)?;
            rates.push((receiver.events() - first) as f64 / begun.elapsed().as_secs_f64());
            Self::wait_for_metric(&mut walhook, parked, |parked| parked == 0.0)?;
            cpu.push(self.stage.server_cpu_since(&server)?.as_secs_f64() * 1e6 / rows as f64);
            ours.push((walhook.cpu()? - own).as_secs_f64() * 1e6 / rows as f64);
            walhook.end(&self.stage)?;
        }
        self.end_backlog()?;
        let ours = median(&ours).unwrap_or_default();
        let detail = format!("walhook's own: {ours:.1} µs; {} out", per_second(&rates));
        let goal = Goal::AtMost { must: 100.0, aim: 50.0 };
        self.row("PostgreSQL's CPU an event by way of walhook.backlog", " µs", cpu, goal, detail);
        Ok(())
    }

    /// As many requests in flight over the latency is what there can be.
    fn answering_after(&mut self, latency: u64, widths: &[usize]) -> anyhow::Result<()> {
        let path: &'static str = if latency == 20 { "/slow/20" } else { "/slow/200" };
        debug_assert_eq!(path, format!("{SLOW}{latency}"));
        for &width in widths {
            let in_flight = (width != DEFAULT).then_some(width);
            let bound = width as f64 * 1000.0 / latency as f64;
            let mut rates = Vec::new();
            for _ in 0..self.plan.long_runs() {
                let endpoint =
                    Endpoint { in_flight, ..Endpoint::new(self.stage.receiver.url(path)) };
                rates.push(self.window(endpoint)?.per_second);
            }
            let what =
                format!("answers after {latency} ms, {width} in flight, over {width}/{latency} ms");
            let detail = format!("{} of {bound:.0}/s", per_second(&rates));
            let goal = Goal::AtLeast { must: 0.8, aim: 0.95 };
            let values = rates.iter().map(|rate| rate / bound).collect();
            self.row(&what, "", values, goal, detail);
        }
        for connections in [IN_FLIGHT, YARDSTICK] {
            let mut rates = Vec::new();
            for _ in 0..self.plan.long_runs() {
                let address = self.stage.receiver.address();
                let window = self.plan.window;
                let bare = client::hyper(address, path, &self.sample, connections, window)?;
                rates.push(bare.per_second * latency as f64 / (connections as f64 * 1000.0));
            }
            let what = format!("the same of a bare client, {connections} in flight");
            self.row(&what, "", rates, Goal::Open, String::new());
        }
        Ok(())
    }

    /// What an event costs PostgreSQL, all of its processes, by how quick its receiver is.
    fn server_cpu(&mut self) -> anyhow::Result<()> {
        for (latency, in_flight) in [("20", None), ("200", None), ("20", Some(IN_FLIGHT))] {
            let (mut ratios, mut slow, mut quick) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..self.plan.long_runs() {
                let with_quick = self.window(self.endpoint(0))?.server_cpu;
                let url = self.stage.receiver.url(&format!("{SLOW}{latency}"));
                let with_slow =
                    self.window(Endpoint { in_flight, ..Endpoint::new(url) })?.server_cpu;
                ratios.push(with_slow / with_quick);
                slow.push(with_slow);
                quick.push(with_quick);
            }
            let width = in_flight.unwrap_or(DEFAULT);
            let what = format!(
                "PostgreSQL's CPU an event, {latency} ms and {width} in flight, over quick"
            );
            let middle = |values: &[f64]| median(values).unwrap_or_default();
            let detail = format!("{:.1} µs of {:.1} µs", middle(&slow), middle(&quick));
            self.row(&what, "", ratios, Goal::AtMost { must: 1.5, aim: 1.0 }, detail);
        }
        Ok(())
    }

    /// Some of the backlog, once the number of requests in flight has been found.
    fn window(&self, endpoint: Endpoint) -> anyhow::Result<Window> {
        let receiver = &self.stage.receiver;
        let before = receiver.events();
        let is_slow = endpoint.url.contains(SLOW);
        let mut walhook = self.start(&Job::Deliver(vec![endpoint]))?;
        receiver.wait_for(before + 1, LIMIT)?;
        thread::sleep(if is_slow { self.plan.ramp } else { self.plan.warm_up });
        let (begun, first, cpu) = (Instant::now(), receiver.events(), self.stage.server_cpu()?);
        let (window, all) = (self.plan.window, before + self.plan.backlog);
        while begun.elapsed() < window && receiver.events() < all {
            thread::sleep(Duration::from_millis(1));
        }
        let (took, done) = (begun.elapsed(), (receiver.events() - first).max(1) as f64);
        let cpu = self.stage.server_cpu_since(&cpu)?;
        walhook.check_alive()?;
        walhook.end(&self.stage)?;
        Ok(Window {
            per_second: done / took.as_secs_f64(),
            server_cpu: cpu.as_secs_f64() * 1e6 / done,
        })
    }
}
