//! The lives of a tail and of the partitions' owners: each run ends by a kill, in good order, frozen for a while, or
//! not before all is well, and another one follows.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::clock::since_boot;
use crate::config::configuration::Settings;
use crate::flow::partition::PartitionNumber;
use crate::pipeline::simulation::model_broker;
use crate::pipeline::simulation::model_leases::LEASE;
use crate::pipeline::simulation::model_state::ModelOwnership;
use crate::pipeline::simulation::owner;
use crate::pipeline::simulation::owner::TakenPartition;
use crate::pipeline::simulation::process::RunEnd;
use crate::pipeline::simulation::process::RunParts;
use crate::pipeline::simulation::process::run_stages;
use crate::pipeline::simulation::scenario::PlannedEnd;
use crate::pipeline::simulation::scenario::RoleEnd;
use crate::pipeline::simulation::scenario::RolesScenario;
use crate::pipeline::simulation::tail;
use crate::pipeline::simulation::world::STOPPED;
use crate::pipeline::simulation::world::SharedWorld;
use crate::relay::error::RelayInterruption;
use crate::replication::slot_ownership::SlotOwnership;
use crate::store::state_error::StateError;

/// A run that is to be killed is killed after so long at the latest.
const RUN_MAX: Duration = Duration::from_millis(2500);

/// What has not ended by then is aborted, as `task` does it.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// So long a run goes on that has been frozen and has woken.
const AWAKE: Duration = Duration::from_secs(3);

/// Between two looks at what may be taken.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What the lives of one simulation have in common.
struct RoleLives {
    world: SharedWorld,
    settings: Arc<Settings>,
    roles: Arc<RolesScenario>,
    /// All is well, and everything has arrived.
    stop: CancellationToken,
}

/// Runs that were frozen, and go on somewhere.
type StaleRuns<'a> = FuturesUnordered<LocalBoxFuture<'a, ()>>;

/// How a run came to its end.
enum LifeEnd {
    Ended(RunEnd),
    /// It was frozen, and another run may go on when its right is over.
    Frozen,
}

/// All runs of all members, until `drained` says that everything has arrived and each of them has stopped.
pub(super) async fn lives(
    world: &SharedWorld,
    settings: &Arc<Settings>,
    roles: &Arc<RolesScenario>,
    drained: impl Future<Output = ()>,
) {
    let lives = RoleLives {
        world: world.clone(),
        settings: Arc::clone(settings),
        roles: Arc::clone(roles),
        stop: CancellationToken::new(),
    };
    let stop = lives.stop.clone();
    let watch = async move {
        drained.await;
        stop.cancel();
    };
    let owners = (1..=roles.partitions.get()).map(PartitionNumber::new);
    let owners = join_all(owners.map(|partition| lives.owners(partition)));
    tokio::select! {
        biased;
        () = failed(world) => {}
        _ = async { tokio::join!(lives.tails(), owners, watch) } => {}
        () = model_broker::troubles(world.clone()) => {}
    }
}

/// Ends when something has gone wrong.
async fn failed(world: &SharedWorld) {
    while world.lock().failure.is_none() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl RoleLives {
    /// The tails, one after the other.
    async fn tails(&self) {
        let mut stale = StaleRuns::new();
        let mut ends = self.roles.tail_ends.iter().copied();
        while !self.stop.is_cancelled() {
            let end = self.next_end(&mut ends);
            alongside(&mut stale, self.world.pass(0..500)).await;
            let world = self.world.begin_run(end.and_then(RoleEnd::planned));
            world.lock().note(|_| format!("run {} is a tail", world.run));
            let stop = CancellationToken::new();
            let (run_world, settings, token) = (world.clone(), self.settings.clone(), stop.clone());
            let roles = Arc::clone(&self.roles);
            let run = async move {
                let parts = RunParts::new(&run_world, &settings, token.clone());
                let run =
                    run_stages(&run_world, token, |started| tail::join(parts, started, roles));
                run.await
            };
            let mut run = run.boxed_local();
            let lived = self.live(&world, end, &mut run, &stop);
            match alongside(&mut stale, lived).await {
                LifeEnd::Ended(ended) => self.ended(&world, ended, &[], false),
                LifeEnd::Frozen => {
                    stale.push(self.wakes(world.clone(), end, run, Vec::new()).boxed_local());
                    alongside(&mut stale, self.unless_healed(LEASE)).await;
                    let mut now = self.world.lock();
                    if now.slot.reader == Some(world.run) {
                        now.slot.reader = None; // `wal_sender_timeout`
                    }
                }
            }
        }
        while stale.next().await.is_some() {}
    }

    /// The owners of one partition, one after the other.
    async fn owners(&self, partition: PartitionNumber) {
        let mut stale = StaleRuns::new();
        let plan = usize::try_from(partition.raw() - 1).unwrap_or_default();
        let mut ends = self.roles.owner_ends.get(plan).into_iter().flatten().copied();
        while !self.stop.is_cancelled() {
            let end = self.next_end(&mut ends);
            if let Some(absent) = end.map(RoleEnd::absent).filter(|absent| !absent.is_zero()) {
                self.world.lock().absent.insert(partition);
                alongside(&mut stale, self.unless_healed(absent)).await;
                self.world.lock().absent.remove(&partition);
            }
            let Some((world, taken)) = alongside(&mut stale, self.take(partition, end)).await
            else {
                break;
            };
            let (ownership, endpoints) = (taken.ownership, taken.endpoints.to_vec());
            let stop = CancellationToken::new();
            let (run_world, settings, token) = (world.clone(), self.settings.clone(), stop.clone());
            let run = async move {
                let parts = RunParts::new(&run_world, &settings, token.clone());
                let run =
                    run_stages(&run_world, token, |started| owner::join(parts, started, taken));
                run.await
            };
            let mut run = run.boxed_local();
            let lived = self.live(&world, end, &mut run, &stop);
            match alongside(&mut stale, lived).await {
                LifeEnd::Ended(ended) => {
                    let is_killed = matches!(ended, RunEnd::Killed);
                    let is_superseded = !self.is_owned(ownership);
                    self.ended(&world, ended, &endpoints, is_superseded);
                    let mut now = self.world.lock();
                    let at = now.now();
                    if !is_killed && !now.is_state_away() {
                        now.state.release(ownership, at);
                    }
                }
                LifeEnd::Frozen => {
                    stale.push(self.wakes(world, end, run, endpoints).boxed_local());
                }
            }
        }
        while stale.next().await.is_some() {}
    }

    /// How the next run ends; none before all is well when no more is planned.
    fn next_end(&self, ends: &mut impl Iterator<Item = RoleEnd>) -> Option<RoleEnd> {
        ends.next().filter(|_| !self.world.lock().is_healed)
    }

    fn is_owned(&self, ownership: ModelOwnership) -> bool {
        let world = self.world.lock();
        let row = world.state.progress.get(&ownership.partition);
        row.is_some_and(|row| row.epoch == ownership.epoch && !row.is_at_source)
    }

    /// Takes the partition as soon as it is to be had; `None` if all is over.
    async fn take(
        &self,
        partition: PartitionNumber,
        end: Option<RoleEnd>,
    ) -> Option<(SharedWorld, TakenPartition)> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            self.world.pass(0..250).await;
            let asked = since_boot();
            let is_free = {
                let world = self.world.lock();
                let row = world.state.progress.get(&partition);
                let is_free = |now| row.is_some_and(|row| !row.is_at_source && !row.is_leased(now));
                !world.is_state_away() && is_free(world.now())
            };
            if is_free {
                let world = self.world.begin_run(end.and_then(RoleEnd::planned));
                let mut now = world.lock();
                let (at, number) = (now.now(), partition.raw());
                let ownership = now.state.take_free(partition, (world.run, at))?;
                now.note(|_| format!("run {} delivers for partition {number}", world.run));
                let names = self.settings.endpoints.iter().enumerate();
                let own = names.filter(|(_, one)| now.state.partition_of(&one.name) == partition);
                let endpoints: Arc<[usize]> = own.map(|(number, _)| number).collect();
                now.oracle.given_to(world.run, &endpoints);
                drop(now);
                let slot_ownership = SlotOwnership::new(LEASE);
                slot_ownership.leased(asked);
                return Some((world, TakenPartition { ownership, slot_ownership, endpoints }));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// One run until it ends, or is frozen.
    async fn live(
        &self,
        world: &SharedWorld,
        end: Option<RoleEnd>,
        run: &mut LocalBoxFuture<'_, RunEnd>,
        stop: &CancellationToken,
    ) -> LifeEnd {
        let planned = async {
            match end {
                Some(RoleEnd::Freeze { after, lasts, .. }) => {
                    self.unless_healed(after).await;
                    if !world.lock().is_healed {
                        world.lock().freeze(world.run);
                        if lasts >= LEASE {
                            return LifeEnd::Frozen;
                        }
                        self.unless_healed(lasts).await;
                        world.lock().wake(world.run);
                    }
                    self.stop_it(world, stop).await
                }
                Some(RoleEnd::Planned { end: PlannedEnd::Stop(after), .. }) => {
                    self.unless_healed(after).await;
                    world.lock().note(|_| format!("run {} is asked to stop", world.run));
                    stop.cancel();
                    tokio::time::sleep(ENDED_WITHIN).await;
                    LifeEnd::Ended(RunEnd::Stopped { in_time: false })
                }
                Some(RoleEnd::Planned { .. }) => {
                    self.unless_healed(RUN_MAX).await;
                    LifeEnd::Ended(RunEnd::Killed)
                }
                None => self.stop_it(world, stop).await,
            }
        };
        tokio::select! {
            biased;
            ended = run => LifeEnd::Ended(ended),
            ended = planned => ended,
        }
    }

    /// Stops a run when everything has arrived.
    async fn stop_it(&self, world: &SharedWorld, stop: &CancellationToken) -> LifeEnd {
        self.stop.cancelled().await;
        stop.cancel();
        tokio::time::sleep(ENDED_WITHIN).await;
        world.lock().fail(format!("all is well, and run {} does not stop", world.run));
        LifeEnd::Ended(RunEnd::Killed)
    }

    /// A frozen run wakes, and finds that others have gone on.
    async fn wakes(
        &self,
        world: SharedWorld,
        end: Option<RoleEnd>,
        run: LocalBoxFuture<'_, RunEnd>,
        endpoints: Vec<usize>,
    ) {
        let lasts = match end {
            Some(RoleEnd::Freeze { lasts, .. }) => lasts,
            Some(RoleEnd::Planned { .. }) | None => Duration::ZERO,
        };
        self.unless_healed(lasts).await;
        world.lock().wake(world.run);
        let ended = tokio::time::timeout(AWAKE, run).await;
        let ended = ended.unwrap_or(RunEnd::Killed);
        let is_sender = |number: &usize| world.lock().oracle.is_sender(*number, world.run);
        // Of those that others have by now nothing is forgotten.
        let endpoints: Vec<usize> = endpoints.into_iter().filter(is_sender).collect();
        self.ended(&world, ended, &endpoints, true);
    }

    /// A run has come to its end: was it allowed to?
    fn ended(&self, world: &SharedWorld, ended: RunEnd, endpoints: &[usize], is_superseded: bool) {
        let how = match ended {
            RunEnd::Killed => "was killed",
            RunEnd::Stopped { in_time: true } if !is_superseded => STOPPED,
            RunEnd::Stopped { .. } => "has stopped, too late for all of it",
            RunEnd::Failed(name, error) => {
                world.lock().note(|_| format!("{name} of run {} failed: {error:#}", world.run));
                if !is_expected(&error, is_superseded) {
                    world.lock().fail(format!("{name} failed: {error:#}"));
                }
                "has ended"
            }
        };
        world.lock().end_run(world.run, how, endpoints);
    }

    /// Waits for so long, or until all is well.
    async fn unless_healed(&self, wait: Duration) {
        let until = tokio::time::Instant::now() + wait;
        while tokio::time::Instant::now() < until && !self.world.lock().is_healed {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }
}

/// Whether walhook begins anew, or ends, of such an error.
fn is_expected(error: &anyhow::Error, is_superseded: bool) -> bool {
    let interruption = error.chain().find_map(|cause| cause.downcast_ref::<RelayInterruption>());
    let is_rewind = interruption.is_some_and(RelayInterruption::is_rewind);
    let is_fenced = matches!(interruption, Some(RelayInterruption::Fenced { .. }))
        || error.chain().any(|cause| {
            matches!(cause.downcast_ref::<StateError>(), Some(StateError::Fenced { .. }))
        });
    is_rewind || is_superseded && is_fenced
}

/// Waits for `this` while frozen runs go on.
async fn alongside<T>(stale: &mut StaleRuns<'_>, this: impl Future<Output = T>) -> T {
    let mut this = std::pin::pin!(this);
    loop {
        tokio::select! {
            biased;
            done = &mut this => return done,
            Some(()) = stale.next() => {}
        }
    }
}
