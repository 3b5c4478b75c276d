//! Paces redelivery: so many deliveries a second, without catching up.

use std::time::Duration;

use tokio::time::Instant;

/// Spaces what is sent again evenly.
#[derive(Debug)]
pub(crate) struct ResendPace {
    every: Duration,
    next: Instant,
}

impl ResendPace {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), next: Instant::now() }
    }

    pub(crate) fn set_rate(&mut self, per_second: u32) {
        self.every = Duration::from_secs(1) / per_second.max(1);
    }

    /// Waits until the next delivery may go. Those that nobody made in time do not add up.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep_until(self.next).await;
        self.next = (self.next + self.every).max(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_rate_and_do_not_add_up() {
        let begun = Instant::now();
        let mut pace = ResendPace::new(10);
        for _ in 0..11 {
            pace.wait().await;
        }
        assert_eq!(begun.elapsed().as_millis(), 1000);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = Instant::now();
        for _ in 0..3 {
            pace.wait().await;
        }
        let took = before.elapsed().as_millis();
        assert!((100..=200).contains(&took), "{took}");
    }
}
