//! What whoever has the slot does about the partitions that others deliver for, before it reads anything.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::config::configuration::Settings;
use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::pipeline::process_name::own_name;
use crate::store::SqlSession;
use crate::store::ownership::StateOwnership;
use crate::store::partition_leases;
use crate::store::partition_leases::PartitionRow;
use crate::store::progress;
use crate::store::state_error::StateError;

/// Brings the partitions in line with who has the slot: `wanted` are those of a tail, `None` is a walhook that
/// delivers itself. What was given out under another number is called back, and waited for; so is what nobody has
/// taken for as long as `[relay] patience` says.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub(crate) async fn bring_in_line(
    settings: &Settings,
    session: &mut SqlSession,
    source: &StateOwnership,
    wanted: Option<NonZeroU16>,
) -> Result<Vec<PartitionRow>, StateError> {
    let client = &mut session.client;
    let stored = partition_leases::source(client, source.slot()).await?;
    let stored = stored.and_then(|(count, ..)| NonZeroU16::new(count?));
    if let Some(stored) = stored.filter(|stored| Some(*stored) != wanted) {
        let of = |partition| names_of(settings, partition, stored);
        let given = |row: &PartitionRow| !row.at_source || row.is_leased || row.settled.is_some();
        let rows = partition_leases::rows(client, source.slot()).await?;
        let given: Vec<PartitionNumber> =
            rows.into_iter().filter(given).map(|row| row.partition).collect();
        if !given.is_empty() {
            tracing::info!(partitions = given.len(), "what others delivered is called back");
            partition_leases::recall(client, source, &own_name(), &given, of).await?;
        }
    }
    let Some(wanted) = wanted else { return Ok(Vec::new()) };
    if stored != Some(wanted) {
        partition_leases::define(client, source, wanted.get()).await?;
        tracing::info!(partitions = wanted, "the endpoints are shared among partitions");
    }
    let mut rows = partition_leases::rows(client, source.slot()).await?;
    let patience = settings.relay.as_ref().map_or(Duration::MAX, |relay| relay.patience);
    let unowned = rows.iter().filter(|row| row.is_unowned(patience)).map(|row| row.partition);
    let unowned: Vec<PartitionNumber> = unowned.collect();
    if !unowned.is_empty() {
        let of = |partition| names_of(settings, partition, wanted);
        partition_leases::recall(client, source, &own_name(), &unowned, of).await?;
        rows = partition_leases::rows(client, source.slot()).await?;
        for row in rows.iter_mut().filter(|row| unowned.contains(&row.partition)) {
            tracing::warn!(
                partition = row.partition.raw(),
                "nobody delivers for a partition: its events are parked"
            );
            row.is_parked = true;
        }
    }
    Ok(rows)
}

/// The endpoints of a partition, where there are `count` of them.
pub(crate) fn names_of(
    settings: &Settings,
    partition: PartitionNumber,
    count: NonZeroU16,
) -> Vec<Arc<str>> {
    let names = settings.endpoints.iter().map(|endpoint| &endpoint.name);
    let ours = names.filter(|name| PartitionNumber::of_endpoint(name, count) == partition);
    ours.map(Arc::clone).collect()
}

/// How far each endpoint has come: as it says itself, or its partition, whichever is further.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn fronts(
    session: &SqlSession,
    settings: &Settings,
    rows: &[PartitionRow],
    (slot, count): (&str, Option<NonZeroU16>),
) -> Result<Vec<(Arc<str>, Position)>, StateError> {
    let fronts = progress::load_fronts(&session.client, slot).await?;
    let Some(count) = count else { return Ok(fronts) };
    let mut furthest: HashMap<Arc<str>, Position> = fronts.into_iter().collect();
    for row in rows {
        let Some(before) = row.settled.map(Position::next) else { continue };
        for name in names_of(settings, row.partition, count) {
            let front = furthest.entry(name).or_insert(before);
            *front = before.max(*front);
        }
    }
    Ok(furthest.into_iter().collect())
}
