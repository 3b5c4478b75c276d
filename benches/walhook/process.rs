//! What the kernel says about a process: processor time and memory.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::Context;

/// Processor time that all threads of a process have used. Threads that have ended do not count,
/// so what is measured must not end threads on the way.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")?;
    let times = threads.flatten().filter_map(|thread| schedstat(&thread.path().join("schedstat")));
    Ok(times.sum())
}

/// Processor time that the children of a process have used by now, by their ids.
pub(crate) fn children_cpu(parent: u32) -> anyhow::Result<HashMap<u32, Duration>> {
    let processes = fs::read_dir("/proc")?.flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    let children = pids.filter(|&pid| parent_of(pid) == Some(parent));
    Ok(children.filter_map(|pid| Some((pid, cpu(pid).ok()?))).collect())
}

/// The process that has started this one.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// Processor time of the thread that asks.
pub(crate) fn own_thread_cpu() -> Duration {
    schedstat("/proc/thread-self/schedstat".as_ref()).unwrap_or_default()
}

/// The first number is nanoseconds on a processor (Linux, `Documentation/scheduler/sched-stats`).
fn schedstat(path: &std::path::Path) -> Option<Duration> {
    let text = fs::read_to_string(path).ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// Resident memory in bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(kib.context("the kernel does not tell VmRSS")? * 1024)
}

/// One line about the machine for the report.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} cores ({}), {} GiB, Linux {}",
        model.unwrap_or("unknown"),
        kib.unwrap_or_default() / (1024 * 1024),
        kernel.trim()
    )
}
