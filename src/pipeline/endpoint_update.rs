//! What the pump is told between two changes of the stream: other endpoints, and that a table behind them
//! has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::flow::change::CommittedChange;
use crate::flow::pump_report::EndpointsVersion;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::lane::sender::LaneSender;
use crate::pipeline::endpoint_row_changes::ChangedRows;

/// Other endpoints, from the next change on. Lanes and ledger know of them.
#[derive(Debug)]
pub(crate) struct EndpointUpdate {
    pub(crate) endpoints_version: EndpointsVersion,
    /// Those that take events.
    pub(crate) takers: Vec<(EndpointIndex, Arc<Endpoint>)>,
    /// All that there are, to be counted for.
    pub(crate) counted: Vec<(EndpointIndex, Arc<str>)>,
    /// Those of them that the configuration file does not have.
    pub(crate) made: Vec<EndpointIndex>,
    /// Endpoints that there were: what still comes for them becomes dead letters.
    pub(crate) tombstones: Vec<(EndpointIndex, Arc<str>)>,
    /// Lanes that are new.
    pub(crate) opened: Vec<(EndpointIndex, LaneSender)>,
    /// Endpoints that are no more: their lanes get nothing after what they have got.
    pub(crate) closed: Vec<EndpointIndex>,
    /// The events, if their filters, ages or payloads are others.
    pub(crate) events: Option<Arc<[EventRule]>>,
    /// The pump answers here once it keeps to it.
    pub(crate) taken: oneshot::Sender<()>,
}

/// The tables behind `[endpoints_from]`.
pub(crate) struct WatchedTables {
    /// Where the rows are read.
    pub(crate) of_rows: TableName,
    pub(crate) tables: Vec<TableName>,
    pub(crate) refreshes: mpsc::Sender<RefreshRequest>,
    /// What the transaction that is being read has changed of them.
    pub(crate) changed: ChangedRows,
}

impl WatchedTables {
    /// Takes in a change of the stream.
    pub(crate) fn note(&mut self, change: &CommittedChange) {
        let table = &change.relation.table;
        if !self.tables.contains(table) {
            return;
        }
        match *table == self.of_rows {
            true => self.changed.note(change),
            // Which rows of a view this changes is its own matter.
            false => self.changed = ChangedRows::All,
        }
    }
}

/// A transaction has changed the table.
#[derive(Debug)]
pub(crate) struct RefreshRequest {
    /// Its id, as the stream has it.
    pub(crate) xid: u32,
    pub(crate) rows: ChangedRows,
    /// The follower of the table answers here when the endpoints are as it left them.
    pub(crate) done: oneshot::Sender<()>,
}

/// How much a member knows of the endpoints that several change: each change has a number. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownVersion(Arc<KnownCounters>);

#[derive(Debug, Default)]
struct KnownCounters {
    version: AtomicI64,
    /// The version that the last change of this member has made, which is not known to hold yet.
    written: AtomicI64,
    /// What events say that are routed from here on.
    stamp: AtomicI64,
    is_conflict: AtomicBool,
}

impl KnownVersion {
    pub(crate) fn get(&self) -> i64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Everything up to this one holds here.
    pub(crate) fn set(&self, version: i64) {
        self.0.version.store(version, Ordering::Release);
        self.0.written.store(version, Ordering::Release);
        self.stamp(version);
    }

    /// The version on which the next change of this member depends.
    pub(crate) fn base(&self) -> i64 {
        self.0.written.load(Ordering::Acquire)
    }

    /// A change of this member has made this version. It holds here when it has been looked at.
    pub(crate) fn written(&self, version: i64) {
        self.0.written.store(version, Ordering::Release);
        self.stamp(version);
    }

    /// Owners of partitions have to know as much of what is routed from here on.
    pub(crate) fn stamp(&self, version: i64) {
        self.0.stamp.fetch_max(version, Ordering::AcqRel);
    }

    pub(super) fn stamped(&self) -> i64 {
        self.0.stamp.load(Ordering::Acquire)
    }

    /// Whether another member was quicker than the last change.
    pub(crate) fn note_conflict(&self, is_conflict: bool) {
        self.0.is_conflict.store(is_conflict, Ordering::Relaxed);
    }

    /// Whether one was, since it was asked the last time.
    pub(crate) fn had_conflict(&self) -> bool {
        self.0.is_conflict.swap(false, Ordering::Relaxed)
    }
}

/// Endpoints that the state or the table of `[endpoints_from]` has and a member does not serve, and why.
pub(crate) type UnservedEndpoints = Arc<BTreeMap<Arc<str>, String>>;

/// What a look at the state has found, or why none was possible.
pub(crate) type LookOutcome = Result<UnservedEndpoints, String>;

/// An event has come that was routed by what its partition's owner does not know: others have made, changed or
/// removed endpoints.
#[derive(Debug)]
pub(crate) struct EndpointLookup {
    /// Those that are not known.
    pub(crate) names: Vec<Arc<str>>,
    /// How much has to be known.
    pub(crate) version: i64,
    /// The mirror answers here when it knows what each of them is, or why one cannot be served.
    pub(crate) done: oneshot::Sender<Result<(), String>>,
}
