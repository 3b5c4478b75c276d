//! The names under which docs/errors.md explains what does not allow the work: stable, for scripts and searches.

use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::gap::GapCause;
use crate::replication::schema_fault::SchemaFault;

impl SetupDiagnostic {
    /// No `_` arm: each new variant must be named, and a test asks for its section in docs/errors.md.
    pub fn id(&self) -> &'static str {
        match self {
            Self::ServerTooOld { .. } => "server-too-old",
            Self::Standby { .. } => "server-is-standby",
            Self::NoFailover { .. } => "no-failover",
            Self::WalLevel { .. } => "wal-level",
            Self::NoReplicationRight { .. } => "no-replication-right",
            Self::NoFreeWalSender { .. } => "no-free-walsender",
            Self::NoFreeSlot { .. } => "no-free-slot",
            Self::NoUsage { .. } => "no-usage",
            Self::NoSelect { .. } => "no-select",
            Self::MissingTable { .. } => "missing-table",
            Self::NotATable { .. } => "not-a-table",
            Self::NotLogged { .. } => "not-logged",
            Self::MissingColumn { .. } => "missing-column",
            Self::NoIdentity { .. } => "no-identity",
            Self::Schema(fault) => fault.id(),
            Self::NoPublication { .. } => "no-publication",
            Self::NotPrepared { .. } => "not-prepared",
            Self::NeedsOldRow { .. } => "needs-old-row",
            Self::EndpointLacks { .. } => "endpoint-lacks",
            Self::EndpointsTable { .. } => "endpoints-table",
            Self::CallbackTable { .. } => "callback-table",
            Self::Backfill { .. } => "backfill",
            Self::WriteBack { .. } => "write-back",
            Self::RowSecurity { .. } => "row-security",
            Self::NoState { .. } => "no-state",
            Self::PublicationLacks { .. } => "publication-lacks",
            Self::PublicationGone { .. } => "publication-gone",
            Self::WrongPlugin { .. } => "wrong-plugin",
            Self::SlotElsewhere { .. } => "slot-elsewhere",
            Self::SlotInUse { .. } => "slot-in-use",
            Self::SlotBlocked { .. } => "slot-blocked",
            Self::SlotLost { .. } => "slot-lost",
            Self::SlotMissing { .. } => "slot-missing",
            Self::Gap(gap) => gap.cause.id(),
            Self::SlotOfOther { .. } => "slot-of-other",
            Self::PublicationOfOther { .. } => "publication-of-other",
            Self::OtherPublication { .. } => "other-publication",
            Self::OtherSystem { .. } => "other-system",
        }
    }
}

impl SchemaFault {
    /// As [`SetupDiagnostic::id`].
    pub fn id(&self) -> &'static str {
        match self {
            Self::Unidentified { .. } => "unidentified",
            Self::PartitionKey { .. } => "partition-key",
            Self::TwoLevels { .. } => "two-levels",
            Self::Unsent { .. } => "unsent-column",
            Self::BreaksWrites { .. } => "breaks-writes",
            Self::Narrowed { .. } => "narrowed",
        }
    }
}

impl GapCause {
    /// As [`SetupDiagnostic::id`].
    pub fn id(&self) -> &'static str {
        match self {
            Self::SlotGone { .. } => "gap-slot-gone",
            Self::SlotMadeAgain { .. } => "gap-slot-made-again",
            Self::SlotMoved { .. } => "gap-slot-moved",
            Self::StateUnknown { .. } => "gap-state-unknown",
            Self::ServerBehind { .. } => "gap-server-behind",
            Self::OtherHistory { .. } => "gap-other-history",
            Self::PublicationMadeAgain { .. } => "gap-publication-made-again",
            Self::TablesLeft { .. } => "gap-tables-left",
        }
    }
}
