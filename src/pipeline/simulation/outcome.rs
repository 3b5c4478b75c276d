//! One simulation from its seed to its end, and what must hold then.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::simulated::SimulatedTime;
use crate::config::configuration::Settings;
use crate::pipeline::simulation::delivery::is_routed;
use crate::pipeline::simulation::dice::SeededDice;
use crate::pipeline::simulation::process;
use crate::pipeline::simulation::process::RunEnd;
use crate::pipeline::simulation::roles;
use crate::pipeline::simulation::scenario::PlannedEnd;
use crate::pipeline::simulation::scenario::Scenario;
use crate::pipeline::simulation::scenario::table_name;
use crate::pipeline::simulation::shown_books::is_shown;
use crate::pipeline::simulation::shown_books::is_shown_balanced;
use crate::pipeline::simulation::world::STOPPED;
use crate::pipeline::simulation::world::SharedWorld;
use crate::pipeline::simulation::world::ShownRun;
use crate::pipeline::simulation::world::SimulatedWorld;
use crate::store::books::BookCount;
use crate::store::books::BookEntry;

/// A run that is to be killed is killed after so long at the latest.
const RUN_MAX: Duration = Duration::from_millis(2500);

/// Within this time everything has arrived once all is well.
const DRAINED_WITHIN: Duration = Duration::from_secs(300);

/// What has not ended by then is aborted, as `task` does it.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a simulation came to, to be added up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SimulationSums {
    pub(super) seeds: u64,
    pub(super) runs: usize,
    pub(super) deliveries: usize,
    /// Requests that were taken beyond the first of each delivery.
    pub(super) repeats: usize,
}

impl SimulationSums {
    pub(super) fn add(&mut self, more: Self) {
        self.seeds += more.seeds;
        self.runs += more.runs;
        self.deliveries += more.deliveries;
        self.repeats += more.repeats;
    }
}

/// A simulation in which something was wrong.
#[derive(Debug)]
pub(super) struct SimulationFailure {
    pub(super) what: String,
    pub(super) story: String,
}

/// Who takes part in a simulation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Members {
    /// One process reads and delivers.
    One,
    /// One reads, and others deliver.
    Several,
}

/// Runs one seed. Of one that fails the story is told by running it again.
pub(super) fn simulate(members: Members, seed: u64) -> Result<SimulationSums, SimulationFailure> {
    let failure = match traced(members, seed, StoryTelling::Nothing) {
        Ok((sums, _)) => return Ok(sums),
        Err(failure) => failure,
    };
    match traced(members, seed, StoryTelling::AtTheEnd) {
        Err(again) if again.what == failure.what => Err(again),
        Err(again) => {
            let what = format!("{}; told again: {}", failure.what, again.what);
            Err(SimulationFailure { what, story: again.story })
        }
        Ok(_) => Err(SimulationFailure {
            what: format!("{}; but not when it ran again", failure.what),
            story: failure.story,
        }),
    }
}

/// How much of a simulation is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StoryTelling {
    Nothing,
    AtTheEnd,
    AtOnce,
}

/// Runs one seed, and tells its story, if it is wanted.
pub(super) fn traced(
    members: Members,
    seed: u64,
    telling: StoryTelling,
) -> Result<(SimulationSums, Vec<String>), SimulationFailure> {
    fastrand::seed(seed);
    let mut dice = SeededDice::new(seed);
    let scenario = Arc::new(match members {
        Members::One => Scenario::draw(&mut dice),
        Members::Several => Scenario::draw_roles(&mut dice),
    });
    let settings = Arc::new(scenario.settings());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime of one thread needs nothing");
    let _entered = runtime.enter();
    let _time = SimulatedTime::begin();
    let world = SharedWorld::new(Arc::clone(&scenario), dice, telling != StoryTelling::Nothing);
    world.lock().is_told_at_once = telling == StoryTelling::AtOnce;
    world.lock().note(|world| format!("{:#?}", world.scenario));
    world.lock().state.present =
        (0..scenario.endpoints.len()).filter(|&n| scenario.endpoints[n].added.is_none()).collect();
    let all = AssertUnwindSafe(|| runtime.block_on(lives(&world, &settings)));
    let panicked = catch_unwind(all).err();
    let mut world = world.lock();
    if let Some(panic) = panicked {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        world.fail(format!("panicked: {}", text.unwrap_or("without a word")));
    }
    if let Some(what) = world.failure.clone() {
        return Err(SimulationFailure { what, story: world.story() });
    }
    let deliveries = &world.oracle.deliveries;
    let taken = |accepted: u32| usize::try_from(accepted).unwrap();
    let sums = SimulationSums {
        seeds: 1,
        runs: world.run_count,
        deliveries: deliveries.len(),
        repeats: deliveries.iter().map(|one| taken(one.accepted.saturating_sub(1))).sum(),
    };
    Ok((sums, world.take_trace()))
}

/// All runs, one after the other.
async fn lives(world: &SharedWorld, settings: &Arc<Settings>) {
    let (ends, roles) = {
        let world = world.lock();
        (world.scenario.ends.clone(), world.scenario.roles.clone())
    };
    if let Some(roles) = roles {
        roles::lives(world, settings, &roles, drained(world)).await;
        settled_at_last(world);
        return;
    }
    for end in ends {
        one_run(world, settings, Some(end)).await;
        if world.lock().failure.is_some() {
            return;
        }
    }
    one_run(world, settings, None).await;
    settled_at_last(world);
}

fn settled_at_last(world: &SharedWorld) {
    let mut world = world.lock();
    if world.failure.is_none() {
        let settled = is_settled(&world);
        world.check(settled);
    }
}

async fn one_run(world: &SharedWorld, settings: &Arc<Settings>, end: Option<PlannedEnd>) {
    let world = &world.begin_run(end);
    let endpoints: Vec<usize> = (0..world.lock().scenario.endpoints.len()).collect();
    world.lock().oracle.given_to(world.run, &endpoints);
    let stop = CancellationToken::new();
    let watch = async {
        match end {
            Some(PlannedEnd::Stop(after)) => {
                tokio::time::sleep(after).await;
                world.lock().note(|_| String::from("asked to stop"));
                stop.cancel();
                tokio::time::sleep(ENDED_WITHIN).await;
                RunEnd::Stopped { in_time: false }
            }
            Some(PlannedEnd::AtPoll(_) | PlannedEnd::AtPoint) => {
                tokio::time::sleep(RUN_MAX).await;
                RunEnd::Killed
            }
            None => {
                drained(world).await;
                stop.cancel();
                tokio::time::sleep(ENDED_WITHIN).await;
                world.lock().fail("all is well, and it does not stop");
                RunEnd::Killed
            }
        }
    };
    let ended = tokio::select! {
        biased;
        ended = process::run(world, settings, stop.clone()) => ended,
        killed = watch => killed,
    };
    let how = match ended {
        RunEnd::Killed => "was killed",
        RunEnd::Stopped { in_time: true } => STOPPED,
        RunEnd::Stopped { in_time: false } => "has stopped, too late for all of it",
        RunEnd::Failed(name, error) => {
            world.lock().fail(format!("{name} failed: {error:#}"));
            "has failed"
        }
    };
    world.lock().end_run(world.run, how, &endpoints);
}

/// Makes all well when everything is written, and waits until all of it has arrived.
async fn drained(world: &SharedWorld) {
    let length = world.lock().scenario.length;
    let left = length.saturating_sub(world.lock().now());
    tokio::time::sleep(left).await;
    let healed = {
        let mut world = world.lock();
        world.heal();
        world.now()
    };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut world = world.lock();
        let Some(what) = what_waits(&world) else {
            // Of several members each shows what it has counted itself.
            let shown = match world.scenario.roles {
                None => is_shown(&world),
                Some(_) => is_shown_balanced(&world),
            };
            world.check(shown);
            return;
        };
        if world.now() > healed + DRAINED_WITHIN {
            let lanes: Vec<String> = world.all_shown().map(ShownRun::lines).collect();
            let what = format!("it does not come to an end: {what}; {}", lanes.join("; "));
            world.fail(what);
            return;
        }
    }
}

/// What is not as it will be at the end.
fn what_waits(world: &SimulatedWorld) -> Option<String> {
    if let Some(open) = world.oracle.first_open() {
        return Some(format!("{} is open", open.label));
    }
    let rows: usize = world.state.backlog.values().map(BTreeMap::len).sum();
    let (confirmed, end) = (world.slot.confirmed, world.wal.end());
    if rows > 0 {
        return Some(format!("{rows} rows are in the backlog"));
    }
    let resent = world.state.resending().len();
    if resent > 0 {
        return Some(format!("{resent} letters are being sent again"));
    }
    (confirmed < end).then(|| format!("{confirmed} is confirmed, {end} is written"))
}

/// What must hold at the end: everything has come, and the books say so.
fn is_settled(world: &SimulatedWorld) -> Result<(), String> {
    if let Some(what) = what_waits(world) {
        return Err(format!("it has stopped, and {what}"));
    }
    for BookEntry { endpoint, table, count } in world.state.balance() {
        let is_named = |number: &usize| *world.scenario.endpoints[*number].name == *endpoint;
        let Some(number) = (0..world.scenario.endpoints.len()).find(is_named) else { continue };
        let settings = &world.scenario.endpoints[number];
        if settings.added.is_some() || world.state.removed.contains(&number) {
            continue;
        }
        let captured = captured(world, &table.name);
        let own = world.oracle.deliveries.iter().filter(|one| one.endpoint == number);
        let own = own.filter(|one| table_name(world.scenario.rules[one.rule].table) == table.name);
        let (mut taken, mut dead) = (0, 0);
        for one in own {
            taken += 1;
            dead += i64::from(world.state.is_dead(&endpoint, world.oracle.id(one)));
        }
        let BookCount { delivered, filtered, expired, .. } = count;
        let rules = world.scenario.rules.iter();
        let mut rules = rules.filter(|rule| table_name(rule.table) == table.name);
        let has_expiry = rules.any(|rule| rule.expiry.is_some());
        // Known: what was settled or parked beyond the settled prefix before a crash, and is too old when
        // it is read again, counts as captured and expired once more.
        let twice = if has_expiry { (count.captured - captured).clamp(0, expired) } else { 0 };
        let is_right = count.captured == captured + twice
            && filtered == captured - taken
            && count.dead == dead
            && delivered + expired == taken - dead + twice
            && (expired == 0 || has_expiry);
        if !is_right {
            return Err(format!(
                "the books of {endpoint} and {table} are wrong: {count:?}, but {captured} were \
                 captured, {taken} of them owed, and {dead} have died"
            ));
        }
    }
    Ok(())
}

/// How many events changes of the table have raised, or would have but for their filters.
fn captured(world: &SimulatedWorld, table: &str) -> i64 {
    let rules = &world.scenario.rules;
    let changes = world.wal.changes().filter(|change| table_name(change.table) == table);
    let routed =
        changes.flat_map(|change| rules.iter().filter(move |rule| is_routed(rule, change)));
    i64::try_from(routed.count()).unwrap()
}
