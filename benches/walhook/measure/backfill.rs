//! Rows that were there before: how fast they are sent, what that does to what is live, and to the server.

use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::load;
use crate::measure::Bench;
use crate::measure::SLOT;
use crate::measure::per_second;
use crate::measure::throughput::ratios;
use crate::program::Endpoint;
use crate::program::Job;
use crate::program::Walhook;
use crate::receiver::TIMED;
use crate::report::Goal;
use crate::report::median;

const MIB: f64 = 1024.0 * 1024.0;

/// Rows a second that come meanwhile.
const LIVE: u64 = 500;

/// Nothing that works takes longer, ten million rows included.
const LONG: Duration = Duration::from_secs(3600);

/// What a backfill has shown.
struct Sent {
    per_second: f64,
    resident_max: u64,
    /// How long a session of walhook's has held a snapshot, at most.
    oldest: Duration,
}

impl Bench {
    pub(super) fn backfill(&mut self) -> anyhow::Result<()> {
        self.stage.fill_archive(self.plan.archived)?;
        self.beside_copy()?;
        self.beside_live()?;
        if self.plan.archived_long > self.plan.archived {
            self.stage.fill_archive(self.plan.archived_long)?;
        }
        self.long()
    }

    /// Rows a second over those of a COPY of the same table.
    fn beside_copy(&mut self) -> anyhow::Result<()> {
        let jobs = [
            (
                "decoded and rendered to nobody",
                Job::ReadOnly,
                Goal::AtLeast { must: 0.2, aim: 0.5 },
            ),
            ("to one endpoint", self.one(), Goal::Open),
            (
                "to one endpoint, in batches of 100",
                Job::Deliver(vec![Endpoint { batch: 100, ..self.endpoint(0) }]),
                Goal::Open,
            ),
        ];
        for (what, job, goal) in jobs {
            let (mut copied, mut sent) = (Vec::new(), Vec::new());
            for _ in 0..self.plan.long_runs() {
                copied.push(self.copy()?);
                sent.push(self.send(&job, self.plan.archived, false)?.per_second);
            }
            let values = ratios(&sent, &copied);
            let detail = format!("{} of {}", per_second(&sent), per_second(&copied));
            self.row(&format!("backfill {what}, over COPY TO STDOUT"), "", values, goal, detail);
        }
        Ok(())
    }

    fn copy(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        self.stage.copy_out("archive")?;
        Ok(self.plan.archived as f64 / begun.elapsed().as_secs_f64())
    }

    fn order(walhook: &Walhook, endpoint: &str, rate: Option<u64>) -> anyhow::Result<()> {
        let rate = rate.map(|rate| format!(", \"rate\": {rate}")).unwrap_or_default();
        let body = format!(
            "{{\"tables\": [\"public.archive\"], \"as\": \"archived\", \"endpoints\": [\"{endpoint}\"]{rate}}}"
        );
        let answer = walhook.post("/api/v1/backfills", &body)?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        Ok(())
    }

    fn read(walhook: &Walhook) -> anyhow::Result<f64> {
        walhook.metric("walhook_backfill_rows_total{state=\"read\"")
    }

    /// Has the archive sent to the first endpoint. Whoever `looks` asks the server meanwhile, too, and has live
    /// rows come.
    fn send(&self, job: &Job, rows: u64, looks: bool) -> anyhow::Result<Sent> {
        self.stage.mark(SLOT)?;
        let mut walhook = Walhook::start(&self.stage, SLOT, job)?;
        walhook.wait_until_ready()?;
        Self::order(&walhook, "e0", None)?;
        // The first chunk finds out how fast it can go.
        while Self::read(&walhook)? == 0.0 {
            walhook.check_alive()?;
            thread::sleep(Duration::from_millis(1));
        }
        let (begun, first) = (Instant::now(), Self::read(&walhook)?);
        let (mut resident_max, mut oldest, mut load) = (0, Duration::ZERO, None);
        while Self::read(&walhook)? < rows as f64 {
            resident_max = walhook.resident()?.max(resident_max);
            if looks {
                oldest = self.stage.oldest_snapshot()?.max(oldest);
                if load.as_ref().is_none_or(JoinHandle::is_finished) {
                    load = Some(load::paced(&self.stage, LIVE, self.plan.window));
                }
            }
            walhook.check_alive()?;
            anyhow::ensure!(begun.elapsed() < LONG, "the backfill did not end within {LONG:?}");
            thread::sleep(Duration::from_millis(20));
        }
        let took = begun.elapsed();
        if let Some(load) = load {
            load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        }
        walhook.end(&self.stage)?;
        let per_second = (rows as f64 - first) / took.as_secs_f64();
        Ok(Sent { per_second, resident_max, oldest })
    }

    /// What is live waits no longer while rows are sent beside it.
    fn beside_live(&mut self) -> anyhow::Result<()> {
        // Live rows say when they were written; those of the archive do not.
        let live = Endpoint::new(self.stage.receiver.url(TIMED));
        let old = Endpoint { when: Some(String::from("sent_at == 0")), ..self.endpoint(1) };
        let goal = Goal::AtMost { must: 2.0, aim: 1.2 };
        for (what, endpoint, rate, goal) in [
            ("to another endpoint, at 500/s", "e1", Some(LIVE), goal),
            ("to another endpoint, as fast as it can", "e1", None, Goal::Open),
            ("to the same endpoint, at 500/s", "e0", Some(LIVE), Goal::Open),
        ] {
            let (mut idle, mut busy) = (Vec::new(), Vec::new());
            for _ in 0..self.plan.long_runs() {
                let job = Job::Deliver(vec![live.clone(), old.clone()]);
                self.stage.mark(SLOT)?;
                let mut walhook = Walhook::start(&self.stage, SLOT, &job)?;
                walhook.wait_until_ready()?;
                self.live_p99()?; // connections are made before what is measured
                idle.push(self.live_p99()?);
                Self::order(&walhook, endpoint, rate)?;
                while Self::read(&walhook)? == 0.0 {
                    walhook.check_alive()?;
                    thread::sleep(Duration::from_millis(1));
                }
                busy.push(self.live_p99()?);
                walhook.end(&self.stage)?;
            }
            let detail = format!(
                "{:.2} ms of {:.2} ms",
                median(&busy).unwrap_or_default(),
                median(&idle).unwrap_or_default()
            );
            let values = ratios(&busy, &idle);
            self.row(
                &format!("live p99 beside a backfill {what}, over idle"),
                "",
                values,
                goal,
                detail,
            );
        }
        Ok(())
    }

    /// Milliseconds from the start of an INSERT to its request. Of a backfill nothing is timed: its rows
    /// were written at no time.
    fn live_p99(&self) -> anyhow::Result<f64> {
        drop(self.stage.receiver.take_latencies());
        let load = load::paced(&self.stage, LIVE, self.plan.window * 2);
        load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        thread::sleep(self.plan.warm_up);
        Ok(self.p99_since())
    }

    /// Of those that have come since it was asked last.
    fn p99_since(&self) -> f64 {
        let latencies = self.stage.receiver.take_latencies();
        let last = latencies.len().saturating_sub(1);
        let latency = latencies.get(last * 99 / 100);
        latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }

    /// Many rows to an endpoint that wants none of them, once, beside live ones: what walhook takes of memory,
    /// and how long vacuum is held back.
    fn long(&mut self) -> anyhow::Result<()> {
        let rows = self.plan.archived_long;
        let nobody = Endpoint { when: Some(String::from("sent_at == 1")), ..self.endpoint(0) };
        let job = Job::Deliver(vec![nobody, Endpoint::new(self.stage.receiver.url(TIMED))]);
        drop(self.stage.receiver.take_latencies());
        let sent = self.send(&job, rows, true)?;
        let detail =
            format!("{rows} rows, {:.0}/s, beside {LIVE} live ones a second", sent.per_second);
        let live = vec![self.p99_since()];
        self.row("live p99 beside a long backfill", " ms", live, Goal::Open, String::new());
        let resident = sent.resident_max as f64 / MIB;
        let goal = Goal::AtMost { must: 64.0, aim: 48.0 };
        self.row("resident memory of a long backfill", " MiB", vec![resident], goal, detail);
        let goal = Goal::AtMost { must: 1.0, aim: 0.5 };
        let what = "the oldest snapshot of a long backfill";
        let oldest = vec![sent.oldest.as_secs_f64()];
        self.row(what, " s", oldest, goal, String::from("looked at every 20 ms"));
        Ok(())
    }
}
