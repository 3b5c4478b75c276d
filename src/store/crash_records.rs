//! How the runs of a slot ended: what finds a change over which walhook crashes.
//!
//! ```text
//! crash, crash, nothing settled in between ─▶ one change at a time, each marked before it is touched
//!     crash at a mark ─▶ suspect: before it is taken again there is a pause with nothing in hand
//!         crash in the pause ─▶ not the change's fault: as usual again
//!         crash with it in hand, again and again ─▶ convicted: set aside as a dead letter
//! ```
//!
//! Nothing is left behind by a process that was killed, whatever killed it: an operator, a host that runs
//! out of memory, or the memory that one change takes. So what tells them apart is when they come. The
//! pause is many times as long as a change is in hand, and never of the same length: kills from outside
//! hit the pause sooner or later, and those of a change never do.
//!
//! A partition that others deliver for has runs of its own, and the process that crashes serves several: a crash with
//! nothing marked says nothing of a partition's suspect, and what was set aside in one of them is not tried by others.
//!
//! A run that ends cleanly says so. One write at a start and one at an end are all that this costs
//! while nothing crashes.

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::dead_letter_reason::PoisonReason;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::store::ownership::StateOwnership;
use crate::store::progress::begin;
use crate::store::progress::guard;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;

/// Crashes in a row, without progress, after which changes are marked.
const CAREFUL_AFTER: u64 = 2;

/// Crashes in a row with the same change in hand, all but the first after a pause.
const CHARGES: u64 = 4;

/// What walhook was doing with a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WorkStage {
    /// Nothing: it comes next, or was in hand long enough.
    Waiting,
    /// Making events of it.
    Rendering,
    /// Delivering them; either of both, while nobody has died at this change yet.
    Sending,
}

impl WorkStage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Rendering => "rendering",
            Self::Sending => "sending",
        }
    }
}

/// A change, and what was being done with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct CrashMark {
    pub position: Position,
    pub stage: WorkStage,
}

/// What the runs before have left to this one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PastRuns {
    /// Nothing to be careful about.
    Sound,
    /// Crashes in a row at the same place: changes are to be taken one by one, and marked. This one was
    /// in hand at the last crash.
    Crashing(Option<Position>),
    /// This change is to be set aside. `again`: walhook has crashed when it was to be, and keeps less of it.
    Convicted { mark: CrashMark, again: bool },
}

/// The row of a slot.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct RunRecord {
    running: bool,
    crashes: u64,
    settled: Option<Position>,
    marked: Option<CrashMark>,
    suspect: Option<CrashMark>,
    /// Times in a row that the suspect was in hand.
    charges: u64,
    convicted: Option<CrashMark>,
}

impl RunRecord {
    /// As [`Self::next`], of one of several partitions of a process.
    fn next_of_partition(self, settled: Option<Position>) -> Self {
        let next = self.next(settled);
        let kept =
            self.suspect.filter(|mark| settled.is_none_or(|settled| mark.position > settled));
        match self.running && self.marked.is_none() {
            true => Self { suspect: kept, charges: kept.map_or(0, |_| self.charges), ..next },
            false => next,
        }
    }

    /// The run that begins after this one, where `settled` is what progress says.
    fn next(self, settled: Option<Position>) -> Self {
        let begun = Self { running: true, settled, ..Self::default() };
        // A conviction holds until progress has passed it.
        let lies_ahead = |mark: &CrashMark| settled.is_none_or(|settled| mark.position > settled);
        let convicted = self.convicted.filter(lies_ahead);
        if !self.running {
            return Self { convicted, ..begun };
        }
        if self.marked.is_some_and(|mark| mark.stage == WorkStage::Waiting) {
            return Self { convicted, ..begun };
        }
        let crashes = if self.settled == settled { self.crashes + 1 } else { 1 };
        let suspect = self.marked.filter(lies_ahead);
        let same =
            |mark: &CrashMark| self.suspect.is_some_and(|before| before.position == mark.position);
        let charges = match suspect {
            Some(mark) if same(&mark) => self.charges + 1,
            Some(_) => 1,
            None => 0,
        };
        let guilty = suspect.filter(|_| charges >= CHARGES);
        Self { crashes, suspect, charges, convicted: convicted.or(guilty), ..begun }
    }

    fn past(&self) -> PastRuns {
        match self.convicted {
            // Only the run in which it is convicted has charges left.
            Some(mark) => PastRuns::Convicted { mark, again: self.charges < CHARGES },
            None if self.crashes >= CAREFUL_AFTER || self.suspect.is_some() => {
                PastRuns::Crashing(self.suspect.map(|suspect| suspect.position))
            }
            None => PastRuns::Sound,
        }
    }
}

/// Says that a run begins, and tells what those before have left. `settled` is what progress says.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub(crate) async fn started(
    client: &mut Client,
    ownership: &StateOwnership,
    settled: Option<Position>,
) -> Result<PastRuns, StateError> {
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT4, ownership.partition.raw());
    let query = "SELECT * FROM walhook.runs WHERE slot = $1 AND partition = $2";
    let before = tx.query_typed_opt(query, &params.list()).await?;
    let before = before.as_ref().map(read_run).transpose()?.unwrap_or_default();
    let mut run = match ownership.partition == PartitionNumber::SOURCE {
        true => before.next(settled),
        false => before.next_of_partition(settled),
    };
    if let Some(suspect) = run.suspect.filter(|_| run.convicted.is_none())
        && is_set_aside(tx.client(), &ownership.slot, suspect.position).await?
    {
        (run.convicted, run.charges) = (Some(suspect), CHARGES);
    }
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT8, i64::try_from(run.crashes).unwrap_or(i64::MAX));
    params.put(Type::PG_LSN, run.settled.map(|at| at.commit));
    params.put(Type::INT8, run.settled.map(|at| i64::from(at.ordinal)));
    for mark in [run.suspect, run.convicted] {
        params.put(Type::PG_LSN, mark.map(|mark| mark.position.commit));
        params.put(Type::INT8, mark.map(|mark| i64::from(mark.position.ordinal)));
        params.put(Type::TEXT, mark.map(|mark| mark.stage.as_str()));
    }
    params.put(Type::INT8, i64::try_from(run.charges).unwrap_or(i64::MAX));
    params.put(Type::INT4, ownership.partition.raw());
    tx.execute_typed(
        "INSERT INTO walhook.runs AS r (slot, running, crashes, settled_lsn, settled_ordinal,
                suspect_lsn, suspect_ordinal, suspect_stage,
                convicted_lsn, convicted_ordinal, convicted_stage, charges, partition)
         VALUES ($1, true, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (slot, partition) DO UPDATE SET running = true, crashes = $2, settled_lsn = $3,
                settled_ordinal = $4, marked_lsn = NULL, marked_ordinal = NULL,
                marked_stage = NULL, suspect_lsn = $5, suspect_ordinal = $6, suspect_stage = $7,
                convicted_lsn = $8, convicted_ordinal = $9, convicted_stage = $10, charges = $11",
        &params.list(),
    )
    .await?;
    tx.commit().await?;
    Ok(run.past())
}

/// Whether events of this change were set aside for other endpoints, or are about to be.
async fn is_set_aside(client: &Client, slot: &str, suspect: Position) -> Result<bool, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::PG_LSN, suspect.commit);
    params.put(Type::INT8, i64::from(suspect.ordinal));
    params.put(Type::TEXT, DeathReason::Poison(PoisonReason::Crashes).to_string());
    let query = "SELECT EXISTS (SELECT FROM walhook.runs
                     WHERE slot = $1 AND convicted_lsn = $2 AND convicted_ordinal = $3)
             OR EXISTS (SELECT FROM walhook.dead_letters
                     WHERE slot = $1 AND commit_lsn = $2 AND ordinal = $3 AND reason = $4) AS is_set_aside";
    let rows = client.query_typed(query, &params.list()).await?;
    rows.first().map_or(Ok(false), |row| read(row, "is_set_aside"))
}

/// Says that a run has ended as it should.
///
/// # Errors
/// That the statement failed: the next start takes this run for one that crashed.
pub(crate) async fn stopped(client: &Client, ownership: &StateOwnership) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT8, ownership.epoch);
    params.put(Type::INT4, ownership.partition.raw());
    let update = "UPDATE walhook.runs SET running = false, marked_lsn = NULL, suspect_lsn = NULL
                   WHERE slot = $1 AND partition = $3 AND EXISTS (SELECT FROM walhook.progress
                         WHERE slot = $1 AND partition = $3 AND epoch = $2)";
    client.execute_typed(update, &params.list()).await?;
    Ok(())
}

/// Whether the last run of a slot has ended as it should; also if there was none.
///
/// # Errors
/// That the row could not be read.
pub(crate) async fn ended_cleanly(client: &Client, slot: &str) -> Result<bool, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    // A state that is not brought up to date yet knows of no partitions.
    let query = "SELECT running FROM walhook.runs r
                  WHERE slot = $1 AND coalesce((to_jsonb(r) ->> 'partition')::integer, 0) = 0";
    let row = client.query_typed_opt(query, &params.list()).await?;
    Ok(!row.map(|row| read::<bool>(&row, "running")).transpose()?.unwrap_or(false))
}

/// Marks what this run is at; `None`: nothing in particular. Where another walhook has taken the
/// slot, nothing is written.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn mark(
    client: &Client,
    ownership: &StateOwnership,
    mark: Option<CrashMark>,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT8, ownership.epoch);
    params.put(Type::PG_LSN, mark.map(|mark| mark.position.commit));
    params.put(Type::INT8, mark.map(|mark| i64::from(mark.position.ordinal)));
    params.put(Type::TEXT, mark.map(|mark| mark.stage.as_str()));
    params.put(Type::INT4, ownership.partition.raw());
    let update = "UPDATE walhook.runs
                     SET marked_lsn = $3, marked_ordinal = $4, marked_stage = $5
                   WHERE slot = $1 AND partition = $6 AND EXISTS (SELECT FROM walhook.progress
                         WHERE slot = $1 AND partition = $6 AND epoch = $2)";
    client.execute_typed(update, &params.list()).await?;
    Ok(())
}

fn read_run(row: &Row) -> Result<RunRecord, StateError> {
    let position = |lsn: &str, ordinal: &'static str| -> Result<Option<Position>, StateError> {
        let Some(commit) = read::<Option<Lsn>>(row, lsn)? else { return Ok(None) };
        Ok(Some(Position { commit, ordinal: unsigned(row, ordinal)? }))
    };
    let mark =
        |lsn: &str, ordinal: &'static str, stage: &str| -> Result<Option<CrashMark>, StateError> {
            let Some(position) = position(lsn, ordinal)? else { return Ok(None) };
            let text = read::<Option<&str>>(row, stage)?.unwrap_or_default();
            let known = [WorkStage::Waiting, WorkStage::Sending].into_iter();
            let stage = known.into_iter().find(|stage| stage.as_str() == text);
            let stage = stage.unwrap_or(WorkStage::Rendering);
            Ok(Some(CrashMark { position, stage }))
        };
    Ok(RunRecord {
        running: read(row, "running")?,
        crashes: u64::try_from(read::<i64>(row, "crashes")?).unwrap_or(0),
        settled: position("settled_lsn", "settled_ordinal")?,
        marked: mark("marked_lsn", "marked_ordinal", "marked_stage")?,
        suspect: mark("suspect_lsn", "suspect_ordinal", "suspect_stage")?,
        charges: u64::try_from(read::<i64>(row, "charges")?).unwrap_or(0),
        convicted: mark("convicted_lsn", "convicted_ordinal", "convicted_stage")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(commit: u64) -> Option<Position> {
        Some(Position { commit: Lsn::from_raw(commit), ordinal: 0 })
    }

    fn mark(commit: u64, stage: WorkStage) -> Option<CrashMark> {
        at(commit).map(|position| CrashMark { position, stage })
    }

    /// A crash of a run at this mark, without progress.
    fn crashed(run: RunRecord, marked: Option<CrashMark>) -> RunRecord {
        RunRecord { marked, ..run }.next(at(5))
    }

    #[test]
    fn a_change_that_is_in_hand_at_crash_after_crash_is_convicted() {
        let first = RunRecord::default().next(at(5));
        assert_eq!(first.past(), PastRuns::Sound);
        let second = crashed(first, None);
        assert_eq!((second.crashes, second.past()), (1, PastRuns::Sound));
        let third = crashed(second, None);
        assert_eq!(third.past(), PastRuns::Crashing(None));
        let mut run = third;
        for _ in 1..CHARGES {
            run = crashed(run, mark(9, WorkStage::Sending));
            assert_eq!(run.past(), PastRuns::Crashing(at(9)), "it may have been chance");
        }
        let guilty = crashed(run, mark(9, WorkStage::Rendering));
        let convicted = |again| {
            let mark = mark(9, WorkStage::Rendering).unwrap();
            PastRuns::Convicted { mark, again }
        };
        assert_eq!(guilty.past(), convicted(false));
        let once_more = crashed(guilty, None);
        assert_eq!(once_more.past(), convicted(true), "until it is settled");
        assert_eq!(crashed(once_more, None).past(), convicted(true));
        assert_eq!(guilty.next(at(9)).past(), PastRuns::Sound);
        let moved_on = run.next(at(9));
        assert_eq!(moved_on.past(), PastRuns::Sound, "{moved_on:?}");
    }

    /// Another one of the process may be to blame for a crash.
    #[test]
    fn a_crash_with_nothing_marked_says_nothing_of_the_suspect_of_a_partition() {
        let marked = RunRecord { running: true, settled: at(5), ..RunRecord::default() };
        let crashed = |run: RunRecord, marked| RunRecord { marked, ..run }.next_of_partition(at(5));
        let mut run = crashed(marked, mark(9, WorkStage::Sending));
        for charges in 1..CHARGES {
            assert_eq!((run.charges, run.past()), (charges, PastRuns::Crashing(at(9))));
            let others = crashed(crashed(run, None), None);
            assert_eq!((others.charges, others.past()), (charges, PastRuns::Crashing(at(9))));
            run = crashed(others, mark(9, WorkStage::Sending));
        }
        assert!(matches!(run.past(), PastRuns::Convicted { .. }), "{run:?}");
        let in_the_pause = crashed(marked, mark(9, WorkStage::Waiting));
        assert_eq!(in_the_pause.past(), PastRuns::Sound);
        assert_eq!(
            RunRecord { running: false, ..run }.next_of_partition(at(9)).past(),
            PastRuns::Sound
        );
    }

    #[test]
    fn kills_from_outside_convict_nobody() {
        let careful = crashed(crashed(crashed(RunRecord::default(), None), None), None);
        let mut run = careful;
        for _ in 2..CHARGES {
            run = crashed(run, mark(9, WorkStage::Sending));
        }
        let elsewhere = crashed(run, mark(11, WorkStage::Sending));
        assert_eq!((elsewhere.charges, elsewhere.past()), (1, PastRuns::Crashing(at(11))));
        let before = crashed(run, None);
        assert_eq!((before.charges, before.suspect), (0, None), "it did not come that far");
        let in_the_pause = crashed(run, mark(9, WorkStage::Waiting));
        assert_eq!(in_the_pause.past(), PastRuns::Sound);
        assert_eq!(crashed(in_the_pause, None).past(), PastRuns::Sound, "it begins anew");
    }

    /// Kills at any moment of runs that never get on, as with an endpoint that hangs: the pause takes
    /// most of a run's time up to the end of the suspect's turn.
    #[test]
    fn kills_at_random_moments_hardly_ever_convict() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut convicted = 0;
        for _ in 0..1000 {
            let mut run = RunRecord { running: true, settled: at(5), ..RunRecord::default() };
            for _ in 0..8 {
                let (pause, killed) = (3.0 + 5.0 * random.f64(), 12.0 * random.f64());
                let marked = match run.past() {
                    PastRuns::Sound | PastRuns::Convicted { .. } => None,
                    PastRuns::Crashing(None) => mark(9, WorkStage::Sending),
                    PastRuns::Crashing(_) if killed < pause => mark(9, WorkStage::Waiting),
                    PastRuns::Crashing(_) if killed < pause + 1.0 => mark(9, WorkStage::Sending),
                    PastRuns::Crashing(_) => mark(9, WorkStage::Waiting),
                };
                run = crashed(run, marked);
            }
            convicted += i32::from(matches!(run.past(), PastRuns::Convicted { .. }));
        }
        assert!(convicted < 5, "{convicted} of 1000");
    }

    #[test]
    fn progress_and_a_clean_end_are_no_crashes_in_a_row() {
        let crashed = RunRecord::default().next(at(5)).next(at(5));
        assert_eq!(crashed.next(at(6)).crashes, 1);
        let ended = RunRecord { running: false, ..crashed };
        assert_eq!(ended.next(at(5)).crashes, 0);
        let marked = RunRecord { marked: mark(9, WorkStage::Rendering), ..crashed.next(at(5)) };
        assert_eq!(RunRecord { running: false, ..marked }.next(at(5)).suspect, None);
    }
}
