//! The owner of all tasks: each has a name and an end.
//!
//! When one task ends, whether well or badly, all are asked to stop: a half-dead pipeline that
//! still answers its health check is worse than a restart.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Tasks that live and end together.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<(&'static str, anyhow::Result<()>)>,
    stop: CancellationToken,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the tasks are to stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task on the current runtime.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.running.spawn(async move { (name, task.await) });
    }

    /// Waits until one task ends or `stop` is asked for, then asks all to stop and gives them
    /// `grace` to do so; what is left after that is aborted.
    ///
    /// # Errors
    /// The first error of any task, or that a task had to be aborted.
    pub async fn run(mut self, grace: Duration) -> anyhow::Result<()> {
        let mut first_error = Ok(());
        let mut note =
            |ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>| {
                let outcome = match ended {
                    Ok((name, outcome)) => outcome.map_err(|error| error.context(name)),
                    Err(error) => Err(anyhow::Error::new(error).context("a task panicked")),
                };
                if first_error.is_ok() {
                    first_error = outcome;
                }
            };
        tokio::select! {
            () = self.stop.cancelled() => {}
            Some(ended) = self.running.join_next() => note(ended),
        }
        self.stop.cancel();
        let drain = async {
            while let Some(ended) = self.running.join_next().await {
                note(ended);
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
        first_error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn when_one_task_ends_all_are_asked_to_stop() {
        let mut tasks = Tasks::new();
        let stop = tasks.stop_token();
        tasks.spawn("waits", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.spawn("fails", async { anyhow::bail!("broken") });
        let error = tasks.run(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "fails: broken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_cut_off_after_the_grace_period() {
        let mut tasks = Tasks::new();
        tasks.spawn("hangs", std::future::pending());
        tasks.stop_token().cancel();
        let error = tasks.run(Duration::from_secs(1)).await.unwrap_err();
        assert!(error.to_string().contains("cut off"), "{error}");
    }
}
