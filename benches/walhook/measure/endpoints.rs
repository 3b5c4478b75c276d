//! Several endpoints: what one costs the others.

use std::net::Ipv4Addr;
use std::net::TcpListener;

use crate::measure::Bench;
use crate::measure::per_second;
use crate::measure::throughput::ratios;
use crate::plot::Chart;
use crate::program::Endpoint;
use crate::receiver::HANG;
use crate::report::Goal;

const ENDPOINTS: usize = 10;

impl Bench {
    pub(super) fn endpoints(&mut self) -> anyhow::Result<()> {
        self.backlog(self.plan.backlog)?;
        let window = self.plan.window;
        let (mut healthy, mut troubled) = (Vec::new(), Vec::new());
        let (mut one, mut four) = (Vec::new(), Vec::new());
        let mut groups = Vec::new();
        for _ in 0..self.plan.runs {
            let all = (0..ENDPOINTS).map(|number| self.endpoint(number)).collect();
            healthy.push(self.of_the_others(all, ENDPOINTS)?);
            let mut some: Vec<Endpoint> =
                (0..ENDPOINTS - 2).map(|number| self.endpoint(number)).collect();
            some.push(Endpoint::new(self.stage.receiver.url(HANG)));
            // A port that was free a moment ago: connections are refused.
            let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            some.push(Endpoint::new(format!("http://{closed}/")));
            troubled.push(self.of_the_others(some, ENDPOINTS - 2)?);
            one.push(self.rate(self.endpoint(0), window)?);
            let urls = (0..4).map(|number| self.endpoint(number)).collect();
            four.push(self.rates(urls, 4, window)?.iter().sum());
        }
        for urls in [1, 2, 4, 8] {
            let endpoints = (0..urls).map(|number| self.endpoint(number)).collect();
            let rate = self.rates(endpoints, urls, self.plan.glance)?.iter().sum();
            groups.push((urls.to_string(), vec![rate]));
        }
        self.report.charts.push(Chart {
            name: "urls",
            title: "requests per second, over all, by number of URLs",
            series: vec![String::from("32 in flight each")],
            groups,
        });
        self.end_backlog()?;
        let detail = format!("{} of {}", per_second(&troubled), per_second(&healthy));
        let goal = Goal::AtLeast { must: 0.8, aim: 0.95 };
        let values = ratios(&troubled, &healthy);
        self.row(
            "one dead and one hanging among 10: the others, over none",
            "",
            values,
            goal,
            detail,
        );
        let detail = format!("{} of {}", per_second(&four), per_second(&one));
        let goal = Goal::AtLeast { must: 0.9, aim: 1.0 };
        self.row("requests/s to 4 URLs, over one", "", ratios(&four, &one), goal, detail);
        Ok(())
    }

    /// What the first eight get, per second.
    fn of_the_others(&self, endpoints: Vec<Endpoint>, healthy: usize) -> anyhow::Result<f64> {
        let rates = self.rates(endpoints, healthy, self.plan.window)?;
        Ok(rates.iter().take(ENDPOINTS - 2).sum())
    }
}
