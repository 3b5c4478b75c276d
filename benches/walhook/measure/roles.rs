//! One process that reads and several that deliver, over a broker, beside one that does both.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::load;
use crate::measure::Bench;
use crate::measure::LIMIT;
use crate::measure::SLOT;
use crate::measure::per_second;
use crate::measure::throughput::ratios;
use crate::members::Members;
use crate::program::Endpoint;
use crate::program::Job;
use crate::receiver::PATHS_MAX;
use crate::receiver::SLOW;
use crate::receiver::TIMED;
use crate::report::Goal;
use crate::report::median;

/// Endpoints for each worker, one request in flight to each.
const EACH: u64 = 8;

/// Milliseconds that their receiver takes.
const TAKES: u64 = 5;

/// Rows come for so long at a time while workers are replaced.
const PIECE: Duration = Duration::from_secs(5);

/// Rows per second under which members come and go.
const RATE: u64 = 1000;

impl Bench {
    pub(super) fn roles(&mut self) -> anyhow::Result<()> {
        self.through_a_broker()?;
        self.cpu_of_members()?;
        self.cpu_over_tls()?;
        self.workers_in_a_row()?;
        self.takeover()?;
        self.rolling_restart()
    }

    /// Starts members at the end of the WAL.
    fn live_members(&self, job: &Job, workers: usize) -> anyhow::Result<Members> {
        self.stage.mark(SLOT)?;
        Members::start(&self.stage, SLOT, job, workers)
    }

    fn through_a_broker(&mut self) -> anyhow::Result<()> {
        let job = Job::Deliver(vec![Endpoint::new(self.stage.receiver.url(TIMED))]);
        let (mut more, mut details) = (Vec::new(), [const { Vec::new() }; 2]);
        for _ in 0..self.plan.long_runs() {
            let alone = self.under_load_of(&job, RATE, self.plan.window, None)?.quantile(990);
            let members = self.live_members(&job, 1)?;
            let relayed = self.under_load_now(RATE, self.plan.window, None)?.quantile(990);
            members.end(&self.stage)?;
            more.push(relayed - alone);
            for (detail, value) in details.iter_mut().zip([relayed, alone]) {
                detail.push(value);
            }
        }
        let [relayed, alone] = details.map(|values| median(&values).unwrap_or_default());
        let detail = format!("{relayed:.2} ms of {alone:.2} ms");
        let goal = Goal::AtMost { must: 3.0, aim: 1.5 };
        self.row("p99 at 1,000/s over a broker, more than alone", " ms", more, goal, detail);
        Ok(())
    }

    fn cpu_of_members(&mut self) -> anyhow::Result<()> {
        let events = self.plan.backlog;
        let job = Job::Deliver(self.by_customer(EACH, &self.stage.receiver.url("/in/0"), None));
        self.stage.mark(crate::measure::MARK)?;
        self.stage.fill_for(events, EACH)?;
        let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6;
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.long_runs() {
            alone.push(micros(self.drain(&job, events)?.cpu_per_event));
        }
        self.end_backlog()?;
        for _ in 0..self.plan.long_runs() {
            let members = self.live_members(&job, 1)?;
            let (before, cpu) = (self.stage.receiver.events(), members.cpu()?);
            self.stage.fill_for(events, EACH)?;
            self.stage.receiver.wait_for(before + events, LIMIT)?;
            together.push(micros(members.cpu()? - cpu) / events as f64);
            members.end(&self.stage)?;
        }
        let middle = |values: &[f64]| median(values).unwrap_or_default();
        let detail = format!("{:.1} µs of {:.1} µs", middle(&together), middle(&alone));
        let goal = Goal::AtMost { must: 1.3, aim: 1.2 };
        let values = ratios(&together, &alone);
        self.row("CPU per delivery flat out, over alone", "", values, goal, detail);
        Ok(())
    }

    /// What members are for: receivers that take their time, over TLS.
    fn cpu_over_tls(&mut self) -> anyhow::Result<()> {
        let url = self.stage.receiver.https(&format!("{SLOW}{TAKES}"));
        let job = Job::Deliver(self.by_customer(EACH, &url, Some(1)));
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.long_runs() {
            let walhook = self.live(&job)?;
            alone.push(self.cpu_per_delivery(|| walhook.cpu())?);
            walhook.end(&self.stage)?;
            let members = self.live_members(&job, 1)?;
            together.push(self.cpu_per_delivery(|| members.cpu())?);
            members.end(&self.stage)?;
        }
        let middle = |values: &[f64]| median(values).unwrap_or_default();
        let detail = format!("{:.1} µs of {:.1} µs", middle(&together), middle(&alone));
        let goal = Goal::AtMost { must: 1.3, aim: 1.2 };
        let values = ratios(&together, &alone);
        self.row("CPU per delivery over TLS, over alone", "", values, goal, detail);
        Ok(())
    }

    /// Microseconds, while there are more rows than can be delivered.
    fn cpu_per_delivery(&self, cpu: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<f64> {
        let receiver = &self.stage.receiver;
        let millis = u64::try_from((self.plan.warm_up + self.plan.window).as_millis())?;
        let before = receiver.events();
        self.stage.fill_for(EACH * millis * 6 / (5 * TAKES), EACH)?;
        receiver.wait_for(before + 1, LIMIT)?;
        thread::sleep(self.plan.warm_up);
        let (first, begun) = (receiver.events(), cpu()?);
        thread::sleep(self.plan.window);
        let spent = cpu()? - begun;
        Ok(spent.as_secs_f64() * 1e6 / (receiver.events() - first) as f64)
    }

    /// Receivers take their time, so that what each worker can do is the same on any machine.
    fn workers_in_a_row(&mut self) -> anyhow::Result<()> {
        let mut one = Vec::new();
        for workers in 1..=3 {
            let endpoints = EACH * workers as u64;
            let url = self.stage.receiver.https(&format!("{SLOW}{TAKES}"));
            let job = Job::Deliver(self.by_customer(endpoints, &url, Some(1)));
            let millis = (self.plan.warm_up + self.plan.window).as_millis();
            // A fifth more than what can be delivered in the time.
            let rows = endpoints * u64::try_from(millis)? * 6 / (5 * TAKES);
            let mut rates = Vec::new();
            for _ in 0..self.plan.long_runs() {
                let mut members = self.live_members(&job, workers)?;
                let receiver = &self.stage.receiver;
                let before = receiver.events();
                self.stage.fill_for(rows, endpoints)?;
                receiver.wait_for(before + 1, LIMIT)?;
                thread::sleep(self.plan.warm_up);
                let (begun, first) = (Instant::now(), receiver.events());
                while begun.elapsed() < self.plan.window && receiver.events() - before < rows {
                    thread::sleep(Duration::from_millis(1));
                }
                rates.push((receiver.events() - first) as f64 / begun.elapsed().as_secs_f64());
                members.check_alive()?;
                members.end(&self.stage)?;
            }
            if workers == 1 {
                one = rates;
                continue;
            }
            let times = workers as f64;
            let values = ratios(&rates, &one).into_iter().map(|ratio| ratio / times).collect();
            let what = format!("deliveries/s over TLS of {workers} workers, over {workers} of one");
            let detail = format!("{} of {}", per_second(&rates), per_second(&one));
            let goal = Goal::AtLeast { must: 0.8, aim: 0.95 };
            self.row(&what, "", values, goal, detail);
        }
        Ok(())
    }

    /// From the kill of one of two workers until each endpoint gets events again.
    fn takeover(&mut self) -> anyhow::Result<()> {
        let receiver = self.stage.receiver.clone();
        let endpoint = |customer: usize| Endpoint {
            when: Some(format!("customer_id == {customer}")),
            ..Endpoint::new(receiver.url(&format!("/in/{customer}")))
        };
        let job = Job::Deliver((0..PATHS_MAX).map(endpoint).collect());
        let mut taken = Vec::new();
        for _ in 0..self.plan.long_runs() {
            let mut members = self.live_members(&job, 2)?;
            let before = receiver.events();
            let window = Duration::from_secs(12);
            let load = load::paced_for(&self.stage, RATE, window, Some(PATHS_MAX as u64));
            receiver.wait_for(before + RATE, LIMIT)?;
            members.kill_one();
            let begun = Instant::now();
            // What was on its way has come by then.
            thread::sleep(Duration::from_millis(100));
            let counts = receiver.by_path();
            while receiver.by_path().iter().zip(counts).any(|(now, then)| *now == then) {
                members.check_alive()?;
                anyhow::ensure!(begun.elapsed() < LIMIT, "nobody has taken the partitions over");
                thread::sleep(Duration::from_millis(5));
            }
            taken.push(begun.elapsed().as_secs_f64());
            let inserted = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
            receiver.wait_for(before + inserted.rows, LIMIT)?;
            members.end(&self.stage)?;
        }
        let goal = Goal::AtMost { must: 7.0, aim: 6.0 };
        self.row(
            "a worker is killed: until all endpoints get events",
            " s",
            taken,
            goal,
            String::new(),
        );
        Ok(())
    }

    /// Three workers are replaced one after the other, for as long as it takes, while rows come.
    fn rolling_restart(&mut self) -> anyhow::Result<()> {
        let job = Job::Deliver(self.by_customer(EACH, &self.stage.receiver.url(TIMED), None));
        let receiver = self.stage.receiver.clone();
        let to_replace = if self.plan.is_small { 1 } else { 3 };
        let (mut p99s, mut repeats) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.long_runs() {
            let mut members = self.live_members(&job, 3)?;
            drop(receiver.take_latencies());
            let before = receiver.events();
            let start = || load::paced_for(&self.stage, RATE, PIECE, Some(EACH));
            let (mut load, mut inserted, mut replaced, begun) = (start(), 0, 0, Instant::now());
            loop {
                let is_shared = members.are_shared(&self.stage, SLOT);
                if is_shared && replaced < to_replace {
                    members.replace_one(&self.stage, SLOT, &job)?;
                    replaced += 1;
                    continue;
                }
                if load.is_finished() {
                    let ended = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
                    inserted += ended?.rows;
                    if is_shared && replaced == to_replace {
                        break;
                    }
                    load = start();
                }
                members.check_alive()?;
                anyhow::ensure!(begun.elapsed() < 3 * LIMIT, "the partitions are not shared");
                thread::sleep(Duration::from_millis(50));
            }
            receiver.wait_for(before + inserted, LIMIT)?;
            thread::sleep(self.plan.warm_up);
            repeats.push((receiver.events() - before - inserted) as f64);
            let latencies = receiver.take_latencies();
            let at = latencies.len().saturating_sub(1) * 99 / 100;
            p99s.push(latencies.get(at).map_or(f64::NAN, Duration::as_secs_f64));
            members.check_alive()?;
            members.end(&self.stage)?;
        }
        let detail = format!("{:.0} repeats", median(&repeats).unwrap_or_default());
        let goal = Goal::AtMost { must: 6.0, aim: 2.0 };
        self.row("p99 while three workers are replaced", " s", p99s, goal, detail);
        Ok(())
    }

    /// Endpoints, each of which takes the events of its customer.
    fn by_customer(&self, count: u64, url: &str, in_flight: Option<usize>) -> Vec<Endpoint> {
        let of = |customer| {
            let endpoint = Endpoint::new(url.to_owned());
            let trusted = url.starts_with("https").then(|| self.stage.identity.file());
            let in_flight = in_flight.or(endpoint.in_flight);
            let when = Some(format!("customer_id == {customer}"));
            Endpoint { when, in_flight, trusted, ..endpoint }
        };
        (0..count).map(of).collect()
    }
}
