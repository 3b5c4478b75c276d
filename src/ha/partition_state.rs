//! What walhook remembers of a partition, taken up by its owner.

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::config::configuration::Settings;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::ha::state;
use crate::ha::state::TakenState;
use crate::ha::state::marks_session;
use crate::ledger::state_status::StateStatus;
use crate::ledger::writer::StateWriter;
use crate::store::SqlSession;
use crate::store::backlog::backlog_sizes;
use crate::store::books;
use crate::store::books::CommonCounts;
use crate::store::crash_records;
use crate::store::dead_letters;
use crate::store::endpoint_states;
use crate::store::ownership::StateOwnership;
use crate::store::progress;
use crate::store::push_totals::PushTotals;
use crate::store::state_error::StateError;

/// What is known of a partition that has just been taken. `settings` has its endpoints alone.
///
/// # Errors
/// That the state could not be read.
pub(crate) async fn take_up(
    settings: &Settings,
    mut session: SqlSession,
    ownership: StateOwnership,
    settled: Option<Position>,
    (writable, status): (watch::Sender<bool>, StateStatus),
) -> Result<TakenState, StateError> {
    let (client, slot) = (&session.client, ownership.slot());
    let names: BTreeSet<&str> = settings.endpoints.iter().map(|endpoint| &*endpoint.name).collect();
    let settled_ahead =
        progress::load_settled_ahead_of(client, slot, ownership.partition()).await?;
    let mut endpoint_watermarks = progress::load_endpoint_watermarks(client, slot).await?;
    endpoint_watermarks.retain(|(name, _)| names.contains(&**name));
    let sizes = backlog_sizes::sizes(client, slot).await?;
    let sizes = sizes.into_iter().filter(|size| names.contains(&*size.endpoint));
    let backlog = sizes.map(state::standing).collect();
    let mut states = endpoint_states::load(client, slot).await?;
    states.retain(|state| names.contains(&*state.endpoint));
    let mut letters = dead_letters::sizes(client, slot).await?;
    letters.retain(|(name, _)| names.contains(&**name));
    let mut books = books::load(client, slot).await?;
    books.retain(|entry| names.contains(&*entry.endpoint));
    let past = crash_records::started(&mut session.client, &ownership, settled).await?;
    let marks = marks_session(settings, past).await?;
    let days = settings.push_log.retention_days;
    let server = settings.state.clone();
    let writer = StateWriter::new(server, session, ownership.clone(), days, writable, status);
    Ok(TakenState {
        writer,
        // The stream of a partition confirms nothing.
        confirmed: Lsn::ZERO,
        wal_end: None,
        publication: None,
        ownership,
        seen: settled,
        settled_ahead,
        endpoint_watermarks,
        letters,
        stored: Vec::new(),
        endpoints_version: 0,
        rows: None,
        states,
        backlog,
        remembered: Vec::new(),
        moving: Vec::new(),
        past,
        marks,
        books,
        totals: PushTotals::default(),
        common: CommonCounts::default(),
        partitions: Vec::new(),
    })
}
