//! Reading, decoding and rendering alone, against PostgreSQL's own client.

use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::measure::Bench;
use crate::measure::LIMIT;
use crate::measure::MARK;
use crate::measure::per_second;
use crate::measure::throughput::ratios;
use crate::process;
use crate::program::Job;
use crate::report::Goal;

/// What its client does with the slot's changes.
const SLOT: &str = "recvlogical";

const LARGE_TRANSACTIONS: u64 = 4;

/// What reading a backlog has shown, from when the server has attached the reader to the slot to
/// the last change. What a program does before that is not reading.
#[derive(Debug, Default)]
struct Readings {
    per_second: Vec<f64>,
    /// Microseconds of the walsender per change.
    walsender: Vec<f64>,
}

impl Bench {
    pub(super) fn decode(&mut self) -> anyhow::Result<()> {
        let rows = self.plan.backlog;
        self.backlog(rows)?;
        let (walhook, theirs) = self.readings(rows)?;
        self.end_backlog()?;
        let goal = Goal::AtLeast { must: 2.0, aim: 3.0 };
        self.decode_row(
            "decode and render, single-row transactions, over pg_recvlogical",
            &walhook,
            &theirs,
            goal,
        );
        let cpu = ratios(&walhook.walsender, &theirs.walsender);
        let detail = match (walhook.walsender.first(), theirs.walsender.first()) {
            (Some(ours), Some(theirs)) => format!("{ours:.1} µs of {theirs:.1} µs"),
            _ => String::from("there is no pg_recvlogical"),
        };
        let goal = Goal::AtMost { must: 0.7, aim: 0.5 };
        self.row("CPU of the walsender per change, over pg_recvlogical's", "", cpu, goal, detail);

        self.stage.mark(MARK)?;
        self.stage.fill_at_once(self.plan.large, LARGE_TRANSACTIONS)?;
        let (walhook, theirs) = self.readings(self.plan.large * LARGE_TRANSACTIONS)?;
        self.end_backlog()?;
        let what = format!("the same, transactions of {} rows", self.plan.large);
        let goal = Goal::AtLeast { must: 1.0, aim: 1.3 };
        self.decode_row(&what, &walhook, &theirs, goal);
        Ok(())
    }

    fn decode_row(&mut self, what: &str, walhook: &Readings, theirs: &Readings, goal: Goal) {
        let detail = match theirs.per_second.as_slice() {
            [] => format!("{}; there is no pg_recvlogical", per_second(&walhook.per_second)),
            theirs => format!("{} of {}", per_second(&walhook.per_second), per_second(theirs)),
        };
        let values = ratios(&walhook.per_second, &theirs.per_second);
        self.row(what, "", values, goal, detail);
    }

    fn readings(&self, rows: u64) -> anyhow::Result<(Readings, Readings)> {
        let (mut walhook, mut theirs) = (Readings::default(), Readings::default());
        for _ in 0..self.plan.runs {
            self.read_by_walhook(rows, &mut walhook)?;
            self.read_by_recvlogical(rows, &mut theirs)?;
        }
        Ok((walhook, theirs))
    }

    fn read_by_walhook(&self, rows: u64, readings: &mut Readings) -> anyhow::Result<()> {
        let mut walhook = self.start(&Job::ReadOnly)?;
        let walsender = self.attached(super::SLOT)?;
        let begun = Instant::now();
        walhook.wait_until_ready()?;
        while walhook.metric("walhook_events_total")? < rows as f64 {
            walhook.check_alive()?;
            anyhow::ensure!(begun.elapsed() < LIMIT, "the backlog was not read within {LIMIT:?}");
            thread::sleep(Duration::from_millis(2));
        }
        readings.per_second.push(rows as f64 / begun.elapsed().as_secs_f64());
        readings.walsender.push(process::cpu(walsender)?.as_secs_f64() * 1e6 / rows as f64);
        walhook.end(&self.stage)
    }

    /// Waits until somebody reads from the slot; which process of the server serves it.
    fn attached(&self, slot: &str) -> anyhow::Result<u32> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(walsender) = self.stage.walsender(slot)? {
                return Ok(walsender);
            }
            anyhow::ensure!(Instant::now() < deadline, "nobody reads slot {slot}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads up to the end of the WAL into `/dev/null`.
    fn read_by_recvlogical(&self, rows: u64, readings: &mut Readings) -> anyhow::Result<()> {
        let Some(program) = self.stage.program("pg_recvlogical") else { return Ok(()) };
        self.stage.copy_slot(MARK, SLOT)?;
        let end = self.stage.ask("SELECT pg_current_wal_insert_lsn()")?.unwrap_or_default();
        let mut child = Command::new(program)
            .args(["--host", "127.0.0.1", "--username", "postgres", "--dbname", "postgres"])
            .args(["--port", &self.stage.port().to_string()])
            .args(["--slot", SLOT, "--start", "--no-loop", "--file", "/dev/null"])
            .args(["--endpos", &end])
            .args(["--option", "proto_version=1", "--option", "publication_names=bench"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let walsender = self.attached(SLOT)?;
        let begun = Instant::now();
        let mut cpu = Duration::ZERO;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            // It ends with its client, so what counts is the last look.
            cpu = process::cpu(walsender).unwrap_or(cpu).max(cpu);
            thread::sleep(Duration::from_millis(2));
        };
        let took = begun.elapsed();
        anyhow::ensure!(status.success(), "pg_recvlogical ended with {status}");
        self.stage.drop_slot(SLOT)?;
        readings.per_second.push(rows as f64 / took.as_secs_f64());
        readings.walsender.push(cpu.as_secs_f64() * 1e6 / rows as f64);
        Ok(())
    }
}
