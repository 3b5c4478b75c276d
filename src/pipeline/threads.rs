//! A thread with a runtime of its own, for tasks that shall not share the time of others.

use std::convert::Infallible;
use std::io;

use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

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
