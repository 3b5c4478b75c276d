//! What the surface asks of the backfill service, and what comes of it.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;

use axum::http::StatusCode;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::api::answers::problem::ProblemResponse;
use crate::flow::relation::TableName;
use crate::store::backfills::BackfillWish;
use crate::store::backfills::ReadOrder;
use crate::store::backfills::StoredBackfill;

/// The way to the service; empty while the slot is another walhook's.
pub(crate) type BackfillRequestSender = Arc<OnceLock<mpsc::Sender<BackfillRequest>>>;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum BackfillRequest {
    /// A row of the state has changed.
    Look,
    Order {
        wishes: Vec<TableWish>,
        /// Only looks at it.
        dry_run: bool,
        /// Counts the rows.
        count: bool,
        outcome: oneshot::Sender<Result<Vec<BackfillOffer>, BackfillRefusal>>,
    },
}

/// A table of an order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TableWish {
    pub table: TableName,
    pub filter: Option<String>,
    pub endpoints: Vec<Arc<str>>,
    pub event_type: Option<Arc<str>>,
    pub per_second: Option<u32>,
    /// `None`: along its key, if it has one.
    pub read_by: Option<ReadOrder>,
}

/// What a backfill of a table comes to.
#[derive(Clone, Debug)]
pub(crate) struct BackfillOffer {
    pub wish: BackfillWish,
    pub event_types: Vec<Arc<str>>,
    pub estimate: Option<u64>,
    pub counted: Option<u64>,
    /// As it was ordered.
    pub stored: Option<StoredBackfill>,
}

/// Why it is not ordered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BackfillRefusal {
    status: u16,
    detail: String,
}

impl BackfillRefusal {
    pub(crate) fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

impl fmt::Display for BackfillRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl From<BackfillRefusal> for ProblemResponse {
    fn from(refusal: BackfillRefusal) -> Self {
        let status = StatusCode::from_u16(refusal.status);
        Self::new(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), refusal.detail)
    }
}
