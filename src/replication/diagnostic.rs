//! What about a server, a slot or a table does not allow the work, and the way out.
//!
//! The same values are the errors of a start and the findings of a check, so that both say the same.

mod wording;

use std::fmt;

use crate::flow::exit_status::ExitStatus;
use crate::flow::lsn::Lsn;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::replication::gap::ChangeGap;
use crate::replication::managed_service::ManagedService;
use crate::replication::schema_fault::SchemaFault;

/// One thing about the server, the slot or the tables that does not allow the work.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SetupDiagnostic {
    ServerTooOld {
        version: String,
    },
    /// Standbys can decode since PostgreSQL 16.
    Standby {
        version: u32,
    },
    /// `[postgres] failover`, and the server is too old, or a standby itself.
    NoFailover {
        version: u32,
        standby: bool,
    },
    /// `service`: where it is known to be one.
    WalLevel {
        level: String,
        service: Option<ManagedService>,
    },
    NoReplicationRight {
        role: String,
        service: Option<ManagedService>,
    },
    /// `max` is missing where PostgreSQL does not say whether walsenders or connections ran out.
    NoFreeWalSender {
        max: Option<u32>,
    },
    NoFreeSlot {
        max: u32,
    },
    NoUsage {
        schema: String,
        role: String,
    },
    NoSelect {
        table: TableName,
        role: String,
    },
    MissingTable {
        table: TableName,
        /// Which key of the configuration names it, and where.
        named_in: Box<str>,
        nearest: Option<TableName>,
    },
    NotATable {
        table: TableName,
        kind: &'static str,
    },
    NotLogged {
        table: TableName,
        temporary: bool,
    },
    MissingColumn {
        table: TableName,
        column: String,
        /// Which key of the configuration names it, and where.
        named_in: Box<str>,
        nearest: Option<String>,
    },
    /// Publishing its updates or deletes would make them fail for the application.
    NoIdentity {
        table: TableName,
    },
    /// How a table is defined, or what the publication covers.
    Schema(Box<SchemaFault>),
    /// `sql` is for the owner of the tables or a superuser.
    NoPublication {
        publication: String,
        role: String,
        sql: String,
    },
    /// `walhook run` would run `sql`; a command that only looks on makes nothing.
    NotPrepared {
        publication: String,
        sql: String,
    },
    /// An event's filter asks for values that PostgreSQL does not send.
    NeedsOldRow {
        event: String,
        /// The key of the configuration that asks for them.
        key: &'static str,
        /// The table that holds the rows: a partition, for one.
        table: TableName,
        sql: String,
    },
    /// An endpoint's filter or payload asks, for every event that it takes, for what its row does not
    /// have.
    EndpointLacks {
        /// `endpoint NAME`, or the section that is for many.
        whose: String,
        /// The key of the configuration that asks for it.
        key: &'static str,
        what: String,
        fix: String,
    },
    /// The rows that are endpoints cannot be read.
    EndpointsTable {
        table: String,
        what: String,
        fix: String,
    },
    /// A source's callbacks could not be kept.
    CallbackTable {
        source: String,
        what: String,
        fix: String,
    },
    /// Rows that a backfill is to send cannot be read.
    Backfill {
        /// `event TYPE`, or the section that says where rows are read.
        whose: String,
        what: String,
        fix: String,
    },
    /// PostgreSQL would refuse what an event's `write_back` asks for.
    WriteBack {
        event: String,
        what: String,
        fix: String,
    },
    /// Rows that walhook reads or writes beside the stream would be hidden from it, or from the owner of
    /// a view or function that it uses.
    RowSecurity {
        /// What the rows are for.
        whose: String,
        /// The server's words; they name the table.
        what: String,
        role: String,
    },
    /// walhook's own tables cannot be made.
    NoState {
        role: String,
        sql: String,
    },
    PublicationLacks {
        publication: String,
        lacks: String,
        sql: String,
    },
    /// The slot stands before the publication's creation: PostgreSQL cannot decode from there.
    PublicationGone {
        /// There is one of nearly this name.
        nearest: Option<String>,
        since: Option<Timestamp>,
        publication: String,
        slot: String,
        /// Where the slot stands.
        from: Option<Lsn>,
    },
    WrongPlugin {
        slot: String,
        plugin: String,
    },
    SlotElsewhere {
        slot: String,
        database: String,
    },
    SlotInUse {
        slot: String,
        pid: Option<i32>,
    },
    /// Old transactions keep PostgreSQL from finding a starting point for the slot.
    SlotBlocked {
        slot: String,
    },
    SlotLost {
        slot: String,
        confirmed: Lsn,
        /// When the last transaction before that was committed.
        since: Option<Timestamp>,
        reason: String,
    },
    /// It was there, or should be, and is not.
    SlotMissing {
        slot: String,
    },
    /// The state and the server do not meet.
    Gap(ChangeGap),
    /// The slot is another system's.
    SlotOfOther {
        slot: String,
        /// Events of the one that has read it, and of this one.
        theirs: String,
        ours: String,
        /// In its own words.
        holder: String,
    },
    /// Another configuration reads through the publication, and this one would have to change it.
    PublicationOfOther {
        publication: String,
        slot: String,
        theirs: String,
    },
    /// The slot was read through another publication, which is still there.
    OtherPublication {
        publication: String,
        slot: String,
        known: String,
    },
    /// The server at this address is not the one that we were connected to.
    OtherSystem {
        expected: u64,
        found: u64,
        /// Up to here the one before is known.
        from: Option<Lsn>,
        /// From here on this one sends, if it has the slot. Positions of two systems cannot be compared.
        to: Option<Lsn>,
    },
}

impl SetupDiagnostic {
    /// Whether waiting can help. No `_` arm: each new variant must be answered for.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::SlotInUse { .. } | Self::SlotBlocked { .. } | Self::NoFreeWalSender { .. } => {
                true
            }
            Self::ServerTooOld { .. }
            | Self::Standby { .. }
            | Self::NoFailover { .. }
            | Self::WalLevel { .. }
            | Self::NoReplicationRight { .. }
            | Self::NoFreeSlot { .. }
            | Self::NoUsage { .. }
            | Self::NoSelect { .. }
            | Self::MissingTable { .. }
            | Self::NotATable { .. }
            | Self::NotLogged { .. }
            | Self::MissingColumn { .. }
            | Self::NoIdentity { .. }
            | Self::Schema(_)
            | Self::NoPublication { .. }
            | Self::NoState { .. }
            | Self::NeedsOldRow { .. }
            | Self::EndpointLacks { .. }
            | Self::EndpointsTable { .. }
            | Self::CallbackTable { .. }
            | Self::Backfill { .. }
            | Self::WriteBack { .. }
            | Self::RowSecurity { .. }
            | Self::NotPrepared { .. }
            | Self::PublicationLacks { .. }
            | Self::PublicationGone { .. }
            | Self::WrongPlugin { .. }
            | Self::SlotElsewhere { .. }
            | Self::SlotLost { .. }
            | Self::SlotMissing { .. }
            | Self::Gap(_)
            | Self::SlotOfOther { .. }
            | Self::PublicationOfOther { .. }
            | Self::OtherPublication { .. }
            | Self::OtherSystem { .. } => false,
        }
    }

    /// 4 if changes are lost, 3 otherwise.
    pub fn exit(&self) -> ExitStatus {
        match self {
            Self::SlotLost { .. }
            | Self::SlotMissing { .. }
            | Self::PublicationGone { nearest: None, .. }
            | Self::Gap(_)
            | Self::OtherSystem { .. } => ExitStatus::SlotLost,
            // Most likely a slip, which loses nothing.
            Self::PublicationGone { nearest: Some(_), .. }
            | Self::SlotOfOther { .. }
            | Self::PublicationOfOther { .. }
            | Self::OtherPublication { .. }
            | Self::ServerTooOld { .. }
            | Self::Standby { .. }
            | Self::NoFailover { .. }
            | Self::WalLevel { .. }
            | Self::NoReplicationRight { .. }
            | Self::NoFreeWalSender { .. }
            | Self::NoFreeSlot { .. }
            | Self::NoUsage { .. }
            | Self::NoSelect { .. }
            | Self::MissingTable { .. }
            | Self::NotATable { .. }
            | Self::NotLogged { .. }
            | Self::MissingColumn { .. }
            | Self::NoIdentity { .. }
            | Self::Schema(_)
            | Self::NoPublication { .. }
            | Self::NoState { .. }
            | Self::NeedsOldRow { .. }
            | Self::EndpointLacks { .. }
            | Self::EndpointsTable { .. }
            | Self::CallbackTable { .. }
            | Self::Backfill { .. }
            | Self::WriteBack { .. }
            | Self::RowSecurity { .. }
            | Self::NotPrepared { .. }
            | Self::PublicationLacks { .. }
            | Self::WrongPlugin { .. }
            | Self::SlotElsewhere { .. }
            | Self::SlotInUse { .. }
            | Self::SlotBlocked { .. } => ExitStatus::Postgres,
        }
    }
}

impl From<SchemaFault> for SetupDiagnostic {
    fn from(fault: SchemaFault) -> Self {
        Self::Schema(Box::new(fault))
    }
}

impl fmt::Display for SetupDiagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.fix())
    }
}

impl std::error::Error for SetupDiagnostic {}
