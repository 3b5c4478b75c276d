//! Who delivers for a source that several processes share, as the API and `walhook members` show it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::requests::field_kinds::IsoTime;
use crate::store::source_members::MemberView;
use crate::store::source_members::SourceView;

/// Those who deliver for the source, and what each has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemberList {
    /// How many there are; null where no tail has shared the source
    pub(crate) partitions: Option<u16>,
    pub(crate) members: Vec<SourceMember>,
    /// Partitions that nobody delivers for
    pub(crate) unowned: Vec<i32>,
    /// Partitions in the hands of whoever has the slot
    pub(crate) at_source: Vec<i32>,
}

/// One who delivers, or did so a moment ago.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SourceMember {
    /// Version, host and process id
    name: String,
    /// Where its HTTP surface listens
    address: String,
    started_at: IsoTime,
    seen_at: IsoTime,
    /// Whether it was seen within the last 6 s
    is_alive: bool,
    /// Those that it delivers for
    partitions: Vec<i32>,
}

impl From<SourceView> for MemberList {
    fn from(view: SourceView) -> Self {
        let SourceView { partitions, members, unowned, at_source } = view;
        let members = members.into_iter().map(SourceMember::from).collect();
        Self { partitions, members, unowned, at_source }
    }
}

impl From<MemberView> for SourceMember {
    fn from(MemberView { row, partitions }: MemberView) -> Self {
        Self {
            name: row.name,
            address: row.address,
            started_at: IsoTime(row.started),
            seen_at: IsoTime(row.seen),
            is_alive: row.is_alive,
            partitions,
        }
    }
}
