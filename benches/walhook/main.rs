//! One command that measures walhook, with its comparisons in the same run.
//!
//! ```text
//! load ─ INSERT ─▶ private PostgreSQL ─▶ walhook run (child) ─▶ receiver ◀─ bare client
//!                        └──────▶ pg_recvlogical
//! ```
//!
//! `cargo bench --bench walhook -- --help` tells the arguments, `docs/performance.md` the method.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::print_stderr, reason = "progress, for whoever waits")]
#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

mod client;
mod identity;
mod load;
mod measure;
mod members;
mod plan;
mod plot;
mod process;
mod program;
mod receiver;
mod report;
mod stage;

use std::time::Instant;

use crate::measure::Bench;
use crate::plan::Plan;
use crate::plan::USAGE;

fn main() -> anyhow::Result<()> {
    let Some(plan) = Plan::parse(std::env::args().skip(1)) else {
        print!("{USAGE}");
        return Ok(());
    };
    let begun = Instant::now();
    let (out, is_small) = (plan.out.clone(), plan.is_small);
    let mut bench = Bench::new(plan)?;
    let ended = bench.run();
    // What was measured before something failed is shown all the same.
    let report = bench.report();
    println!("{}", report.table());
    report.save(&out)?;
    ended?;
    println!("{} s; the figures and plots are in {}", begun.elapsed().as_secs(), out.display());
    if is_small {
        println!("this was a small run: it shows that everything works, and its figures nothing");
    }
    Ok(())
}
