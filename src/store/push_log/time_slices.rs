//! Looks through the push log for attempts that no index finds, backwards in slices of time, for as long as
//! a request waits.
//!
//! By event or key an index finds them at once. Of ten million rows within an hour, those of an endpoint that
//! is seldom called are found only by looking at all, and those of its failures that were given up by looking
//! at all that failed there: so it looks at the newest two seconds, then at as much more as there is time for,
//! and says how far back it has come. A next request goes on from there. A slice that takes longer than was
//! foreseen, since what is older is in no cache, is given up when time is over: the next page looks at it.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::flow::time::Timestamp;
use crate::store::push_log::PushLogCursor;
use crate::store::push_log::PushLogEntry;
use crate::store::push_log::filter::PushLogFilter;
use crate::store::push_log::filter::list;
use crate::store::state_error::StateError;

/// How long a page may take in all, as far as that can be foreseen.
const BUDGET: Duration = Duration::from_millis(250);
/// When a slice is given up that was not foreseen to take so long; the first is looked at in any case.
const DEADLINE: Duration = Duration::from_millis(400);

/// The first slice.
const FIRST: Duration = Duration::from_secs(2);
/// How much longer a slice may be than the one before.
const GROWTH_MAX: f64 = 4.0;
/// Of the time that is left, how much is planned for: a slice may hold more rows than the one before, and
/// what is older is in fewer caches.
const CAUTION: f64 = 0.5;
/// A slice that would be less than this part of the one before is not worth it.
const WORTH_IT: f64 = 0.2;
/// A slice is read by the index of times. From a tenth of a day's rows on the planner would rather read all of
/// the day at once, by several workers: no slice of that would end in time.
const BY_TIME: &str =
    "SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0";

/// From this on the slice is all that there is.
const ALL: Duration = Duration::from_secs(400 * 86_400);

/// A page of what was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundAttempts {
    /// The newest first.
    pub entries: Vec<PushLogEntry>,
    /// Where to go on; `None` if that is all.
    pub next: Option<PushLogCursor>,
    /// How far back it has looked, if not to the end.
    pub searched_from: Option<Timestamp>,
}

/// Whether an index leads to what the filter means, and to nothing else.
fn is_indexed(filter: &PushLogFilter) -> bool {
    let is_any = filter.event_type.is_none()
        && filter.endpoint.is_none()
        && filter.status.is_none()
        && filter.class.is_none()
        && filter.outcome.is_none();
    filter.event.is_some() || filter.row_key.is_some() || is_any
}

/// A page of attempts, the newest first, at most `limit`; `below` is where the page before ended.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn search(
    client: &mut Client,
    slot: &str,
    filter: &PushLogFilter,
    below: Option<PushLogCursor>,
    limit: u32,
    now: Timestamp,
) -> Result<FoundAttempts, StateError> {
    let mut found = FoundAttempts::default();
    let mut below = below;
    let newest = [below.map(|cursor| cursor.created_at), filter.before];
    let mut top = newest.into_iter().flatten().fold(now, Timestamp::min);
    let mut length = if is_indexed(filter) { ALL } else { FIRST };
    let begun = Instant::now();
    // For the limit of each statement, which ends with it.
    let tx = client.build_transaction().read_only(true).start().await?;
    if length < ALL {
        tx.batch_execute(BY_TIME).await?;
    }
    let mut is_first = true;
    loop {
        let micros = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
        let from = top.shifted(-micros);
        let is_last = length >= ALL || filter.from.is_some_and(|wanted| wanted >= from);
        let slice = match is_last {
            true => filter.clone(),
            false => PushLogFilter { from: Some(from), ..filter.clone() },
        };
        let left = limit - u32::try_from(found.entries.len()).unwrap_or(limit).min(limit);
        let started = Instant::now();
        if !is_first {
            let limit = DEADLINE.saturating_sub(begun.elapsed()).as_millis().max(1);
            tx.batch_execute(&format!("SET LOCAL statement_timeout = {limit}")).await?;
        }
        match list(&tx, slot, &slice, below, left).await {
            Ok(entries) => found.entries.extend(entries),
            Err(error) if !is_first && error.sqlstate() == Some(&SqlState::QUERY_CANCELED) => {
                (found.next, found.searched_from) = (below, Some(top));
                return Ok(found);
            }
            Err(error) => return Err(error),
        }
        is_first = false;
        if found.entries.len() >= limit as usize {
            found.next = found.entries.last().map(PushLogEntry::cursor);
            return Ok(found);
        }
        if is_last {
            return Ok(found);
        }
        // All that is older than the slice, and nothing of it.
        below = Some(PushLogCursor { created_at: from, id: 0, place: 0 });
        top = from;
        let took = started.elapsed().max(Duration::from_micros(100));
        let Some(next) = next_length(length, took, BUDGET.saturating_sub(begun.elapsed())) else {
            (found.next, found.searched_from) = (below, Some(from));
            return Ok(found);
        };
        length = next;
    }
}

/// How long the next slice may be, if it is worth it.
fn next_length(length: Duration, took: Duration, left: Duration) -> Option<Duration> {
    let fits = left.as_secs_f64() / took.as_secs_f64() * CAUTION;
    (fits >= WORTH_IT).then(|| length.mul_f64(fits.min(GROWTH_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::push_log::AttemptOutcome;

    #[test]
    fn slices_grow_while_they_are_quick_and_end_when_time_is_over() {
        let millis = Duration::from_millis;
        let quick = next_length(FIRST, millis(1), millis(299));
        assert_eq!(quick, Some(FIRST * 4), "a quiet log is looked through in a few steps");
        let slow = next_length(FIRST, millis(150), millis(150));
        assert_eq!(slow, Some(FIRST.mul_f64(0.5)));
        assert_eq!(next_length(FIRST, millis(280), millis(20)), None);
        assert_eq!(next_length(FIRST, millis(500), Duration::ZERO), None);
    }

    #[test]
    fn what_an_index_finds_is_not_sliced() {
        let endpoint = || PushLogFilter { endpoint: Some("a".into()), ..PushLogFilter::default() };
        let dead = Some(AttemptOutcome::Dead);
        assert!(is_indexed(&PushLogFilter::default()), "the newest of all");
        assert!(is_indexed(&PushLogFilter { row_key: Some("7".into()), ..endpoint() }));
        assert!(!is_indexed(&PushLogFilter { outcome: dead, ..endpoint() }), "others failed there");
        assert!(!is_indexed(&endpoint()));
        assert!(!is_indexed(&PushLogFilter { outcome: dead, ..PushLogFilter::default() }));
    }
}
