//! Who delivers for a source, what each has, and what nobody has, as the state has it at one moment.

use std::time::Duration;

use tokio_postgres::Client;

use crate::store::members;
use crate::store::members::MemberRow;
use crate::store::partition_leases;
use crate::store::partition_leases::PartitionRow;
use crate::store::shared_endpoints;
use crate::store::state_error::StateError;

/// A member that was not seen for so long does not deliver.
pub(crate) const MEMBER_ALIVE: Duration = Duration::from_secs(6);

/// Who delivers for a source, and what each has.
pub(crate) struct SourceView {
    /// How many partitions there are; `None` where no tail has run.
    pub(crate) partitions: Option<u16>,
    pub(crate) members: Vec<MemberView>,
    pub(crate) unowned: Vec<i32>,
    /// In the hands of the slot's holder.
    pub(crate) at_source: Vec<i32>,
}

/// One who delivers, or did so a moment ago.
pub(crate) struct MemberView {
    pub(crate) row: MemberRow,
    pub(crate) partitions: Vec<i32>,
}

/// The partitions of a source that several processes share.
pub(crate) struct SharedPartitions {
    pub(crate) count: u16,
    /// Nobody delivers for them: their events wait in the broker, or a tail parks them.
    pub(crate) unowned: Vec<i32>,
}

/// Looks which partitions nobody delivers for; `None` where nobody shares the source.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn shared_partitions(
    client: &Client,
    slot: &str,
) -> Result<Option<SharedPartitions>, StateError> {
    if shared_endpoints::look(client, slot).await?.is_none() {
        return Ok(None); // the slot's holder delivers for all of them
    }
    let source = partition_leases::source(client, slot).await?;
    let Some(count) = source.and_then(|(count, ..)| count) else { return Ok(None) };
    let rows = partition_leases::rows(client, slot).await?;
    let unowned = rows.iter().filter(|row| !row.is_leased).map(|row| row.partition.raw());
    Ok(Some(SharedPartitions { count, unowned: unowned.collect() }))
}

/// Looks who delivers.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn load(client: &Client, slot: &str) -> Result<SourceView, StateError> {
    let source = partition_leases::source(client, slot).await?;
    let rows = partition_leases::rows(client, slot).await?;
    let numbers = |wanted: &dyn Fn(&PartitionRow) -> bool| {
        rows.iter().filter(|row| wanted(row)).map(|row| row.partition.raw()).collect::<Vec<_>>()
    };
    let members = members::load(client, slot, MEMBER_ALIVE).await?;
    let members = members.into_iter().map(|row| MemberView {
        partitions: numbers(&|of| of.is_leased && of.member.as_ref() == Some(&row.member)),
        row,
    });
    Ok(SourceView {
        partitions: source.and_then(|(count, ..)| count),
        members: members.collect(),
        unowned: numbers(&|row| !row.at_source && !row.is_leased),
        at_source: numbers(&|row| row.at_source),
    })
}
