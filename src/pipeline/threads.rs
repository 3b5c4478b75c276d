//! A thread with a runtime of its own, for tasks that shall not share the time of others.
//!
//! The lanes of all partitions of a process share a few of them: each thread sleeps and is woken by itself, and where
//! little is to be delivered that costs as much as what it does (six partitions with a thread each took 1.3 times the
//! processor of one thread for all, `cargo bench --bench walhook -- --only roles`).

use std::convert::Infallible;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::Context;
use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::flow::partition::PartitionNumber;
use crate::lane::in_flight_total::InFlightTotal;
use crate::pipeline::free_memory::given_back_during;

/// Runs the tasks that are spawned on its runtime. Dropping it ends them, wherever they wait.
#[derive(Debug)]
pub(crate) struct RuntimeThread {
    runtime: Handle,
    /// The thread waits for its end.
    _life: oneshot::Sender<Infallible>,
}

impl RuntimeThread {
    /// # Errors
    /// The system gives no thread, or nothing to wait for sockets with.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (life, end) = oneshot::channel::<Infallible>();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            drop(runtime.block_on(given_back_during(end)));
            // Nobody waits for a name that is still being looked up.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _life: life })
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// Where lanes run, and how many requests they have in flight together.
#[derive(Debug)]
pub(crate) struct LaneThread {
    thread: RuntimeThread,
    pub(crate) in_flight: InFlightTotal,
}

impl LaneThread {
    /// # Errors
    /// The system gives no thread, or nothing to wait for sockets with.
    pub(crate) fn start() -> anyhow::Result<Arc<Self>> {
        let thread = RuntimeThread::start("delivery").context("cannot start a thread for lanes")?;
        Ok(Arc::new(Self { thread, in_flight: InFlightTotal::default() }))
    }

    pub(crate) fn runtime(&self) -> &Handle {
        self.thread.runtime()
    }
}

/// The threads of the lanes of all partitions of a process.
#[derive(Clone, Debug)]
pub(crate) struct LaneThreads {
    first: Arc<LaneThread>,
    others: Vec<Arc<LaneThread>>,
}

impl LaneThreads {
    /// For so many partitions: a thread for each, but no more than half of the processors, since the other half reads,
    /// keeps the ledgers and runs what is beside walhook.
    ///
    /// # Errors
    /// As [`LaneThread::start`].
    pub(crate) fn start(partitions: NonZeroUsize) -> anyhow::Result<Self> {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        Self::of_number(partitions.get().min(processors / 2))
    }

    /// So many of them, but at least one.
    fn of_number(number: usize) -> anyhow::Result<Self> {
        let others = (1..number).map(|_| LaneThread::start());
        Ok(Self { first: LaneThread::start()?, others: others.collect::<anyhow::Result<_>>()? })
    }

    /// The thread of a partition.
    pub(crate) fn of(&self, partition: PartitionNumber) -> Arc<LaneThread> {
        let number = usize::try_from(partition.raw()).unwrap_or(0) % (self.others.len() + 1);
        let other = number.checked_sub(1).and_then(|other| self.others.get(other));
        Arc::clone(other.unwrap_or(&self.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    /// Threads that serve so many partitions.
    fn used(threads: &LaneThreads, partitions: u16) -> usize {
        let numbers = (1..=partitions).map(PartitionNumber::new);
        let mut used: Vec<_> = numbers.map(|number| threads.of(number)).collect();
        used.sort_by_key(Arc::as_ptr);
        used.dedup_by_key(|thread| Arc::as_ptr(thread));
        used.len()
    }

    #[tokio::test]
    async fn partitions_share_what_threads_there_are() {
        for (number, partitions, expected) in
            [(0, 8, 1), (1, 8, 1), (3, 1, 1), (3, 3, 3), (3, 8, 3), (4, 1024, 4)]
        {
            let threads = LaneThreads::of_number(number).unwrap();
            assert_eq!(used(&threads, partitions), expected, "{number} threads, {partitions}");
        }
    }

    #[tokio::test]
    async fn half_of_the_processors_run_lanes_at_most() {
        let processors = available_parallelism().unwrap().get();
        let threads = LaneThreads::start(NonZeroUsize::new(1024).unwrap()).unwrap();
        assert_eq!(used(&threads, 1024), (processors / 2).max(1));
    }

    #[tokio::test]
    async fn tasks_run_beside_and_end_with_it() {
        let thread = RuntimeThread::start("beside").unwrap();
        let mut tasks = JoinSet::new();
        let name = async { std::thread::current().name().map(str::to_owned) };
        tasks.spawn_on(name, thread.runtime());
        assert_eq!(tasks.join_next().await.unwrap().unwrap().as_deref(), Some("beside"));
        tasks.spawn_on(std::future::pending(), thread.runtime());
        drop(thread);
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
    }
}
