//! A lane with a backlog, between a source and an endpoint that both misbehave.
//!
//! Random arrivals with up to two keys, outcomes, clock steps, late commits, late and short pages,
//! full lanes, replays, pauses, other settings, 410s, the endpoint's removal, and crashes: then the
//! lane is made anew from what was committed, and what was not settled arrives again. After each step the promises of the lane's header are checked; at
//! the end everything must drain.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::config::settings;
use crate::config::settings::BacklogLimits;
use crate::config::settings::BatchSettings;
use crate::config::settings::KeyOrdering;
use crate::config::settings::RetryDelays;
use crate::config::settings::RetrySettings;
use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::BacklogStanding;
use crate::flow::backlog::RefilledRow;
use crate::flow::event::EventExpiry;
use crate::flow::key::EventKeys;
use crate::flow::key::KeyHash;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::verdict::AttemptReach;
use crate::lane::core::backlog_limits::SWEEP_INTERVAL;
use crate::lane::core::spill::RefillWanted;
use crate::lane::core::spill::TAIL_PATIENCE;
use crate::lane::samples;
use crate::lane::samples::number;
use crate::lane::settings::LaneParking;

mod world;

use world::World;

/// Stands for the keys of a barrier.
const BARRIER: u64 = 99;

#[derive(Clone, Debug)]
enum Step {
    /// An event comes through the WAL; `lifetime` is in milliseconds from now.
    Arrive {
        keys: Vec<u64>,
        lifetime: Option<u64>,
    },
    /// The source waits no longer for a place.
    Overflow,
    /// Completes one lease, chosen by the number.
    Complete(usize, Answer),
    /// Milliseconds pass.
    Pass(u64),
    /// The ledger commits so many of the settlements that it has.
    Commit(usize),
    /// A page is read, of at most so many rows; or reading fails.
    Read {
        rows: Option<usize>,
    },
    /// The page that was read comes in.
    Page,
    /// Memory is wanted for something large.
    Evict,
    /// An event with this key is sent again.
    Replay(u64),
    /// The endpoint is disabled, or enabled again.
    Switch {
        enabled: bool,
    },
    /// An operator pauses it, or lets it go on.
    Pause {
        paused: bool,
    },
    /// What waits is tried at once.
    TryNow,
    Reconfigure(Box<LaneSettings>),
    /// The endpoint is removed.
    Delete,
    Crash,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Delivered,
    Retry,
    RetryAfter(u64),
    /// It did not come to the endpoint.
    Unspent(AttemptReach),
    Rejected,
    Gone,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let answer = prop_oneof![
        20 => Just(Answer::Delivered),
        30 => Just(Answer::Retry),
        5 => (0..5_000u64).prop_map(Answer::RetryAfter),
        3 => Just(Answer::Unspent(AttemptReach::Unprocessed)),
        3 => Just(Answer::Unspent(AttemptReach::Nowhere)),
        3 => Just(Answer::Rejected),
        1 => Just(Answer::Gone),
    ];
    let lifetime = prop_oneof![4 => Just(None), 1 => (0..20_000u64).prop_map(Some)];
    let keys = prop_oneof![
        20 => prop::collection::vec(0..5u64, 0..3),
        1 => Just(vec![BARRIER]),
    ];
    let arrive = (keys, lifetime);
    let step = prop_oneof![
        30 => arrive.prop_map(|(keys, lifetime)| Step::Arrive { keys, lifetime }),
        4 => Just(Step::Overflow),
        30 => (any::<usize>(), answer).prop_map(|(choice, answer)| Step::Complete(choice, answer)),
        12 => (0..1_500u64).prop_map(Step::Pass),
        2 => (0..15_000u64).prop_map(Step::Pass),
        12 => (0..12usize).prop_map(Step::Commit),
        12 => prop::option::weighted(0.9, 0..6usize).prop_map(|rows| Step::Read { rows }),
        12 => Just(Step::Page),
        4 => Just(Step::Evict),
        5 => (0..5u64).prop_map(Step::Replay),
        3 => any::<bool>().prop_map(|enabled| Step::Switch { enabled }),
        3 => any::<bool>().prop_map(|paused| Step::Pause { paused }),
        2 => Just(Step::TryNow),
        2 => any_settings().prop_map(|settings| Step::Reconfigure(Box::new(settings))),
        2 => Just(Step::Crash),
    ];
    let removal = prop::collection::vec(step.clone(), 0..50);
    let removal = prop::option::weighted(0.2, removal);
    (prop::collection::vec(step, 0..200), removal).prop_map(|(mut steps, removal)| {
        if let Some(after) = removal {
            steps.push(Step::Delete);
            steps.extend(after);
        }
        steps
    })
}

fn any_settings() -> impl Strategy<Value = LaneSettings> {
    let ordering = prop_oneof![
        4 => Just(KeyOrdering::Key),
        1 => Just(KeyOrdering::Strict),
        1 => Just(KeyOrdering::None),
    ];
    let limits = (2..80usize, 3..200u64).prop_map(|(rows, age)| BacklogLimits {
        rows: number(rows),
        age: Duration::from_secs(age),
    });
    // Without failures there is no breaker.
    let parking = (0..6usize, 0..3_000u64, limits);
    let share = prop_oneof![Just(256), Just(usize::MAX)];
    let room = (1..9usize, share);
    (1..5usize, 1..4usize, 0..100u64, ordering, 0..7u32, room, parking).prop_map(
        |(concurrency, size, linger, ordering, max, room, (failures, after, backlog))| {
            let (capacity, share_bytes) = room;
            let breaker = settings::BreakerSettings {
                failures: number(failures.max(1)),
                cooldown: Duration::from_secs(1),
                cap: Duration::from_secs(4),
            };
            let breaker = (failures > 0).then_some(breaker);
            let after = Duration::from_millis(after);
            let terms = settings::ParkingSettings { after, breaker, backlog };
            LaneSettings {
                concurrency: number(concurrency),
                batch: BatchSettings {
                    size: number(size.min(capacity)),
                    linger: Duration::from_millis(linger),
                },
                ordering,
                capacity: number(capacity),
                retry: RetrySettings {
                    delays: RetryDelays::Exponential { max, interval: Duration::from_millis(700) },
                    cap: Duration::from_secs(3),
                },
                parking: Some(LaneParking { terms, standing: None }),
                share_bytes,
                ..samples::settings()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens_nothing_is_lost_or_out_of_order(
        settings in any_settings(),
        steps in steps(),
    ) {
        let mut world = World::new(settings);
        for step in &steps {
            world.apply(step);
        }
        world.drain();
    }
}
