//! Which partitions a member takes, and which it gives back. Pure.

use std::time::Duration;

use crate::flow::partition::PartitionNumber;

/// How long after its lease a member is looked for once more: its row as a member, which says how many share, was
/// written a moment later.
const AFTER_LEASE: Duration = Duration::from_millis(100);

/// What a member does next.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum ShareStep {
    Stay,
    Take(Vec<PartitionNumber>),
    GiveBack(PartitionNumber),
}

/// The next step of one of `members`, who serves `serving` of `count` partitions while `free` are nobody's. Each
/// wants as many as all would have if they had equally many, rounded up.
pub(crate) fn next_step(
    count: usize,
    members: usize,
    serving: &[PartitionNumber],
    free: &[PartitionNumber],
    may_give: bool,
) -> ShareStep {
    let wanted = count.div_ceil(members.max(1));
    if serving.len() > wanted {
        return match serving.last().filter(|_| may_give) {
            Some(last) => ShareStep::GiveBack(*last),
            None => ShareStep::Stay,
        };
    }
    let missing = wanted - serving.len();
    match free.is_empty() || missing == 0 {
        true => ShareStep::Stay,
        false => ShareStep::Take(free.iter().copied().take(missing).collect()),
    }
}

/// When to look again, at the latest after `every`: soon after a lease of another member is over, of which `left` is
/// left. What lives prolongs its lease long before.
pub(crate) fn next_look(every: Duration, left: impl Iterator<Item = Duration>) -> Duration {
    left.map(|left| left + AFTER_LEASE).fold(every, Duration::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(range: std::ops::Range<u16>) -> Vec<PartitionNumber> {
        range.map(PartitionNumber::new).collect()
    }

    #[test]
    fn a_lease_that_is_not_prolonged_is_looked_at_when_it_is_over() {
        let millis = Duration::from_millis;
        let cases = [
            ("nobody else", vec![], 1000),
            ("all are prolonged", vec![5100, 5900], 1000),
            ("one is not", vec![5100, 300], 400),
            ("over by now", vec![0], 100),
        ];
        for (case, left, expected) in cases {
            let look = next_look(millis(1000), left.into_iter().map(millis));
            assert_eq!(look, millis(expected), "{case}");
        }
    }

    #[test]
    fn each_has_its_share_and_no_more() {
        let all = numbers(1..9);
        let cases = [
            ("alone: all", 1, 0, 8, ShareStep::Take(all.clone())),
            ("of two: half", 2, 0, 8, ShareStep::Take(numbers(1..5))),
            ("of three: three", 3, 1, 5, ShareStep::Take(numbers(2..4))),
            ("has enough", 3, 3, 5, ShareStep::Stay),
            ("nothing is free", 2, 1, 0, ShareStep::Stay),
            ("has too many", 2, 6, 0, ShareStep::GiveBack(PartitionNumber::new(6))),
            ("more members than partitions", 20, 1, 3, ShareStep::Stay),
        ];
        for (name, members, serving, free, expected) in cases {
            let (serving, free) = (&all[..serving], &all[serving..serving + free]);
            assert_eq!(next_step(8, members, serving, free, true), expected, "case: {name}");
        }
        assert_eq!(next_step(8, 2, &all, &[], false), ShareStep::Stay, "one at a time");
    }

    /// Members come and go in any order: in the end all partitions have an owner, and shares differ little.
    #[test]
    fn whoever_comes_and_goes_all_partitions_are_served_in_the_end() {
        let mut dice = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let count = dice.usize(1..20);
            let mut members: Vec<Vec<PartitionNumber>> = vec![Vec::new(); dice.usize(1..6)];
            let every = numbers(1..u16::try_from(count + 1).unwrap());
            for round in 0..200 {
                if round < 20 && dice.bool() {
                    if dice.bool() {
                        members.push(Vec::new());
                    } else if members.len() > 1 {
                        members.swap_remove(dice.usize(..members.len()));
                    }
                }
                let alive = members.len();
                let who = dice.usize(..alive);
                let free: Vec<_> = every
                    .iter()
                    .filter(|one| !members.iter().flatten().any(|taken| taken == *one))
                    .copied()
                    .collect();
                let serving = members[who].clone();
                match next_step(count, alive, &serving, &free, true) {
                    ShareStep::Stay => {}
                    ShareStep::Take(taken) => members[who].extend(taken),
                    ShareStep::GiveBack(back) => members[who].retain(|one| *one != back),
                }
            }
            let served: usize = members.iter().map(Vec::len).sum();
            assert_eq!(served, count);
            let most = count.div_ceil(members.len());
            assert!(members.iter().all(|member| member.len() <= most));
        }
    }
}
