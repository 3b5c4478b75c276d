//! What the source is doing, for readiness, status and metrics: written by the source and the
//! pump, read by the API.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::flow::lsn::Lsn;
use crate::replication::retained_wal::WalView;

/// Changes do not really flow when the stream was silent or blocked for longer than this. The
/// server speaks at least every half `wal_sender_timeout`, at most every 30 s by its default.
const SILENCE_MAX: Duration = Duration::from_secs(35);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct StatusHandle {
    shared: Arc<StatusShared>,
}

#[derive(Debug)]
struct StatusShared {
    received: AtomicU64,
    confirmed: AtomicU64,
    reconnects: AtomicU64,
    connections: AtomicU64,
    state: Mutex<ReplicationState>,
}

#[derive(Debug)]
struct ReplicationState {
    connection: ConnectionState,
    /// Endpoints, books and calls are there, too.
    begun: bool,
    /// Why walhook stops.
    ending: Option<String>,
    /// Who is waited for, while PostgreSQL holds changes back until a standby has them.
    blocked: Option<String>,
    /// How changes are taken, if not as usual.
    mode: Option<String>,
    /// When the source last handed something over, a keepalive included.
    moved: Instant,
    server: ServerView,
    wal: Option<WalView>,
    holder: Option<SlotHolder>,
    /// What tables and publication lack; the stream goes on without it.
    problems: Vec<String>,
}

#[derive(Clone, Debug)]
enum ConnectionState {
    Starting,
    Streaming,
    /// Another walhook has the slot; the text says which.
    Standby(String),
    /// This one delivers for partitions, which the text names; another one has the slot.
    Delivering(String),
    /// Not connected; the text says why and what is being done.
    Waiting(String),
}

/// Who streams from the slot.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct SlotHolder {
    /// Whether it is this process.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// In a walhook's own words: version, host and process id.
    pub name: Option<String>,
    /// Since when, ISO 8601.
    pub since: Option<String>,
    pub application_name: Option<String>,
    /// `None` over a Unix socket, or if our role may not know.
    pub client_address: Option<String>,
    /// PostgreSQL's process for the connection.
    pub server_pid: Option<i32>,
}

/// The server at the other end.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ServerView {
    /// Such as `15.18`.
    pub version: String,
    /// Database system identifier.
    pub system: String,
    pub timeline: u32,
    pub slot: String,
    pub publication: String,
}

/// A copy of the status at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StatusView {
    /// `starting`, `standby`, `delivering` (for partitions, whose events come over a broker), `streaming`, `degraded` (streaming, and some events are not raised or
    /// lack values), `blocked` (PostgreSQL holds changes back until a standby has them), `waiting` or
    /// `stopping`.
    pub state: &'static str,
    /// Why it is not streaming, or what is degraded.
    pub reason: Option<String>,
    /// How changes are taken, if not as usual.
    pub mode: Option<String>,
    /// What tables and publication lack for the configuration, each with its fix.
    pub problems: Vec<String>,
    pub received_lsn: String,
    pub confirmed_lsn: String,
    pub reconnects: u64,
    #[serde(flatten)]
    pub server: ServerView,
    pub wal: Option<WalView>,
    /// `None` while nobody holds the slot, or nobody has looked yet.
    pub holder: Option<SlotHolder>,
}

impl Default for StatusHandle {
    fn default() -> Self {
        let state = ReplicationState {
            connection: ConnectionState::Starting,
            begun: false,
            ending: None,
            blocked: None,
            mode: None,
            moved: Instant::now(),
            server: ServerView::default(),
            wal: None,
            holder: None,
            problems: Vec::new(),
        };
        Self {
            shared: Arc::new(StatusShared {
                received: AtomicU64::new(0),
                confirmed: AtomicU64::new(0),
                reconnects: AtomicU64::new(0),
                connections: AtomicU64::new(0),
                state: Mutex::new(state),
            }),
        }
    }
}

impl StatusHandle {
    fn change(&self, change: impl FnOnce(&mut ReplicationState)) {
        // A panic elsewhere leaves plain values behind, which are as good as before.
        change(&mut self.shared.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn streaming(&self, server: ServerView) {
        // Before anything is heard of it.
        self.shared.connections.fetch_add(1, Ordering::Release);
        self.change(|state| {
            if matches!(state.connection, ConnectionState::Waiting(_)) {
                self.shared.reconnects.fetch_add(1, Ordering::Relaxed);
            }
            state.connection = ConnectionState::Streaming;
            state.blocked = None;
            state.moved = Instant::now();
            state.server = server;
        });
    }

    /// All of walhook runs: endpoints, books and calls are there.
    pub(crate) fn begun(&self) {
        self.change(|state| state.begun = true);
    }

    /// walhook stops; the first `reason` is said until the end, and holds no secret.
    pub(crate) fn ending(&self, reason: String) {
        self.change(|state| {
            state.ending.get_or_insert(reason);
        });
    }

    /// PostgreSQL holds changes back for a standby, or does not any more (`None`). Whether that is news.
    pub(crate) fn blocked(&self, reason: Option<String>) -> bool {
        let mut is_news = false;
        self.change(|state| {
            is_news = state.blocked.is_some() != reason.is_some();
            state.blocked = reason;
        });
        is_news
    }

    /// Changes are taken in another way than usual; `None`: as usual.
    pub(crate) fn mode(&self, mode: Option<String>) {
        self.change(|state| state.mode = mode);
    }

    /// The connection is lost; `reason` is the error's chain and holds no secret.
    pub(crate) fn waiting(&self, reason: String) {
        self.change(|state| state.connection = ConnectionState::Waiting(reason));
    }

    /// Another walhook has the slot; `reason` names it.
    pub(crate) fn standby(&self, reason: String) {
        self.change(|state| state.connection = ConnectionState::Standby(reason));
    }

    /// Another walhook has the slot, and this one delivers; `what` names its partitions.
    pub(crate) fn delivering(&self, what: String) {
        self.change(|state| state.connection = ConnectionState::Delivering(what));
    }

    pub(crate) fn holder(&self, holder: Option<SlotHolder>) {
        self.change(|state| state.holder = holder);
    }

    /// What tables and publication lack for the configuration; nothing if all is well.
    pub(crate) fn problems(&self, problems: Vec<String>) {
        self.change(|state| state.problems = problems);
    }

    /// Something arrived and was taken.
    pub(crate) fn moved(&self, received: Lsn) {
        self.shared.received.fetch_max(received.raw(), Ordering::Relaxed);
        self.change(|state| state.moved = Instant::now());
    }

    /// The number of the stream's connection, and how far the stream has been heard.
    pub(crate) fn heard(&self) -> (u64, Lsn) {
        let connection = self.shared.connections.load(Ordering::Acquire);
        (connection, Lsn::from_raw(self.shared.received.load(Ordering::Relaxed)))
    }

    pub(crate) fn confirmed(&self, confirmed: Lsn) {
        self.shared.confirmed.fetch_max(confirmed.raw(), Ordering::Relaxed);
    }

    pub(crate) fn wal(&self, wal: WalView) {
        self.change(|state| state.wal = Some(wal));
    }

    pub(crate) fn is_streaming(&self) -> bool {
        let mut streaming = false;
        self.change(|state| streaming = matches!(state.connection, ConnectionState::Streaming));
        streaming
    }

    /// Whether this one stands by for another walhook that has the slot. One that is kept from a slot that
    /// nobody has is no standby for anybody.
    pub(crate) fn is_standby(&self) -> bool {
        let mut standby = false;
        self.change(|state| {
            let waits = matches!(state.connection, ConnectionState::Standby(_));
            let for_other = state.holder.as_ref().is_some_and(|holder| !holder.is_self);
            standby = waits && for_other && state.ending.is_none();
        });
        standby
    }

    /// # Errors
    /// Why changes do not flow at the moment.
    pub(crate) fn readiness(&self, now: Instant) -> Result<(), String> {
        let mut answer = Ok(());
        self.change(|state| {
            if let Some(reason) = &state.ending {
                answer = Err(reason.clone());
                return;
            }
            answer = match &state.connection {
                ConnectionState::Streaming if !state.begun => {
                    Err(String::from("starting: the state is being taken up"))
                }
                ConnectionState::Starting => Err(String::from("not connected to PostgreSQL yet")),
                ConnectionState::Delivering(_) => Ok(()),
                ConnectionState::Standby(reason) | ConnectionState::Waiting(reason) => {
                    Err(reason.clone())
                }
                ConnectionState::Streaming => {
                    if let Some(blocked) = &state.blocked {
                        answer = Err(blocked.clone());
                        return;
                    }
                    let silent = now.saturating_duration_since(state.moved);
                    if silent > SILENCE_MAX {
                        let seconds = silent.as_secs();
                        Err(format!(
                            "nothing was taken from PostgreSQL for {seconds} s: an endpoint's \
                             queue is full and does not move, or the server is silent"
                        ))
                    } else {
                        degraded(&state.problems).map_or(Ok(()), Err)
                    }
                }
            }
        });
        answer
    }

    pub(crate) fn view(&self) -> StatusView {
        let lsn = |raw: &AtomicU64| Lsn::from_raw(raw.load(Ordering::Relaxed)).to_string();
        let mut view = StatusView {
            state: "starting",
            reason: None,
            mode: None,
            problems: Vec::new(),
            received_lsn: lsn(&self.shared.received),
            confirmed_lsn: lsn(&self.shared.confirmed),
            reconnects: self.shared.reconnects.load(Ordering::Relaxed),
            server: ServerView::default(),
            wal: None,
            holder: None,
        };
        self.change(|state| {
            (view.state, view.reason) = match &state.connection {
                ConnectionState::Starting => ("starting", None),
                ConnectionState::Streaming if state.blocked.is_some() => {
                    ("blocked", state.blocked.clone())
                }
                ConnectionState::Streaming => match degraded(&state.problems) {
                    None => ("streaming", None),
                    reason => ("degraded", reason),
                },
                ConnectionState::Standby(reason) => ("standby", Some(reason.clone())),
                ConnectionState::Delivering(what) => ("delivering", Some(what.clone())),
                ConnectionState::Waiting(reason) => ("waiting", Some(reason.clone())),
            };
            if let Some(reason) = &state.ending {
                (view.state, view.reason) = ("stopping", Some(reason.clone()));
            }
            view.mode = state.mode.clone();
            view.problems.clone_from(&state.problems);
            view.server = state.server.clone();
            view.wal = state.wal.clone();
            view.holder = state.holder.clone();
        });
        view
    }
}

/// The first problem, and how many more there are.
fn degraded(problems: &[String]) -> Option<String> {
    let first = problems.first()?;
    Some(match problems.len() {
        1 => first.clone(),
        count => format!("{first} (and {} more, see /api/v1/status)", count - 1),
    })
}

#[cfg(test)]
mod tests;
