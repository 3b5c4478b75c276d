//! A limit in bytes on the rows that are in memory at once, over all lanes.
//!
//! A share is taken before a large message is read from PostgreSQL, or when a small one becomes an
//! event, and is given back when the event is settled at every endpoint. While nothing is left the
//! source does not read, so that memory stays bounded however slow the endpoints are.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::watch;

/// What an event costs in memory beside its body: its own fields, and its place in each lane.
pub(crate) const EVENT_OVERHEAD_BYTES: usize = 512;

/// Shares are counted in units of this many bytes: a semaphore's permits are 32-bit per call.
const UNIT_BYTES: usize = 256;

/// For less, what an endpoint may hold leaves room enough.
const PRESSING_BYTES: usize = 1024 * 1024;

/// How long something large waits for its share before others are asked to give theirs back.
const PRESS_EVERY: Duration = Duration::from_millis(250);

/// And how often, before it passes beyond the allowance: they cannot.
const PRESSED_MAX: u32 = 12;

/// The whole allowance. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    free: Arc<Semaphore>,
    units: u32,
    /// Counts how often a taker could not wait any longer.
    pressure: watch::Sender<u64>,
    /// For one share beyond the allowance.
    beyond: Arc<Semaphore>,
    /// Counts how often a taker found that one taken, too.
    wanted: watch::Sender<u64>,
}

/// A share of the [`MemoryBudget`], given back on drop.
#[derive(Debug)]
pub struct MemoryPermit {
    share: OwnedSemaphorePermit,
    is_beyond: bool,
}

/// What an event holds of the budget.
#[derive(Debug)]
pub enum HeldMemory {
    /// A share for its own rendered bytes.
    Own(MemoryPermit),
    /// A share that events have in common: of a large row, whose slices their bodies are, or of
    /// all shapes of one event.
    Row(Arc<MemoryPermit>),
    /// The same of a large row, and one of what is made of it beside its slices.
    RowAndMore(Arc<MemoryPermit>, Arc<MemoryPermit>),
}

impl HeldMemory {
    /// The same share for another event, where it is one that events have in common.
    pub fn shared(&self) -> Option<Self> {
        match self {
            Self::Own(_) => None,
            Self::Row(permit) => Some(Self::Row(Arc::clone(permit))),
            Self::RowAndMore(row, more) => {
                Some(Self::RowAndMore(Arc::clone(row), Arc::clone(more)))
            }
        }
    }
}

impl MemoryPermit {
    /// Bytes held, rounded up to the unit.
    pub fn bytes(&self) -> usize {
        self.share.num_permits() * UNIT_BYTES
    }
}

impl MemoryBudget {
    pub fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX >> 4).max(1);
        let (pressure, _nobody) = watch::channel(0);
        let free = Arc::new(Semaphore::new(units as usize));
        let (wanted, _nobody) = watch::channel(0);
        Self { free, units, pressure, beyond: Arc::new(Semaphore::new(1)), wanted }
    }

    fn units_for(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.units_max())
    }

    /// What is larger waits until it is nearly alone, else it could never pass. Not quite alone: what
    /// is in flight to an endpoint that hangs holds a little for as long as it likes.
    fn units_max(&self) -> u32 {
        self.units.div_ceil(4).saturating_mul(3).min(self.units).max(1)
    }

    /// Changes each time a taker waits for long: lanes give back what is safe in the backlog.
    pub fn pressure(&self) -> watch::Receiver<u64> {
        self.pressure.subscribe()
    }

    /// Changes again and again while something large waits for what is in flight: nothing else is left.
    pub fn wanted(&self) -> watch::Receiver<u64> {
        self.wanted.subscribe()
    }

    /// Whether several listen, so that one of them can be down while others wait.
    pub fn is_shared(&self) -> bool {
        self.pressure.receiver_count() > 1
    }

    /// Asks for shares to be given back.
    pub fn press(&self) {
        self.pressure.send_modify(|times| *times += 1);
    }

    /// A share beyond the allowance, for one that has waited too long for others to give theirs
    /// back; only one at a time.
    pub fn try_take_beyond(&self) -> Option<MemoryPermit> {
        let share = Arc::clone(&self.beyond).try_acquire_owned().ok()?;
        Some(MemoryPermit { share, is_beyond: true })
    }

    /// Waits until `bytes` are free and takes them. The lanes are asked to give back what is safe in the
    /// backlog, and if that does not help, because it is in flight to an endpoint that hangs, the
    /// share is one beyond the allowance: it must not stop the other endpoints. Where that one is taken,
    /// too, an attempt with a large body that does not move gives it up.
    pub async fn take_large(&self, bytes: usize) -> MemoryPermit {
        match bytes < PRESSING_BYTES {
            true => self.take(bytes).await,
            false => self.take_pressing(bytes).await,
        }
    }

    /// The same, however little it is: for the pump, which keeps another share meanwhile.
    pub async fn take_pressing(&self, bytes: usize) -> MemoryPermit {
        if !self.is_shared() {
            return self.take(bytes).await;
        }
        let mut taken = pin!(self.take(bytes));
        let mut pressed = 0_u32;
        loop {
            match tokio::time::timeout(PRESS_EVERY, &mut taken).await {
                Ok(share) => return share,
                Err(_) => self.press(),
            }
            pressed = pressed.saturating_add(1);
            if pressed >= PRESSED_MAX {
                match self.try_take_beyond() {
                    Some(share) => return share,
                    None => self.wanted.send_modify(|times| *times += 1),
                }
            }
        }
    }

    /// How much of `bytes` can be had beside a share that is kept meanwhile: together they are no more
    /// than one alone may be, else they would wait for each other.
    pub fn beside(&self, kept: &MemoryPermit, bytes: usize) -> usize {
        let most = if kept.is_beyond { 0 } else { self.units_max() as usize * UNIT_BYTES };
        bytes.min(most.saturating_sub(kept.bytes()))
    }

    /// Waits until `bytes` are free and takes them.
    pub async fn take(&self, bytes: usize) -> MemoryPermit {
        let share = Arc::clone(&self.free)
            .acquire_many_owned(self.units_for(bytes))
            .await
            .expect("the budget's semaphore is never closed");
        MemoryPermit { share, is_beyond: false }
    }

    /// Takes `bytes` if they are free at once.
    pub fn try_take(&self, bytes: usize) -> Option<MemoryPermit> {
        let share = Arc::clone(&self.free).try_acquire_many_owned(self.units_for(bytes)).ok()?;
        Some(MemoryPermit { share, is_beyond: false })
    }

    /// Bytes taken at the moment.
    pub fn used_bytes(&self) -> usize {
        (self.units as usize - self.free.available_permits()) * UNIT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_larger_than_the_budget_waits_until_it_is_nearly_alone() {
        let budget = MemoryBudget::new(16 * 1024);
        let (stuck, other) = (budget.try_take(3_000).unwrap(), budget.try_take(3_000).unwrap());
        assert!(budget.try_take(1_000_000).is_none());
        drop(other);
        let large = budget.take(1_000_000).await;
        assert!(budget.try_take(1_000_000).is_none(), "never two of them");
        let beyond = budget.try_take_beyond().unwrap();
        assert!(budget.try_take_beyond().is_none(), "nor more than one beyond");
        drop((large, beyond, stuck));
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.try_take_beyond().is_some());
    }

    #[tokio::test]
    async fn pressure_is_told_to_whoever_listens() {
        let budget = MemoryBudget::new(1000);
        let mut pressure = budget.pressure();
        assert!(!pressure.has_changed().unwrap());
        budget.clone().press();
        assert!(pressure.changed().await.is_ok());
    }
}
