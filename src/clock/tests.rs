//! `clock`, by cases.

use super::*;

const HOUR: i64 = 3600;

fn boot(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap())
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

/// Time 0 of the database is the start of the host, unless its clock is set.
fn clock(longest_life: i64) -> DatabaseClock {
    DatabaseClock::new(boot(longest_life))
}

#[test]
fn the_offset_is_the_least_that_an_exchange_allows_and_shown_from_its_middle() {
    let clock = clock(0);
    let millis = Duration::from_millis;
    clock.measured(millis(1000), Timestamp::from_micros(61_050_000), millis(1100));
    assert_eq!(clock.at(millis(1100)), Timestamp::from_micros(61_050_000));
    assert!((clock.ahead_of(at(1), boot(2)) - 61.0).abs() < 1e-9);
    assert!((clock.ahead_of(at(100), boot(2)) + 38.0).abs() < 1e-9, "behind");
}

/// A process that is frozen while it asks, for whatever time, is never ahead of the server, and as near to it as the
/// quickest exchange since.
#[test]
fn no_exchange_of_whatever_length_sets_a_clock_ahead() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..2000 {
        let clock = clock(HOUR);
        let offset = random.i64(-HOUR * 1_000_000..HOUR * 1_000_000);
        let (mut now, mut quickest) = (0_u64, u64::MAX);
        for _ in 0..20 {
            let asked = now + random.u64(0..10_000_000);
            let looked = asked + random.u64(0..2_000_000);
            now = looked + random.u64(0..2_000_000);
            let micros = Duration::from_micros;
            let server = Timestamp::from_micros(i64::try_from(looked).unwrap() + offset);
            clock.measured(micros(asked), server, micros(now));
            quickest = quickest.min(now - looked);
            let real = Timestamp::from_micros(i64::try_from(now).unwrap() + offset);
            let shown = clock.at(micros(now));
            assert!(shown <= real, "ahead by {:?}", shown.since(real));
            assert_eq!(real.since(shown), micros(quickest));
        }
    }
}

#[test]
fn a_question_that_took_long_changes_only_what_it_disproves() {
    let clock = clock(0);
    clock.measured(boot(10), at(1010), boot(10));
    clock.measured(boot(20), at(1021), boot(5000));
    assert_eq!(clock.at(boot(5000)), at(6000), "suspended while the answer was on its way");
    clock.measured(boot(6000), at(20_000), boot(6100));
    assert_eq!(
        clock.at(boot(6100)),
        at(20_000),
        "it must have been set ahead: by so much at least"
    );
}

#[test]
fn a_first_answer_that_took_long_sets_no_clock_ahead() {
    let clock = clock(0);
    clock.measured(boot(10), at(1010), boot(12));
    assert_eq!(
        clock.at(boot(12)),
        at(1010),
        "suspended while the answer was on its way, or before"
    );
}

/// A row of any moment, with any life, is never older than it is, however the server's clock was set
/// ahead and back, as soon as the clock was measured after the row was read.
#[test]
fn no_row_is_taken_for_older_than_it_is_when_the_servers_clock_is_set() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..2000 {
        let life = random.i64(1..4 * HOUR);
        let clock = clock(life);
        let (mut set, mut now) = (1_000_000, 0);
        let mut rows: Vec<(i64, Timestamp)> = Vec::new();
        for _ in 0..60 {
            now += random.i64(1..life / 8 + 5);
            match random.u32(0..6) {
                0 => set += random.i64(2..5 * HOUR),
                1 => set -= random.i64(2..5 * HOUR),
                _ => {}
            }
            rows.push((now, at(now + set)));
            clock.measured(boot(now), at(now + set), boot(now));
            for (committed, shown) in &rows {
                let age = clock.at(boot(now)).since(*shown);
                let is_over = age > boot(life);
                assert!(!is_over || now - committed > life, "{age:?} for {}", now - committed);
            }
        }
    }
}

#[test]
fn a_clock_that_stays_set_ahead_is_believed_after_the_longest_life() {
    let clock = clock(1800);
    clock.measured(boot(10), at(10), boot(10));
    clock.measured(boot(15), at(15 + HOUR), boot(15));
    assert_eq!(clock.at(boot(15)), at(15), "rows of a moment ago are fresh");
    clock.measured(boot(1811), at(1811 + HOUR), boot(1811));
    assert_eq!(clock.at(boot(1811)), at(1811 + HOUR));
    clock.measured(boot(1815), at(1815), boot(1815));
    assert_eq!(clock.at(boot(1815)), at(1815), "back at once");
    let drifting = clock.clone();
    for n in 1..1000 {
        let server = Timestamp::from_micros((1815 + n) * 1_000_000 + n * 1000);
        drifting.measured(boot(1815 + n), server, boot(1815 + n));
    }
    let late = drifting.at(boot(2814)).since(at(2814));
    assert_eq!(late, Duration::from_millis(999), "drift is followed");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_of_the_first_measurement_after_its_moment() {
    let clock = clock(10);
    clock.measured(boot(5), at(5), boot(6));
    clock.renewed(boot(5)).await;
    let mut waits = std::pin::pin!(clock.renewed(boot(7)));
    let early = tokio::time::timeout(Duration::from_secs(1), waits.as_mut()).await;
    assert!(early.is_err());
    clock.wanted().await;
    clock.measured(boot(6), at(8), boot(8));
    let early = tokio::time::timeout(Duration::from_secs(1), waits.as_mut()).await;
    assert!(early.is_err(), "asked before the moment, answered after it");
    clock.measured(boot(9), at(9), boot(9));
    waits.await;
}
