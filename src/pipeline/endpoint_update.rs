//! What the pump is told between two changes of the stream: other endpoints, and that a table behind them
//! has changed.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::flow::change::CommittedChange;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::flow::watermark::EndpointsVersion;
use crate::lane::sender::LaneSender;
use crate::pipeline::endpoint_row_changes::ChangedRows;

/// Other endpoints, from the next change on. Lanes and ledger know of them.
#[derive(Debug)]
pub(crate) struct EndpointUpdate {
    pub(crate) edition: EndpointsVersion,
    /// Those that take events.
    pub(crate) takers: Vec<(EndpointIndex, Arc<Endpoint>)>,
    /// All that there are, to be counted for.
    pub(crate) counted: Vec<(EndpointIndex, Arc<str>)>,
    /// Lanes that are new.
    pub(crate) opened: Vec<(EndpointIndex, LaneSender)>,
    /// Endpoints that are no more: their lanes get nothing after what they have got.
    pub(crate) closed: Vec<EndpointIndex>,
    /// The events, if their filters, ages or payloads are others.
    pub(crate) events: Option<Arc<[EventRule]>>,
    /// Told once the pump keeps to it.
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
    /// Told when the endpoints are as it left them.
    pub(crate) done: oneshot::Sender<()>,
}
