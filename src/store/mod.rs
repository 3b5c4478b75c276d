//! PostgreSQL: connections to it, and walhook's own state in it.
//!
//! ```text
//! settings ─▶ [dial] host list, sockets, TLS ─▶ ServerTransport ─┬─▶ [SqlSession] plain SQL, here
//!                                                           └─▶ replication::wire
//!
//! SqlSession ─▶ [migrate] ─▶ [progress] take the slot ─▶ [flush] one transaction per flush
//!                                                     [backlog] [dead_letters] [push_log] [books]
//! ```
//!
//! Both kinds of connection go through the same [`mod@dial`], so that a host list, an sslmode or a time
//! limit means the same for each of them. The login is [`session::login`]'s, the time limit for answers
//! [`session::answer_watch`]'s.
//!
//! The state is schema `walhook` (`sql/migrations`). Its statements are sent with their types and
//! without a name, each in one round trip, so nothing goes stale after a reconnect, and a transaction
//! pooler may stand in between. Those of each flush are prepared where none does:
//! [`session::prepared_statements`].
//!
//! | file | holds |
//! | --- | --- |
//! | `backfill_moves` | `walhook.backfill_moves` |
//! | `backfills` | `walhook.backfills` |
//! | `backlog` | The backlog |
//! | `body_codec` | Bodies as bytes |
//! | `books` | The books |
//! | `crash_records` | How the runs of a slot ended |
//! | `dead_letters` | Dead letters |
//! | `endpoint_answers` | What endpoints answered to events, as the push log has it |
//! | `endpoint_rows` | Which endpoint each row of the table of endpoints was |
//! | `endpoint_states` | What is known of endpoints beside their settings, wherever they were made |
//! | `endpoints` | Endpoints that were made at run time |
//! | `error_id` | The names under which docs/errors.md explains connections and the state |
//! | `error` | Why PostgreSQL could not be reached, or did not do what it was asked |
//! | `event_history` | One event wherever it is |
//! | `flush` | One flush of the ledger |
//! | `gaps` | `walhook.gaps` |
//! | `large_body` | Large bodies on their way into the state and out again: in pieces |
//! | `letter_groups` | Dead letters by the filter rather than by the page |
//! | `members` | The workers of a source |
//! | `messages` | What became of messages |
//! | `migrate` | Schema `walhook` |
//! | `operator_orders` | What operators have ordered, one row each |
//! | `overview` | What the state says of endpoints that are not well, and of what was given up |
//! | `ownership` | The right to write a slot's state |
//! | `partition_leases` | Who owns which partition of a source |
//! | `partitions` | The push log's days |
//! | `progress` | Where a slot stands, and the taking of the right to write for it |
//! | `push_log` | The push log |
//! | `push_totals` | The sums of all pushes of a slot, kept through restarts |
//! | `renames` | Another name for an endpoint: all that the state holds of it goes along |
//! | `replay_orders` | Delivered events on their way out again |
//! | `resend` | Dead letters on their way out again |
//! | `row_change` | The statement of a write-back, and its transaction in the source database |
//! | `sealed_secret` | Seals what must not be readable in the database |
//! | `seen_values` | Values that events were raised with, for as long as their `dedupe` remembers them |
//! | `session` | Sessions with PostgreSQL: from a URL to a connection that is watched |
//! | `shared_endpoints` | Endpoints that several members of a source change |
//! | `slot_owner` | Which configuration a slot belongs to, as far as it can be told from its events |
//! | `source_members` | Who delivers for a source, and what each has |
//! | `sql` | How walhook's words become SQL values and back, and what a statement takes as parameters |
//! | `state_error` | Why walhook's own state could not be read or written |
//! | `stored_event` | Events in columns |
//! | `write_backs` | The table of write-backs |

pub(crate) mod backfill_moves;
pub(crate) mod backfills;
pub(crate) mod backlog;
pub(crate) mod body_codec;
pub(crate) mod books;
pub(crate) mod crash_records;
pub(crate) mod dead_letters;
pub(crate) mod endpoint_answers;
pub(crate) mod endpoint_rows;
pub(crate) mod endpoint_states;
pub(crate) mod endpoints;
pub(crate) mod error;
mod error_id;
pub(crate) mod event_history;
pub(crate) mod flush;
pub(crate) mod gaps;
mod large_body;
pub(crate) mod letter_groups;
pub(crate) mod members;
pub(crate) mod messages;
pub(crate) mod migrate;
mod operator_orders;
pub(crate) mod overview;
pub(crate) mod ownership;
pub(crate) mod partition_leases;
pub(crate) mod partitions;
pub(crate) mod progress;
pub(crate) mod push_log;
pub(crate) mod push_totals;
pub(crate) mod renames;
pub(crate) mod replay_orders;
pub(crate) mod resend;
pub(crate) mod row_change;
pub(crate) mod sealed_secret;
pub(crate) mod seen_values;
pub(crate) mod session;
pub(crate) mod shared_endpoints;
pub(crate) mod slot_owner;
pub(crate) mod source_members;
mod sql;
pub(crate) mod state_error;
pub(crate) mod stored_event;
pub(crate) mod write_backs;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::config::SslMode;
use tokio_postgres::config::SslNegotiation;

use crate::config::settings::ServerSettings;
use crate::config::settings::SessionAttrs;
use crate::store::error::StoreError;
use crate::store::session::answer_watch::AnswerLimit;
use crate::store::session::answer_watch::BackendKeyPid;
use crate::store::session::dial;
use crate::store::session::dial::DialKind;
use crate::store::session::dial::dial;
use crate::store::session::prepared_statements::PreparedStatements;
use crate::store::session::transport::SecuredStream;
use crate::store::session::transport::ServerTransport;

/// What walhook calls itself in `pg_stat_activity` unless the URL says otherwise.
pub(crate) const APPLICATION_NAME: &str = "walhook";

/// How long a session that nobody limits otherwise waits for the next byte of an answer.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The same for sessions of a walhook that runs, whose questions are quick: a session that has gone dead
/// without a word is replaced within twice that.
pub(crate) const ANSWER_SOON: Duration = Duration::from_secs(15);

/// A plain SQL session. Its connection ends with it.
#[derive(Debug)]
pub struct SqlSession {
    pub client: Client,
    /// For the ledger's flushes.
    pub(crate) statements: PreparedStatements,
    answer_limit: AnswerLimit,
    /// The task that moves the bytes; dropped, and so aborted, together with the client.
    connection: JoinSet<()>,
}

impl SqlSession {
    /// Waits until the connection has ended, from whichever side.
    pub async fn ended(&mut self) {
        self.connection.join_next().await;
    }

    /// The session that `kept` has from the last time, unless it has ended, or a new one.
    ///
    /// It is taken out: a caller that has used it without an error puts it back, so that a new one follows an error.
    ///
    /// # Errors
    /// As [`connect_within()`].
    pub(crate) async fn take_or_connect(
        kept: &mut Option<Self>,
        server: &ServerSettings,
        limit: Duration,
    ) -> Result<Self, StoreError> {
        match kept.take() {
            Some(session) if !session.client.is_closed() => Ok(session),
            _ => connect_within(server, limit).await,
        }
    }

    /// From here on the next byte of an answer may take so long.
    pub fn answer_within(&self, limit: Duration) {
        self.answer_limit.set(limit);
    }
}

/// What no default of a role or a database may change, and what the URL's own `options` may: walhook
/// waits with limits of its own, and writes.
const PATIENT: [(&str, &str); 5] = [
    ("default_transaction_isolation", "read\\ committed"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
];

/// The same, where the server knows it; a start-up option that it does not know would be refused.
const TRANSACTION_TIMEOUT: (&str, u32) = ("transaction_timeout", 17);

/// Set from the start, unless `target_session_attrs` asks for the server's own default: then once that is
/// known.
pub(crate) const WRITABLE: (&str, &str) = ("default_transaction_read_only", "off");

/// What each plain SQL session has set, whatever the role or the database has as default: values are
/// written as the replication stream writes them.
///
/// Row security: a policy would hide rows in silence; without it the server says an error. Keepalives
/// have the server notice that we are gone, so that a lost session does not hold locks for hours.
const PINNED: [(&str, &str); 10] = [
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("standard_conforming_strings", "on"),
    ("row_security", "off"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// Where names of walhook's own statements are looked for: a schema of the user's must not shadow
/// what they mean.
pub(crate) const SEARCH_PATH: &str = "pg_catalog,pg_temp";

/// Opens a plain SQL session for walhook's own statements, in time zone UTC.
///
/// # Errors
/// Why no host of the list let us in; see [`StoreError`].
pub async fn connect(server: &ServerSettings) -> Result<SqlSession, StoreError> {
    connect_within(server, ANSWER_MAX).await
}

/// The same, for a session whose answers are waited for as long as `limit`.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn connect_within(
    server: &ServerSettings,
    limit: Duration,
) -> Result<SqlSession, StoreError> {
    connect_pinned(server, limit, &[("search_path", SEARCH_PATH)]).await
}

/// As [`connect_within()`], with the `search_path` that the role has: for statements that run the
/// user's own code, such as triggers and the functions of views.
///
/// # Errors
/// As [`connect()`].
pub(crate) async fn connect_with_own_path(
    server: &ServerSettings,
    limit: Duration,
) -> Result<SqlSession, StoreError> {
    connect_pinned(server, limit, &[]).await
}

/// Makes sure that a session has the settings that it asked for: a pooler that was told to ignore them, or that gives each
/// transaction another session, does not pass them on.
///
/// # Errors
/// [`StoreError::Pooler`], or that the server cannot be asked.
pub(crate) async fn is_direct(client: &Client) -> Result<(), StoreError> {
    let question = "SELECT pg_catalog.current_setting('row_security') = 'off'
                       AND pg_catalog.current_setting('TimeZone') = 'UTC'";
    let answer = client.simple_query(question).await?;
    let is_set = answer
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")));
    match is_set {
        true => Ok(()),
        false => {
            Err(StoreError::Pooler { what: "the session does not have its settings".to_owned() })
        }
    }
}

async fn connect_pinned(
    server: &ServerSettings,
    limit: Duration,
    more: &[(&str, &str)],
) -> Result<SqlSession, StoreError> {
    let user = dial::user(server)?;
    let mut server = server.clone();
    let is_any = server.attrs == SessionAttrs::Any;
    let params = &mut server.params;
    params.user(user);
    if params.get_application_name().is_none() {
        params.application_name(APPLICATION_NAME);
    }
    let given = params.get_options().unwrap_or_default();
    let set = |(name, value): &(&str, &str)| format!("-c {name}={value}");
    let mut options: Vec<String> = PATIENT.iter().map(set).collect();
    options.extend(is_any.then(|| set(&WRITABLE)));
    options.extend((!given.is_empty()).then(|| given.to_owned()));
    options.extend(PINNED.iter().chain(more).map(set));
    params.options(options.join(" "));
    dial(&server, |transport, server| log_in(transport, server, limit)).await
}

async fn log_in(
    transport: ServerTransport,
    server: Arc<ServerSettings>,
    limit: Duration,
) -> Result<SqlSession, StoreError> {
    let at = transport.at().to_owned();
    let answer_limit = AnswerLimit::new(limit);
    let process = BackendKeyPid::default();
    let transport = transport.answering_within(answer_limit.clone(), process.clone());
    let mut params = server.params.clone();
    // The transport is encrypted, or meant not to be, before tokio-postgres sees it. Direct
    // negotiation makes it take the stream as it is.
    params.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    let (client, connection) = params
        .connect_raw(transport, SecuredStream)
        .await
        .map_err(|error| StoreError::log_in(error, &server, &at))?;
    let (timeout, since) = TRANSACTION_TIMEOUT;
    let version = connection.parameter("server_version").and_then(major);
    let is_given = params.get_options().is_some_and(|options| options.contains(timeout));
    let mut running = JoinSet::new();
    running.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "a plain SQL connection ended");
        }
    });
    if version.is_some_and(|version| version >= since) && !is_given {
        client.batch_execute(&format!("SET {timeout} = 0")).await?;
    }
    if server.attrs != SessionAttrs::Any {
        let question = "SELECT pg_catalog.current_setting('transaction_read_only'), \
                        pg_catalog.pg_is_in_recovery()";
        let answer = client.simple_query(question).await?;
        let is = |column, word| {
            answer.iter().any(|message| {
                matches!(message, SimpleQueryMessage::Row(row) if row.get(column) == Some(word))
            })
        };
        let kind = DialKind { read_only: is(0, "on"), standby: is(1, "t") };
        dial::check_attrs(server.attrs, kind, &at)?;
        let (name, value) = WRITABLE;
        client.batch_execute(&format!("SET {name} = {value}")).await?;
    }
    let statements = PreparedStatements::new(process);
    Ok(SqlSession { client, statements, answer_limit, connection: running })
}

/// The first number of a version such as `17.2 (Debian 17.2-1)`.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
