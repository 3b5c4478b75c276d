//! PostgreSQL: connections to it, and walhook's own state in it.
//!
//! ```text
//! settings ─▶ [dial] host list, sockets, TLS ─▶ Transport ─┬─▶ [Session] plain SQL, here
//!                                                           └─▶ source::wire, replication
//!
//! Session ─▶ [migrate] ─▶ [progress] take the slot ─▶ [flush] one transaction per flush
//!                                                     [backlog] [dead_letters] [push_log] [books]
//! ```
//!
//! Both kinds of connection go through the same [`mod@dial`], so that a host list, an sslmode or a time
//! limit means the same for each of them.
//!
//! The state is schema `walhook` (`sql/migrations`). Its statements are sent with their types and
//! without a name, each in one round trip: nothing is prepared, so nothing goes stale after a
//! reconnect, and a transaction pooler may stand in between.

pub mod backlog;
pub mod body_codec;
pub mod books;
pub mod dead_letters;
pub mod desk;
pub mod dial;
pub mod endpoints;
pub mod error;
pub mod flush;
pub mod migrate;
pub mod partitions;
pub mod progress;
pub mod push_log;
pub mod replays;
pub mod resend;
pub mod row_change;
pub mod runs;
pub mod seal;
pub mod seen_values;
mod sql;
pub mod state_error;
pub mod stored_event;
pub mod tls;
pub mod transport;
pub mod write_backs;

use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::config::SslMode;
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::config::TargetSessionAttrs;

use crate::config::settings::Server;
use crate::store::dial::dial;
use crate::store::error::StoreError;
use crate::store::transport::Secured;
use crate::store::transport::Transport;

/// What walhook calls itself in `pg_stat_activity` unless the URL says otherwise.
pub const APPLICATION_NAME: &str = "walhook";

/// A plain SQL session. Its connection ends with it.
#[derive(Debug)]
pub struct Session {
    pub client: Client,
    /// The task that moves the bytes; dropped, and so aborted, together with the client.
    connection: JoinSet<()>,
}

impl Session {
    /// Waits until the connection has ended, from whichever side.
    pub async fn ended(&mut self) {
        self.connection.join_next().await;
    }
}

/// Opens a plain SQL session in time zone UTC.
///
/// # Errors
/// Why no host of the list let us in; see [`StoreError`].
pub async fn connect(server: &Server) -> Result<Session, StoreError> {
    let user = dial::user(server)?;
    let mut params = server.params.clone();
    params.user(user);
    if params.get_application_name().is_none() {
        params.application_name(APPLICATION_NAME);
    }
    let given = params.get_options().unwrap_or_default();
    params.options(format!("{given} -c TimeZone=UTC").trim_start().to_owned());
    // The transport is encrypted, or meant not to be, before tokio-postgres sees it. Direct
    // negotiation makes it take the stream as it is.
    params.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    dial(server, |transport| log_in(transport, &params, server)).await
}

async fn log_in(
    transport: Transport,
    params: &tokio_postgres::Config,
    server: &Server,
) -> Result<Session, StoreError> {
    let at = transport.at().to_owned();
    let (client, connection) = params
        .connect_raw(transport, Secured)
        .await
        .map_err(|error| StoreError::log_in(error, server, &at))?;
    let mut running = JoinSet::new();
    running.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "a plain SQL connection ended");
        }
    });
    let attrs = server.params.get_target_session_attrs();
    if attrs != TargetSessionAttrs::Any {
        let answer = client.simple_query("SHOW transaction_read_only").await?;
        let read_only = answer.iter().any(
            |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on")),
        );
        dial::check_attrs(attrs, read_only, &at)?;
    }
    Ok(Session { client, connection: running })
}
