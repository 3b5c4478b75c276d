//! What the slot's holder does about the partitions that others deliver for, before it reads anything.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::config::configuration::Settings;
use crate::endpoints::row_ids;
use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::pipeline::process_name::own_name;
use crate::preflight::endpoint_rows;
use crate::preflight::endpoint_rows::KeyedRow;
use crate::store;
use crate::store::SqlSession;
use crate::store::endpoints;
use crate::store::endpoints::StoredEndpoint;
use crate::store::ownership::StateOwnership;
use crate::store::partition_leases;
use crate::store::partition_leases::PartitionRow;
use crate::store::progress;
use crate::store::renames;
use crate::store::renames::EndpointRename;
use crate::store::shared_endpoints;
use crate::store::state_error::StateError;

/// The endpoints of a source, and the partitions that others deliver for.
pub(crate) struct TakenEndpoints {
    /// Those of the API.
    pub(crate) stored: Vec<StoredEndpoint>,
    /// The version of the endpoints that holds at least; 0 where nobody shares them.
    pub(crate) endpoints_version: i64,
    /// The rows of the endpoints' table, where they were read to see which have other names.
    pub(crate) rows: Option<Vec<KeyedRow>>,
    pub(crate) partitions: Vec<PartitionRow>,
    /// How far each endpoint has come.
    pub(crate) endpoint_watermarks: Vec<(Arc<str>, Position)>,
}

/// Takes up the endpoints, and brings the partitions in line with who has the slot: `wanted` are those of a tail.
///
/// # Errors
/// The table of the endpoints cannot be read, or the state not be read or written.
pub(crate) async fn take_up(
    settings: &Settings,
    session: &mut SqlSession,
    source: &StateOwnership,
    wanted: Option<NonZeroU16>,
) -> anyhow::Result<TakenEndpoints> {
    let slot = source.slot();
    // From here on a walhook that is alone makes all changes, or the members do.
    shared_endpoints::begin(&session.client, source, wanted.is_some()).await?;
    rename(settings, session, source).await?;
    let stored = endpoints::load(&session.client, slot).await?;
    let of_file = settings.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.name));
    let of_api = stored.iter().map(|stored| Arc::from(stored.name.as_str()));
    let mut known: BTreeSet<Arc<str>> = of_file.chain(of_api).collect();
    let rows = match wanted {
        None => row_ids::take_over(settings, &mut session.client, source, &known).await?,
        Some(_) => None, // an endpoint belongs to a partition by its name, and keeps it
    };
    add_rows(settings, session, (slot, wanted), &mut known).await?;
    let partitions = bring_in_line(settings, session, source, (wanted, &known)).await?;
    // Until now members may have changed some.
    let stored = endpoints::load(&session.client, slot).await?;
    // Behind the rows: workers may have to know more than they say, never less.
    let now = shared_endpoints::look(&session.client, slot).await?;
    known.extend(stored.iter().map(|stored| Arc::from(stored.name.as_str())));
    let endpoint_watermarks =
        endpoint_watermarks(session, &known, &partitions, (slot, wanted)).await?;
    let endpoints_version = now.map_or(0, |now| now.version);
    Ok(TakenEndpoints { stored, endpoints_version, rows, partitions, endpoint_watermarks })
}

/// Adds the endpoints that are rows of the table of `[endpoints_from]`, where anything is shared, or was.
///
/// # Errors
/// The table or the state cannot be read.
async fn add_rows(
    settings: &Settings,
    session: &SqlSession,
    (slot, shared): (&str, Option<NonZeroU16>),
    endpoints: &mut BTreeSet<Arc<str>>,
) -> anyhow::Result<()> {
    let Some(from) = &settings.endpoints_from else { return Ok(()) };
    if shared.is_none() && shared_count(session, slot).await?.is_none() {
        return Ok(());
    }
    let read = async {
        let server = &settings.postgres.server;
        let source = store::connect_with_own_path(server, store::ANSWER_MAX).await?;
        endpoint_rows::names(from, &source.client).await
    };
    let names = read.await.context("cannot read the table of [endpoints_from]")?;
    endpoints.extend(names);
    Ok(())
}

/// Brings the partitions in line with who has the slot: `wanted` are those of a tail, `None` is a walhook that
/// delivers itself. What was given out under another number is called back, and waited for; so is what nobody has
/// taken for as long as `[relay] patience` says.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
async fn bring_in_line(
    settings: &Settings,
    session: &mut SqlSession,
    source: &StateOwnership,
    (wanted, endpoints): (Option<NonZeroU16>, &BTreeSet<Arc<str>>),
) -> Result<Vec<PartitionRow>, StateError> {
    let stored = shared_count(session, source.slot()).await?;
    if let Some(stored) = stored.filter(|stored| Some(*stored) != wanted) {
        recall_given(session, source, (stored, endpoints)).await?;
    }
    let client = &mut session.client;
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
        let of = |partition| names_of(endpoints, partition, wanted);
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

/// Among how many partitions the endpoints were shared last, if ever.
///
/// # Errors
/// That the row could not be read.
async fn shared_count(session: &SqlSession, slot: &str) -> Result<Option<NonZeroU16>, StateError> {
    let stored = partition_leases::source(&session.client, slot).await?;
    Ok(stored.and_then(|(count, ..)| NonZeroU16::new(count?)))
}

/// Calls back what was given out of so many partitions, which have the endpoints of these names, and waits for it.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
async fn recall_given(
    session: &mut SqlSession,
    source: &StateOwnership,
    (count, endpoints): (NonZeroU16, &BTreeSet<Arc<str>>),
) -> Result<(), StateError> {
    let client = &mut session.client;
    let of = |partition| names_of(endpoints, partition, count);
    let given = |row: &PartitionRow| !row.at_source || row.is_leased || row.settled.is_some();
    let rows = partition_leases::rows(client, source.slot()).await?;
    let given: Vec<PartitionNumber> =
        rows.into_iter().filter(given).map(|row| row.partition).collect();
    if !given.is_empty() {
        tracing::info!(partitions = given.len(), "what others delivered is called back");
        partition_leases::recall(client, source, &own_name(), &given, of).await?;
    }
    Ok(())
}

/// Gives what the state holds of endpoints the names that they have in the file by now.
///
/// # Errors
/// The table of the endpoints cannot be read, or the state not be read or written.
async fn rename(
    settings: &Settings,
    session: &mut SqlSession,
    source: &StateOwnership,
) -> anyhow::Result<()> {
    let named = settings.endpoints.iter().filter_map(|endpoint| {
        let (from, to) = (endpoint.renamed_from.clone()?, Arc::clone(&endpoint.name));
        Some(EndpointRename { from, to, by: "renamed_from".to_owned(), row: None })
    });
    let mut named: Vec<EndpointRename> = named.collect();
    if let Some(count) = shared_count(session, source.slot()).await? {
        named = recall_for_renames(settings, session, source, (count, named)).await?;
        for rename in &named {
            // Also what nothing is known of: it may have been in a stream.
            renames::carry_out(&mut session.client, source, rename).await?;
        }
    } else {
        let mut carried_out = Vec::new();
        for rename in named {
            if renames::at_start(&mut session.client, source, &rename).await? {
                carried_out.push(rename);
            }
        }
        named = carried_out;
    }
    for EndpointRename { from, to, .. } in &named {
        tracing::warn!(%from, endpoint = %to, "endpoint is renamed, and what waits goes along");
    }
    Ok(())
}

/// Those that are to be carried out still. Nobody else may deliver meanwhile; and under its new name an endpoint has
/// come as far as under the old one, however far its new partition is.
///
/// # Errors
/// As [`rename`].
async fn recall_for_renames(
    settings: &Settings,
    session: &mut SqlSession,
    source: &StateOwnership,
    (count, named): (NonZeroU16, Vec<EndpointRename>),
) -> anyhow::Result<Vec<EndpointRename>> {
    let slot = source.slot();
    let mut open = Vec::new();
    for rename in named {
        if renames::is_open(&session.client, slot, &rename).await? {
            open.push(rename);
        }
    }
    if open.is_empty() {
        return Ok(open);
    }
    let of_file = settings.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.name));
    let stored = endpoints::load(&session.client, slot).await?;
    let of_api = stored.iter().map(|stored| Arc::from(stored.name.as_str()));
    let mut known: BTreeSet<Arc<str>> = of_file.chain(of_api).collect();
    add_rows(settings, session, (slot, Some(count)), &mut known).await?;
    for EndpointRename { from, to, .. } in &open {
        known.remove(to);
        known.insert(Arc::clone(from));
    }
    recall_given(session, source, (count, &known)).await?;
    Ok(open)
}

/// Those of the endpoints that a partition has, where there are `count` of them.
fn names_of(
    endpoints: &BTreeSet<Arc<str>>,
    partition: PartitionNumber,
    count: NonZeroU16,
) -> Vec<Arc<str>> {
    let ours =
        endpoints.iter().filter(|name| PartitionNumber::of_endpoint(name, count) == partition);
    ours.map(Arc::clone).collect()
}

/// How far each endpoint has come: as it says itself, or its partition, whichever is further.
///
/// # Errors
/// That the rows could not be read.
async fn endpoint_watermarks(
    session: &SqlSession,
    endpoints: &BTreeSet<Arc<str>>,
    rows: &[PartitionRow],
    (slot, count): (&str, Option<NonZeroU16>),
) -> Result<Vec<(Arc<str>, Position)>, StateError> {
    let endpoint_watermarks = progress::load_endpoint_watermarks(&session.client, slot).await?;
    let Some(count) = count else { return Ok(endpoint_watermarks) };
    let mut furthest: HashMap<Arc<str>, Position> = endpoint_watermarks.into_iter().collect();
    for row in rows {
        let Some(before) = row.settled.map(Position::next) else { continue };
        for name in names_of(endpoints, row.partition, count) {
            let front = furthest.entry(name).or_insert(before);
            *front = before.max(*front);
        }
    }
    Ok(furthest.into_iter().collect())
}
