//! What the surface asks of the administration of endpoints, and what comes of it.

use std::sync::Arc;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::api::answers::admin_answer::AdminAnswer;
use crate::api::requests::endpoint_pages::EndpointPage;
use crate::api::requests::field_kinds::FreeObject;

/// The way to the administration; empty while the slot is another walhook's.
pub(crate) type AdminSender = Arc<OnceLock<mpsc::Sender<AdminRequest>>>;

/// What is to be done, for whom, and where the outcome goes.
#[derive(Debug)]
pub(crate) struct AdminRequest {
    pub(crate) call: AdminCall,
    /// For the log and the books: where the request came from.
    pub(crate) who: String,
    pub(crate) outcome: oneshot::Sender<AdminOutcome>,
}

#[derive(Clone, Debug)]
pub(crate) enum AdminCall {
    List {
        page: EndpointPage,
    },
    Show {
        name: String,
    },
    Create {
        document: Value,
    },
    Replace {
        name: String,
        document: Value,
    },
    /// A JSON merge patch (RFC 7396).
    Patch {
        name: String,
        patch: Value,
    },
    Delete {
        name: String,
    },
    Switch {
        name: String,
        enabled: bool,
    },
    /// Nothing is sent and nothing is lost until it is resumed.
    Pause {
        name: String,
        paused: bool,
    },
    /// Another name; what waits goes along.
    Rename {
        name: String,
        to: String,
    },
    /// What waits is tried at once.
    TryNow {
        name: String,
    },
    /// Another secret, given or made; `overlap` is how long the one before goes on signing.
    Rotate {
        name: String,
        body: Value,
    },
    Test {
        name: String,
        wish: TestWish,
    },
    /// What `walhook check` finds, while walhook runs.
    Check,
    /// Each event type with the schema of its bodies.
    EventTypes,
    /// What events a row would raise, and what each endpoint would get.
    Try {
        trial: RowTrial,
    },
    /// These four: for clients of `wechat-messages`.
    WebhookConfig {
        document: Value,
    },
    WebhookList,
    WebhookTest {
        which: Option<String>,
    },
    WebhookUpdate {
        document: Value,
    },
}

impl AdminCall {
    /// Whether it changes which endpoints there are, or what they are.
    pub(crate) fn changes_endpoints(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::Replace { .. }
            | Self::Patch { .. }
            | Self::Delete { .. }
            | Self::Switch { .. }
            | Self::Pause { .. }
            | Self::Rename { .. }
            | Self::TryNow { .. }
            | Self::Rotate { .. }
            | Self::WebhookConfig { .. }
            | Self::WebhookUpdate { .. } => true,
            Self::List { .. }
            | Self::Show { .. }
            | Self::Test { .. }
            | Self::Check
            | Self::EventTypes
            | Self::Try { .. }
            | Self::WebhookList
            | Self::WebhookTest { .. } => false,
        }
    }
}

/// Of which event a test is; without a type, of any that the endpoint takes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, ToSchema)]
pub(crate) struct TestWish {
    /// Of this event; without it of any that the endpoint takes
    pub(crate) event_type: Option<String>,
    /// Of the row with this value in the first column of its primary key
    pub(crate) key: Option<String>,
}

/// A row to try events on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, ToSchema)]
pub(crate) struct RowTrial {
    /// Such as public.orders; without it that of the event type, or the first
    pub(crate) table: Option<String>,
    pub(crate) event_type: Option<String>,
    /// The row of the table with this value in the first column of its primary key
    pub(crate) key: Option<String>,
    /// A row that need not be there, by column
    pub(crate) row: Option<FreeObject>,
    /// What it was before, for an update
    pub(crate) old: Option<FreeObject>,
    /// insert, update, delete or read; without it all of them
    pub(crate) op: Option<String>,
}

pub(crate) type AdminOutcome = Result<AdminAnswer, AdminRefusal>;

/// Why a call was not answered as it was meant.
#[derive(Debug)]
pub(crate) struct AdminRefusal {
    pub(crate) status: u16,
    /// What is wrong, then what to do.
    pub(crate) detail: String,
    /// Each key that is wrong, with what is.
    pub(crate) errors: Vec<(String, String)>,
}

impl AdminRefusal {
    pub(crate) fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new() }
    }
}
