//! The replication connection: streams the WAL from where the slot stands, and breaks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::flow::change::CapturedItem;
use crate::flow::lsn::Lsn;
use crate::pipeline::captured_stream::CapturedStream;
use crate::pipeline::simulation::wal::ModelWal;
use crate::pipeline::simulation::world::SharedWorld;
use crate::replication::error::SourceError;

/// So often a server that has nothing to say says that.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(3);

/// Between two looks whether the slot is free.
const SLOT_LOOK: Duration = Duration::from_millis(300);

/// One run's way to the slot.
pub(super) struct ModelSource {
    world: SharedWorld,
    wal: Arc<ModelWal>,
    begun: Instant,
    /// The next entry of the WAL; `None` while there is no connection.
    next: Option<usize>,
    /// Decoded and not yet taken.
    pending: VecDeque<CapturedItem>,
    /// Whether the state can be written: the stream is closed while it cannot.
    writable: watch::Receiver<bool>,
    /// Whether requests may be made.
    may_send: Arc<AtomicBool>,
}

impl ModelSource {
    pub(super) fn new(
        world: &SharedWorld,
        writable: watch::Receiver<bool>,
        may_send: Arc<AtomicBool>,
    ) -> Self {
        let (wal, now) = {
            let world = world.lock();
            (Arc::clone(&world.wal), world.now())
        };
        let (begun, pending) = (Instant::now() - now, VecDeque::new());
        Self { world: world.clone(), wal, begun, next: None, pending, writable, may_send }
    }

    /// Streams from the confirmed position.
    async fn connect(&mut self) {
        while !*self.writable.borrow_and_update() {
            if self.writable.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        self.world.pass(0..300).await;
        // Another run may have the slot, if this one was frozen for too long.
        while self.world.lock().slot.reader.is_some_and(|reader| reader != self.world.run) {
            tokio::time::sleep(SLOT_LOOK).await;
        }
        let mut world = self.world.lock();
        let confirmed = world.slot.confirmed;
        world.slot.reader = Some(self.world.run);
        world.note(|_| format!("streaming from {confirmed}"));
        self.next = Some(self.wal.first_after(confirmed));
        self.may_send.store(true, Ordering::Relaxed);
    }

    fn disconnect(&mut self, why: &str) {
        self.next = None;
        self.pending.clear();
        self.may_send.store(false, Ordering::Relaxed);
        let mut world = self.world.lock();
        if world.slot.reader == Some(self.world.run) {
            world.slot.reader = None;
        }
        let odds = world.scenario.slot_back_odds;
        let is_back = why == LOST && world.strikes(odds);
        if is_back {
            world.slot.confirmed = world.slot.saved;
        }
        world.note(|world| {
            format!("the stream is closed: {why}, the slot stands at {}", world.slot.confirmed)
        });
    }

    fn is_there_more(&self) -> bool {
        let next = self.next.and_then(|next| self.wal.entries.get(next));
        let is_written = next.is_some_and(|entry| Instant::now() >= self.begun + entry.at);
        !self.pending.is_empty() || is_written
    }

    /// Ends when there is something to read.
    async fn written(&self) {
        if self.is_there_more() {
            return;
        }
        match self.next.and_then(|next| self.wal.entries.get(next)) {
            Some(entry) => tokio::time::sleep_until(self.begun + entry.at).await,
            None => std::future::pending().await,
        }
    }

    /// Takes what one read brings: no more than a few items, wherever a transaction ends.
    fn read(&mut self, captured: &mut Vec<CapturedItem>) {
        let mut world = self.world.lock();
        let items = world.dice.of_any_size(64);
        for _ in 0..items {
            if self.pending.is_empty() {
                let Some(at) = self.next else { return };
                let Some(entry) = self.wal.entries.get(at) else { return };
                if Instant::now() < self.begun + entry.at {
                    return;
                }
                self.next = Some(at + 1);
                self.pending.extend(self.wal.items(entry, &mut world.dice));
            }
            let Some(item) = self.pending.pop_front() else { return };
            if let CapturedItem::Change(change) = &item {
                world.handed = world.handed.max(Some(change.position));
            }
            captured.push(item);
        }
    }
}

const LOST: &str = "the connection was lost";

impl CapturedStream for ModelSource {
    async fn next(&mut self, captured: &mut Vec<CapturedItem>) -> Result<(), SourceError> {
        loop {
            if self.next.is_none() {
                self.connect().await;
            }
            let is_lost = {
                let mut world = self.world.lock();
                let odds = world.scenario.drop_odds;
                world.strikes(odds)
            };
            if is_lost {
                self.disconnect(LOST);
                continue;
            }
            if self.world.lock().slot.reader != Some(self.world.run) {
                self.disconnect("the server has given the slot up");
                continue;
            }
            let mut writable = self.writable.clone();
            tokio::select! {
                biased;
                _ = writable.wait_for(|writable| !writable) => {
                    self.disconnect("the state cannot be written");
                    continue;
                }
                () = self.written() => {}
                () = tokio::time::sleep(KEEPALIVE_EVERY) => {
                    let passed = self.next.and_then(|next| self.wal.entries.get(next.checked_sub(1)?));
                    captured.extend(passed.map(|entry| CapturedItem::Idle { end: entry.end }));
                    if !captured.is_empty() {
                        return Ok(());
                    }
                    continue;
                }
            }
            let lag = self.world.lock().scenario.read_lag;
            self.world.pass(0..lag).await;
            self.read(captured);
            if !captured.is_empty() {
                return Ok(());
            }
        }
    }

    fn expects_more(&self) -> bool {
        self.is_there_more()
    }
}

/// How often the server is told, whatever happens.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Tells the server what may be removed, a little later than it could.
pub(super) async fn feedback(
    world: SharedWorld,
    mut confirmed: watch::Receiver<Lsn>,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            biased;
            changed = confirmed.changed() => if changed.is_err() {
                return Ok(());
            },
            () = tokio::time::sleep(TOLD_EVERY) => {}
        }
        world.pass(0..100).await;
        let at = *confirmed.borrow_and_update();
        confirm(&world, at);
        world.point("confirmed").await;
    }
}

/// What the server takes from one message.
pub(super) fn confirm(world: &SharedWorld, at: Lsn) {
    let run = world.run;
    let mut world = world.lock();
    if world.slot.reader != Some(run) || at <= world.slot.confirmed {
        return;
    }
    world.note(|_| format!("the server is told {at}"));
    world.slot.confirmed = at;
    if world.dice.one_in(3) {
        world.slot.saved = at;
    }
    let now = world.now();
    let told = &mut *world;
    let settled = told.oracle.confirmed(at, &told.state, now);
    told.check(settled);
}
