//! The owner of all tasks: each has a name and an end.
//!
//! When one task ends, whether well or badly, all are asked to stop: a half-dead pipeline that
//! still answers its health check is worse than a restart.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Tasks that live and end together.
#[derive(Debug, Default)]
pub(crate) struct TaskOwner {
    running: JoinSet<Ended>,
    /// These end after all others.
    last: JoinSet<Ended>,
    stop: CancellationToken,
    close: CancellationToken,
}

/// A task's name, and what it came to.
type Ended = (&'static str, anyhow::Result<()>);

/// How long the last tasks may take to end.
const CLOSE_MAX: Duration = Duration::from_secs(1);

impl TaskOwner {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the tasks are to stop.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task on the current runtime.
    pub(crate) fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.running.spawn(async move { (name, task.await) });
    }

    /// Cancelled when all tasks but the last have ended.
    pub(crate) fn close_token(&self) -> CancellationToken {
        self.close.clone()
    }

    /// Starts a task that ends when all others have ended: it answers until then.
    pub(crate) fn spawn_last<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.last.spawn(async move { (name, task.await) });
    }

    /// Waits until one task ends or `stop` is asked for, then asks all to stop and gives them
    /// `grace` to do so; what is left after that is aborted. `ending` is called at once when it ends,
    /// with the error that is the reason.
    ///
    /// # Errors
    /// The first error of any task, or that a task had to be aborted.
    pub(crate) async fn run(
        mut self,
        grace: Duration,
        ending: impl FnOnce(Option<&anyhow::Error>),
    ) -> anyhow::Result<()> {
        let mut first_error = Ok(());
        tokio::select! {
            () = self.stop.cancelled() => {}
            Some(ended) = self.running.join_next() => keep_first(&mut first_error, ended),
            Some(ended) = self.last.join_next() => keep_first(&mut first_error, ended),
        }
        ending(first_error.as_ref().err());
        self.stop.cancel();
        let drain = async {
            while let Some(ended) = self.running.join_next().await {
                keep_first(&mut first_error, ended);
            }
        };
        if tokio::time::timeout(grace, drain).await.is_err() {
            let left = self.running.len();
            self.running.shutdown().await;
            if first_error.is_ok() {
                first_error = Err(anyhow::anyhow!(
                    "{left} tasks did not end within {grace:?} and were cut off: what they had in \
                     flight comes again after the restart"
                ));
            }
        }
        self.close.cancel();
        let close = async { while self.last.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_MAX, close).await.is_err() {
            self.last.shutdown().await; // it has nothing of its own to lose
        }
        first_error
    }
}

fn keep_first(first: &mut anyhow::Result<()>, ended: Result<Ended, JoinError>) {
    let outcome = match ended {
        Ok((name, outcome)) => outcome.map_err(|error| error.context(name)),
        Err(error) => Err(anyhow::Error::new(error).context("a task panicked")),
    };
    if first.is_ok() {
        *first = outcome;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn when_one_task_ends_all_are_asked_to_stop() {
        let mut tasks = TaskOwner::new();
        let stop = tasks.stop_token();
        tasks.spawn("waits", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.spawn("fails", async { anyhow::bail!("broken") });
        let mut said = None;
        let ending = |error: Option<&anyhow::Error>| said = error.map(|error| format!("{error:#}"));
        let error = tasks.run(Duration::from_secs(1), ending).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "fails: broken");
        assert_eq!(said.as_deref(), Some("fails: broken"), "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_task_lives_until_all_others_have_ended() {
        let mut tasks = TaskOwner::new();
        let (stop, close) = (tasks.stop_token(), tasks.close_token());
        let is_closed = close.clone();
        tasks.spawn("drains", async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            anyhow::ensure!(!is_closed.is_cancelled(), "closed too early");
            Ok(())
        });
        tasks.spawn_last("answers", async move {
            close.cancelled().await;
            std::future::pending().await
        });
        tasks.stop_token().cancel();
        let begun = tokio::time::Instant::now();
        tasks.run(Duration::from_secs(10), |error| assert!(error.is_none())).await.unwrap();
        assert!(begun.elapsed() <= Duration::from_millis(500) + CLOSE_MAX, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_cut_off_after_the_grace_period() {
        let mut tasks = TaskOwner::new();
        tasks.spawn("hangs", std::future::pending());
        tasks.stop_token().cancel();
        let error = tasks.run(Duration::from_secs(1), |_| ()).await.unwrap_err();
        assert!(error.to_string().contains("cut off"), "{error}");
    }
}
