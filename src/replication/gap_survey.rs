//! Finds what is missing between what was settled and what the server is going to send.
//!
//! ```text
//! walhook.progress ─┐
//! slot, publication ├─▶ [survey] ─▶ SetupDiagnostic::Gap, with the range ─▶ exit code 4, `walhook check`
//! timeline, WAL end ┘
//! ```
//!
//! Everything that is confirmed to the server was written to the state before. So a slot that stands
//! beyond the state is another one than it was; one that stands before it has only moved back, as
//! it does when PostgreSQL crashes, and what it sends again is known.

use tokio_postgres::Client;

use crate::config::settings::PostgresSettings;
use crate::flow::lsn::Lsn;
use crate::flow::time::Timestamp;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::gap::ChangeGap;
use crate::replication::gap::GapCause;
use crate::replication::slot::SlotStream;
use crate::replication::wire::command;
use crate::replication::wire::command::SystemIdentity;
use crate::replication::wire::command::TimelineEnd;
use crate::store::error::StoreError;
use crate::store::progress::StoredProgress;

/// Who can move the slot meanwhile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SlotMovers {
    /// It is ours.
    OnlyUs,
    Others,
}

/// What is true of the server.
#[derive(Clone, Debug)]
pub(crate) struct SeenPosition<'a> {
    pub identity: &'a SystemIdentity,
    /// Up to here the WAL is safe on the server's disk.
    pub wal_end: Lsn,
    /// The ends of earlier timelines of the server's history.
    pub history: Vec<TimelineEnd>,
    pub slot: Option<SlotStream>,
    pub movers: SlotMovers,
    pub publication: Option<u32>,
    /// A publication that the slot was read through, and that is there under another name.
    pub known_publication: Option<String>,
    /// The server's time.
    pub now: Timestamp,
}

/// Asks the server and judges.
///
/// `slot` has to be asked for *before* `progress`, and the rest is asked after it. While flushes go on, each
/// position is written to the state before the slot gets it, so a slot that was behind the state at any
/// moment is not taken for one that is ahead of it.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn survey(
    client: &Client,
    settings: &PostgresSettings,
    identity: &SystemIdentity,
    movers: SlotMovers,
    slot: Option<SlotStream>,
    progress: &StoredProgress,
) -> Result<Vec<SetupDiagnostic>, SourceError> {
    let Some(lineage) = &progress.lineage else { return Ok(Vec::new()) };
    let mut history = Vec::new();
    if identity.system == lineage.system && identity.timeline > lineage.timeline {
        let timeout = settings.wal_sender_timeout;
        let mut connection = command::connect(&settings.server, timeout).await?;
        history = connection.timeline_history(identity.timeline).await?;
        connection.close().await;
    }
    let question = "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() \
                    THEN pg_catalog.pg_last_wal_replay_lsn() \
                    ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text, \
                    (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint, \
                    (SELECT pubname::text FROM pg_catalog.pg_publication \
                     WHERE oid = ANY ($1) AND pubname <> $2 ORDER BY 1 LIMIT 1)";
    let known = &lineage.publications;
    let row = client.query_one(question, &[known, &settings.publication]).await?;
    let wal_end: &str = row.try_get(0)?;
    let known_publication = row.try_get(2)?;
    let seen = SeenPosition {
        identity,
        wal_end: wal_end.parse().unwrap_or_default(),
        history,
        slot,
        movers,
        publication: publication(client, &settings.publication).await?,
        known_publication,
        now: Timestamp::from_micros(row.try_get(1)?),
    };
    Ok(judge(settings, progress, &seen))
}

/// The publication's oid, which tells it from a later one of the same name.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn publication(client: &Client, name: &str) -> Result<Option<u32>, StoreError> {
    let question = "SELECT oid FROM pg_catalog.pg_publication WHERE pubname = $1";
    let row = client.query_opt(question, &[&name]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Pure; see [`survey`].
pub(crate) fn judge(
    settings: &PostgresSettings,
    progress: &StoredProgress,
    seen: &SeenPosition<'_>,
) -> Vec<SetupDiagnostic> {
    let Some(lineage) = &progress.lineage else { return Vec::new() };
    let settled = progress.settled.map(|settled| settled.commit);
    let Some(from) = progress.confirmed.max(settled) else { return Vec::new() };
    let (expected, found) = (lineage.system, seen.identity.system);
    if found != expected {
        let to = seen.slot.as_ref().and_then(|slot| slot.confirmed);
        return vec![SetupDiagnostic::OtherSystem { expected, found, from: Some(from), to }];
    }
    let wal_end = seen.wal_end;
    let (known, found) = (lineage.timeline, seen.identity.timeline);
    let gap = |cause, to| {
        let (since, found) = (progress.confirmed_at, seen.now);
        SetupDiagnostic::Gap(ChangeGap { cause, from, since, to, found })
    };
    let mut gaps = Vec::new();
    let ended = seen.history.iter().find(|end| end.timeline == known);
    if known != found && ended.is_none_or(|end| end.at < from) {
        gaps.push(gap(GapCause::OtherHistory { known, found }, None));
    } else if wal_end < from {
        gaps.push(gap(GapCause::ServerBehind { server: wal_end }, None));
    }
    match &seen.slot {
        None => {
            let slot = settings.slot.clone();
            gaps.push(gap(GapCause::SlotGone { slot }, Some(wal_end).filter(|end| *end > from)));
        }
        Some(slot)
            if (seen.movers == SlotMovers::OnlyUs || slot.active_pid.is_none())
                && slot.confirmed > Some(from) =>
        {
            let name = slot.name.clone();
            let cause = match slot.was_read() {
                true => GapCause::SlotMoved { slot: name },
                false => GapCause::SlotMadeAgain { slot: name },
            };
            gaps.push(gap(cause, slot.confirmed));
        }
        Some(_) => {}
    }
    let is_known = |oid| lineage.publications.contains(&oid);
    if !lineage.publications.is_empty() && !seen.publication.is_some_and(is_known) {
        let publication = settings.publication.clone();
        if let Some(known) = seen.known_publication.clone() {
            let slot = settings.slot.clone();
            gaps.push(SetupDiagnostic::OtherPublication { publication, slot, known });
            return gaps;
        }
        let to = Some(wal_end).filter(|end| *end > from);
        gaps.push(gap(GapCause::PublicationMadeAgain { publication }, to));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::ServerSettings;
    use crate::config::settings::TlsSettings;
    use crate::flow::lsn::Position;
    use crate::store::progress::ServerLineage;

    fn lsn(raw: u64) -> Lsn {
        Lsn::from_raw(raw)
    }

    /// Causes for a state at 100 on timeline 2 of system 7, with publication 16.
    fn found(change: impl FnOnce(&mut SystemIdentity, &mut SeenPosition<'_>)) -> Vec<String> {
        let settings = PostgresSettings {
            server: ServerSettings::new("host=db".parse().unwrap(), TlsSettings::default()),
            slot: String::from("walhook"),
            publication: String::from("walhook"),
            wal_sender_timeout: std::time::Duration::from_secs(6),
            failover: false,
        };
        let progress = StoredProgress {
            lineage: Some(ServerLineage { system: 7, timeline: 2, publications: vec![16] }),
            settled: Some(Position { commit: lsn(90), ordinal: 0 }),
            confirmed: Some(lsn(100)),
            confirmed_at: Some(Timestamp::from_seconds(60)),
            owner: None,
            epoch: 1,
            holder: String::new(),
            held_since: Timestamp::from_micros(0),
            updated_at: Timestamp::from_micros(0),
        };
        let mut identity =
            SystemIdentity { system: 7, timeline: 2, wal_end: lsn(200), database: String::new() };
        let mut slot = SlotStream::from_row("walhook", |_| None);
        slot.confirmed = Some(lsn(100));
        let copy = identity.clone();
        let mut seen = SeenPosition {
            identity: &copy,
            wal_end: lsn(200),
            history: Vec::new(),
            slot: Some(slot),
            movers: SlotMovers::OnlyUs,
            publication: Some(16),
            known_publication: None,
            now: Timestamp::from_seconds(3600),
        };
        change(&mut identity, &mut seen);
        let seen = SeenPosition { identity: &identity, ..seen };
        judge(&settings, &progress, &seen).iter().map(SetupDiagnostic::what).collect()
    }

    fn confirmed(seen: &mut SeenPosition<'_>, at: u64) {
        seen.slot.as_mut().unwrap().confirmed = Some(lsn(at));
    }

    #[test]
    fn only_what_does_not_meet_the_state_is_a_gap() {
        let end = |at| TimelineEnd { timeline: 2, at: lsn(at) };
        assert!(found(|_, _| {}).is_empty());
        assert!(found(|_, seen| confirmed(seen, 50)).is_empty(), "moved back by a crash");
        assert_eq!(found(|_, seen| confirmed(seen, 101)).len(), 1, "made again");
        let running = found(|_, seen| {
            confirmed(seen, 150);
            seen.slot.as_mut().unwrap().active_pid = Some(1);
            seen.movers = SlotMovers::Others;
        });
        assert!(running.is_empty(), "another walhook moves it");
        let promoted = found(|identity, seen| {
            identity.timeline = 3;
            seen.history = vec![end(100)];
        });
        assert!(promoted.is_empty(), "a failover that lost nothing: {promoted:?}");
        let forked = found(|identity, seen| {
            identity.timeline = 3;
            seen.history = vec![end(99)];
        });
        assert!(forked.concat().contains("timeline 3"), "{forked:?}");
        assert_eq!(found(|identity, _| identity.timeline = 1).len(), 1, "an older server");
        let behind = found(|_, seen| seen.wal_end = lsn(99));
        assert!(behind.concat().contains("0/63"), "{behind:?}");
        let gone = found(|_, seen| seen.slot = None);
        assert_eq!(
            gone,
            [
                "slot walhook was dropped: changes between 0/64 (committed 1970-01-01T00:01:00.000Z) \
              and 0/C8 (before 1970-01-01T01:00:00.000Z) are lost"
            ]
        );
        let renamed = found(|_, seen| {
            seen.publication = Some(17);
            seen.known_publication = Some(String::from("before"));
        });
        assert!(renamed.concat().contains("read through publication before"), "{renamed:?}");
        let moved = found(|_, seen| {
            confirmed(seen, 101);
            seen.slot.as_mut().unwrap().decoded = 3;
        });
        assert!(moved.concat().contains("read with another state"), "{moved:?}");
        assert_eq!(found(|_, seen| seen.publication = Some(17)).len(), 1);
        assert_eq!(found(|_, seen| seen.publication = None).len(), 1);
        let other = found(|identity, seen| {
            identity.system = 8;
            seen.slot = None;
        });
        assert!(matches!(other.as_slice(), [one] if one.contains("another database system")));
    }
}
