//! Many endpoints: those that do not take an event must cost it nothing, and those that all take it
//! no more than they are.

use crate::measure::Bench;
use crate::measure::per_second;
use crate::measure::throughput::ratios;
use crate::program::Endpoint;
use crate::program::Job;
use crate::receiver::HOSTS;
use crate::receiver::TIMED;
use crate::report::Goal;
use crate::report::median;

impl Bench {
    pub(super) fn many(&mut self) -> anyhow::Result<()> {
        let mut one = Vec::new();
        self.backlog(self.plan.backlog)?;
        for _ in 0..self.plan.long_runs() {
            one.push(self.drain(&self.one(), self.plan.backlog)?.per_second);
        }
        self.end_backlog()?;
        for crowd in self.plan.crowds {
            self.one_of(crowd, &one)?;
        }
        self.everybody(&one)?;
        self.live_crowd()
    }

    /// One endpoint of a crowd takes each event.
    fn one_of(&mut self, crowd: u64, one: &[f64]) -> anyhow::Result<()> {
        // Before the mark: the rows of endpoints are no changes then.
        self.stage.fill_hooks(crowd, &self.stage.receiver.url("/in/0"))?;
        self.stage.mark(crate::measure::MARK)?;
        self.stage.fill_for(self.plan.backlog, crowd)?;
        let by_value = Job::Deliver(self.crowd(crowd, "/in/0"));
        let mut ways = vec![("`when = \"k == N\"`", by_value), ("`match`", Job::ByRow)];
        if usize::try_from(crowd) == Ok(HOSTS) {
            let mut apart = self.crowd(crowd, "/in/0");
            for (host, endpoint) in apart.iter_mut().enumerate() {
                endpoint.url = self.stage.receiver.url_of_host(host, "/in/0");
            }
            ways.push(("`when`, each at a host of its own", Job::Deliver(apart)));
        }
        for (how, job) in &ways {
            let what = format!("{crowd} endpoints, one takes each event by {how}, over one");
            self.drained_by_many(&what, job, self.plan.backlog, one)?;
        }
        self.end_backlog()
    }

    fn everybody(&mut self, one: &[f64]) -> anyhow::Result<()> {
        let (endpoints, rows) = self.plan.everybody;
        self.backlog(rows)?;
        let all = Job::Deliver((0..endpoints).map(|_| self.endpoint(0)).collect());
        let what =
            format!("requests/s to {endpoints} endpoints that all take {rows} rows, over one");
        self.drained_by_many(&what, &all, endpoints * rows, one)?;
        self.end_backlog()
    }

    /// A backlog that many endpoints get, over what one gets of it.
    fn drained_by_many(
        &mut self,
        what: &str,
        job: &Job,
        events: u64,
        one: &[f64],
    ) -> anyhow::Result<()> {
        let (mut rates, mut resident) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.long_runs() {
            let drain = self.drain(job, events)?;
            rates.push(drain.per_second);
            resident.push(drain.resident_max as f64 / (1024.0 * 1024.0));
        }
        let detail = format!(
            "{} of {}; {:.1} MiB",
            per_second(&rates),
            per_second(one),
            median(&resident).unwrap_or_default()
        );
        let goal = Goal::AtLeast { must: 0.8, aim: 1.0 };
        self.row(what, "", ratios(&rates, one), goal, detail);
        Ok(())
    }

    /// The largest crowd under a live load, against one endpoint that takes it all.
    fn live_crowd(&mut self) -> anyhow::Result<()> {
        let (rate, window) = self.plan.live;
        let crowd = self.plan.crowds[2];
        let (mut p99, mut alone, mut medians) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.plan.long_runs() {
            let one = Job::Deliver(vec![Endpoint::new(self.stage.receiver.url(TIMED))]);
            alone.push(self.under_load_of(&one, rate, window, Some(crowd))?.quantile(990));
            let many = Job::Deliver(self.crowd(crowd, TIMED));
            let seen = self.under_load_of(&many, rate, window, Some(crowd))?;
            p99.push(seen.quantile(990));
            medians.push(seen.quantile(500));
        }
        let middle = |values: &[f64]| median(values).unwrap_or_default();
        let what = format!("p99 at {rate}/s with {crowd} endpoints by `when`, over one");
        let detail = format!(
            "{:.2} ms of {:.2} ms; p50 {:.2} ms",
            middle(&p99),
            middle(&alone),
            middle(&medians)
        );
        let goal = Goal::AtMost { must: 1.5, aim: 1.0 };
        self.row(&what, "", ratios(&p99, &alone), goal, detail);
        Ok(())
    }

    /// Endpoints, each of which takes the events of its customer.
    fn crowd(&self, crowd: u64, path: &str) -> Vec<Endpoint> {
        let of = |customer| Endpoint {
            when: Some(format!("customer_id == {customer}")),
            ..Endpoint::new(self.stage.receiver.url(path))
        };
        (0..crowd).map(of).collect()
    }
}
