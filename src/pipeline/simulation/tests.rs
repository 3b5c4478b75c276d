//! Runs the seeds, and shows that a seed is always the same simulation.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::pipeline::simulation::outcome::Members;
use crate::pipeline::simulation::outcome::SimulationSums;
use crate::pipeline::simulation::outcome::StoryTelling;
use crate::pipeline::simulation::outcome::simulate;
use crate::pipeline::simulation::outcome::traced;

/// How many simulations each `cargo test` runs.
const SEEDS: u64 = 500;

/// After so many that fail, the rest says nothing new.
const FAILURES_MAX: usize = 5;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn whatever_fails_everything_arrives_in_order_and_the_books_are_right() {
    run_seeds(Members::One);
}

#[test]
fn whatever_fails_everything_arrives_over_a_broker_as_well() {
    run_seeds(Members::Several);
}

/// Runs the seeds that the environment names, or the usual ones.
fn run_seeds(members: Members) {
    if let Some(seed) = variable("WALHOOK_SEED") {
        match traced(members, seed, StoryTelling::AtOnce) {
            Ok((sums, _)) => println!("{sums:?}"),
            Err(failure) => panic!("WALHOOK_SEED={seed}: {}", failure.what),
        }
        return;
    }
    let seeds = variable("WALHOOK_SEEDS").unwrap_or(SEEDS);
    let first = variable("WALHOOK_FIRST_SEED").unwrap_or(0);
    let next = AtomicU64::new(first);
    let (failures, sums) = (Mutex::new(Vec::new()), Mutex::new(SimulationSums::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds || failures.lock().unwrap().len() >= FAILURES_MAX {
                return;
            }
            match simulate(members, seed) {
                Ok(one) => sums.lock().unwrap().add(one),
                Err(failure) => failures.lock().unwrap().push((seed, failure)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    println!("{:?}", sums.lock().unwrap());
    let failures = failures.into_inner().unwrap();
    for (seed, failure) in &failures {
        println!("{}\nWALHOOK_SEED={seed}: {}\n", failure.story, failure.what);
    }
    let seeds: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
    assert!(failures.is_empty(), "seeds that fail, with their stories above: {seeds:?}");
}

#[test]
fn a_seed_is_the_same_whenever_it_runs() {
    let members = [Members::One, Members::Several];
    for (members, seed) in members.into_iter().flat_map(|one| (0..20).map(move |seed| (one, seed)))
    {
        let story = |seed| match traced(members, seed, StoryTelling::AtTheEnd) {
            Ok((_, story)) => story,
            Err(failure) => vec![failure.what],
        };
        let (first, second) = (story(seed), story(seed));
        let differs = first.iter().zip(&second).find(|(one, other)| one != other);
        assert_eq!(differs, None, "{members:?}, seed {seed}");
        assert_eq!(first.len(), second.len(), "{members:?}, seed {seed}");
    }
}
