//! Requests of another kind: over TLS, of many columns, and large.

use crate::client;
use crate::measure::Bench;
use crate::measure::MARK;
use crate::measure::per_second;
use crate::measure::throughput::IN_FLIGHT;
use crate::measure::throughput::ratios;
use crate::program::Endpoint;
use crate::program::Job;
use crate::report::Goal;

impl Bench {
    pub(super) fn shapes(&mut self) -> anyhow::Result<()> {
        self.https()?;
        self.stage.mark(MARK)?;
        self.stage.fill_wide(self.plan.backlog / 2)?;
        self.against_bare("100 columns", self.plan.backlog / 2)?;
        self.stage.mark(MARK)?;
        self.stage.fill_large(self.plan.large_rows)?;
        self.against_bare("bodies of 50 kB", self.plan.large_rows)
    }

    fn https(&mut self) -> anyhow::Result<()> {
        let events = self.plan.backlog;
        self.backlog(events)?;
        let (mut plain, mut tls) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.long_runs() {
            plain.push(self.drain(&self.one(), events)?.per_second);
            let endpoint = Endpoint {
                trusted: Some(self.stage.identity.file()),
                ..Endpoint::new(self.stage.receiver.https("/in/0"))
            };
            tls.push(self.drain(&Job::Deliver(vec![endpoint]), events)?.per_second);
        }
        self.end_backlog()?;
        let detail = format!("{} of {}", per_second(&tls), per_second(&plain));
        let goal = Goal::AtLeast { must: 0.8, aim: 0.9 };
        self.row("HTTPS over plain HTTP", "", ratios(&tls, &plain), goal, detail);
        Ok(())
    }

    /// What was filled, beside a bare client that posts the same requests.
    fn against_bare(&mut self, what: &str, events: u64) -> anyhow::Result<()> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.long_runs() {
            self.stage.receiver.sample_anew();
            ours.push(self.drain(&self.one(), events)?.per_second);
            let sample = self.stage.receiver.sample()?;
            let address = self.stage.receiver.address();
            let window = self.plan.window;
            let bare = client::hyper(address, "/in/0", &sample, IN_FLIGHT, window)?;
            theirs.push(bare.per_second);
        }
        self.end_backlog()?;
        let detail = format!("{} of {}", per_second(&ours), per_second(&theirs));
        let what = format!("{what}, 32 in flight, over a bare client that only posts");
        self.row(&what, "", ratios(&ours, &theirs), Goal::Open, detail);
        Ok(())
    }
}
