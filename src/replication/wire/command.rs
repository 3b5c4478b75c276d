//! The commands of a replication connection: identify the system, make a slot, start streaming.
//!
//! All go over the simple query protocol (PostgreSQL manual, "Streaming Replication Protocol").
//! When a command fails, the reason is looked up in the catalog over the same connection: error
//! texts differ between versions and languages, catalog columns do not.

pub(crate) mod slot_commands;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::backend;
use postgres_protocol::message::frontend;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadHalf;
use tokio::io::WriteHalf;
use tokio_postgres::error::SqlState;

use crate::config::settings::ServerSettings;
use crate::config::settings::SessionAttrs;
use crate::flow::budget::MemoryBudget;
use crate::flow::lsn::Lsn;
use crate::flow::quote;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::wire::feedback;
use crate::replication::wire::feedback::FeedbackWriter;
use crate::replication::wire::frame::FrameLimits;
use crate::replication::wire::frame::FrameReader;
use crate::replication::wire::heard::LastHeard;
use crate::replication::wire::message::BackendMessage;
use crate::replication::wire::message::ServerConversation;
use crate::replication::wire::message::server_error;
use crate::replication::wire::message::unexpected;
use crate::replication::wire::row::TextRow;
use crate::replication::wire::row::leading_number;
use crate::replication::wire::row::number;
use crate::replication::wire::row::row;
use crate::replication::wire::row::text;
use crate::replication::wire::startup;
use crate::store;
use crate::store::WRITABLE;
use crate::store::error::StoreError;
use crate::store::error::server_error::ServerError;
use crate::store::session::dial;
use crate::store::session::dial::DialKind;
use crate::store::session::transport::ServerTransport;

/// PostgreSQL 14: logical messages in pgoutput, `idle_session_timeout`.
pub(crate) const MAJOR_MIN: u32 = 14;

/// PostgreSQL 17: slots that standbys keep.
pub(crate) const FAILOVER_SINCE: u32 = 17;

/// How long a new slot may wait for transactions that are older than it.
const SLOT_PATIENCE: Duration = Duration::from_secs(30);

/// A SQL_ASCII database does not know what its bytes mean, and refuses to send what is no UTF-8 to a
/// client that asked for UTF-8. Asked for nothing, it sends them as they are. Texts that are not
/// UTF-8 are mended where they become JSON.
const TAKE_BYTES_AS_THEY_ARE: &str = "\
    CASE WHEN current_setting('server_encoding') = 'SQL_ASCII' \
         THEN set_config('client_encoding', 'SQL_ASCII', false) END";

/// How long the server may take to let go of a connection.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// The shortest silence that counts as a lost connection: servers stall for seconds under load.
const SILENCE_MIN: Duration = Duration::from_secs(10);

/// The same if the server has no timeout of its own; PostgreSQL's default for it.
const SILENCE_DEFAULT: Duration = Duration::from_secs(60);

/// What IDENTIFY_SYSTEM answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SystemIdentity {
    /// Unique to a cluster and its standbys.
    pub system: u64,
    pub timeline: u32,
    /// How far the WAL has been flushed.
    pub wal_end: Lsn,
    pub database: String,
}

/// Where a timeline of the server's history was left for the next one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimelineEnd {
    pub timeline: u32,
    pub at: Lsn,
}

/// The stream of changes and the way back.
pub struct StreamingStart<S> {
    pub frames: FrameReader<ReadHalf<S>>,
    /// For [`feedback::feedback`].
    pub feedback: FeedbackWriter<WriteHalf<S>>,
    pub heard: Arc<LastHeard>,
}

/// A replication connection on which nothing streams yet.
#[derive(Debug)]
pub struct ReplicationConnection<S = ServerTransport> {
    conversation: ServerConversation<S>,
    /// `server_version_num`, such as 150018.
    version: u32,
    /// The server's process for it.
    pid: i32,
    user: String,
    wal_sender_timeout: Duration,
}

/// Connects in replication mode. `wal_sender_timeout` is what the server is asked to use for this
/// connection: for how long it waits for us before it frees the slot; zero means for ever.
///
/// # Errors
/// [`SourceError::Connect`] if we are not let in; [`SetupDiagnostic::ServerTooOld`],
/// [`SetupDiagnostic::NoReplicationRight`], [`SetupDiagnostic::NoFreeWalSender`].
pub async fn connect(
    server: &ServerSettings,
    wal_sender_timeout: Duration,
) -> Result<ReplicationConnection, SourceError> {
    // `dial` speaks of connections only; what is wrong beyond that goes around it.
    let opened = dial::dial(server, |transport, server| async move {
        let at = transport.at().to_owned();
        let end_point = transport.end_point();
        let user = dial::user(&server)?;
        let opened = open(transport, &server, &user, end_point, wal_sender_timeout, &at).await;
        match opened {
            Err(SourceError::Connect(error)) => Err(error),
            other => Ok(other),
        }
    });
    match opened.await {
        Ok(opened) => opened,
        Err(StoreError::Refused(cause)) if cause.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE => {
            // The same code is for a database that the role may not connect to, replication or not.
            drop(store::connect(server).await?);
            Err(SetupDiagnostic::NoReplicationRight { role: dial::user(server)?, service: None }
                .into())
        }
        Err(StoreError::TooManyConnections(_)) => {
            Err(SetupDiagnostic::NoFreeWalSender { max: None }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Logs in over an open stream and pins the session's settings.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    server: &ServerSettings,
    user: &str,
    end_point: Option<Vec<u8>>,
    wal_sender_timeout: Duration,
    at: &str,
) -> Result<ReplicationConnection<S>, SourceError> {
    let mut conversation = ServerConversation::new(stream);
    let greeting = startup::log_in(&mut conversation, server, user, end_point).await?;
    let major: Option<u32> = leading_number(&greeting.version);
    if major.is_some_and(|major| major < MAJOR_MIN) {
        return Err(SetupDiagnostic::ServerTooOld { version: greeting.version }.into());
    }
    let mut connection = ReplicationConnection {
        conversation,
        version: 0,
        pid: 0,
        user: user.to_owned(),
        wal_sender_timeout,
    };
    // These are not known to, or not settable in, servers that are too old.
    let settings = connection
        .query_rows(&format!(
            "SELECT current_setting('server_version_num'), \
             current_setting('transaction_read_only'), \
             set_config('wal_sender_timeout', '{}', false), \
             set_config('idle_session_timeout', '0', false), \
             (SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings \
               WHERE name = 'transaction_timeout' AND source <> 'client'), \
             set_config('lock_timeout', '{}', false), \
             pg_backend_pid(), pg_is_in_recovery(), {TAKE_BYTES_AS_THEY_ARE}",
            wal_sender_timeout.as_millis(),
            SLOT_PATIENCE.as_millis(),
        ))
        .await?;
    let row = settings.into_iter().next().unwrap_or_default();
    connection.version = number(&row, 0)?;
    connection.pid = number(&row, 6)?;
    if server.attrs != SessionAttrs::Any {
        let kind = DialKind { read_only: text(&row, 1)? == "on", standby: text(&row, 7)? == "t" };
        dial::check_attrs(server.attrs, kind, at)?;
        let (name, value) = WRITABLE;
        connection.query_rows(&format!("SELECT set_config('{name}', '{value}', false)")).await?;
    }
    Ok(connection)
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationConnection<S> {
    /// `server_version_num`, such as 150018.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The server's process for this connection.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Who the server is and how far it has come.
    ///
    /// # Errors
    /// The server's, or a broken connection.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, SourceError> {
        let rows = self.query_rows("IDENTIFY_SYSTEM").await?;
        let row = rows.into_iter().next().unwrap_or_default();
        Ok(SystemIdentity {
            system: number(&row, 0)?,
            timeline: number(&row, 1)?,
            wal_end: number(&row, 2)?,
            database: text(&row, 3)?.to_owned(),
        })
    }

    /// The timelines that led to this one.
    ///
    /// # Errors
    /// The server's, for example that it does not have the file any more.
    pub async fn timeline_history(
        &mut self,
        timeline: u32,
    ) -> Result<Vec<TimelineEnd>, SourceError> {
        let rows = self.query_rows(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let content = text(&rows.into_iter().next().unwrap_or_default(), 1)?.to_owned();
        // Each line: timeline, position, reason.
        let end = |line: &str| {
            let mut words = line.split_whitespace();
            let (timeline, at) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some(TimelineEnd { timeline, at })
        };
        Ok(content.lines().filter_map(end).collect())
    }

    /// Ends the connection and waits until the server has let go of it: its walsender is then free
    /// for the next one.
    pub async fn close(mut self) {
        let goodbye = async {
            let mut out = BytesMut::new();
            frontend::terminate(&mut out);
            self.conversation.send(&out).await?;
            loop {
                self.conversation.receive().await?;
            }
        };
        // It ends with the server's end of the connection, which is an error anywhere else.
        let ended: Result<Result<(), SourceError>, _> =
            tokio::time::timeout(CLOSE_MAX, goodbye).await;
        drop(ended);
    }

    async fn setting(&mut self, name: &str) -> Result<String, SourceError> {
        let command = format!("SELECT current_setting({})", quote::literal(name));
        let rows = self.query_rows(&command).await?;
        Ok(text(&rows.into_iter().next().unwrap_or_default(), 0)?.to_owned())
    }

    /// Starts streaming. `from` may be `0/0`: the server then starts where the slot stands, which
    /// it also does if `from` lies before that.
    ///
    /// # Errors
    /// [`SetupDiagnostic::SlotInUse`] with the holder's pid, [`SetupDiagnostic::SlotMissing`],
    /// [`SetupDiagnostic::SlotLost`], [`SetupDiagnostic::WrongPlugin`], [`SetupDiagnostic::SlotElsewhere`].
    pub async fn start_replication(
        mut self,
        slot: &str,
        from: Lsn,
        publications: &[&str],
        budget: MemoryBudget,
    ) -> Result<StreamingStart<S>, SourceError> {
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names {}, \
             messages 'true')",
            quote::identifier(slot),
            quote::publication_names(publications),
        );
        self.send_query(&command).await?;
        loop {
            match self.conversation.receive().await? {
                BackendMessage::CopyBoth => break,
                BackendMessage::Known(backend::Message::ErrorResponse(body)) => {
                    let (error, _) = server_error(body.fields())?;
                    self.until_ready().await?;
                    return Err(self.why_not(slot, error).await?);
                }
                BackendMessage::Known(
                    backend::Message::NoticeResponse(_) | backend::Message::ParameterStatus(_),
                ) => {}
                BackendMessage::Known(_) => return Err(unexpected("START_REPLICATION")),
            }
        }
        let silence = match self.wal_sender_timeout {
            Duration::ZERO => SILENCE_DEFAULT,
            timeout => timeout.max(SILENCE_MIN),
        };
        let limits =
            FrameLimits { silence, slot: slot.to_owned(), publication: publications.join(", ") };
        let heard = Arc::new(LastHeard::default());
        let (stream, read) = self.conversation.into_parts();
        let (read_half, write_half) = tokio::io::split(stream);
        let interval = feedback::interval(self.wal_sender_timeout);
        Ok(StreamingStart {
            frames: FrameReader::new(read_half, read, budget, Arc::clone(&heard), limits),
            feedback: FeedbackWriter::new(write_half, Arc::clone(&heard), interval),
            heard,
        })
    }

    /// Why a slot could not be used.
    async fn why_not(
        &mut self,
        name: &str,
        error: ServerError,
    ) -> Result<SourceError, SourceError> {
        let Some(slot) = self.slot(name).await? else {
            return Ok(SetupDiagnostic::SlotMissing { slot: name.to_owned() }.into());
        };
        if let Some(defect) = slot.defect() {
            return Ok(defect.into());
        }
        Ok(match &error.sqlstate {
            state if *state == SqlState::OBJECT_IN_USE => {
                SetupDiagnostic::SlotInUse { slot: name.to_owned(), pid: slot.active_pid }.into()
            }
            state if *state == SqlState::INSUFFICIENT_PRIVILEGE => {
                SetupDiagnostic::NoReplicationRight { role: self.user.clone(), service: None }
                    .into()
            }
            _ => SourceError::Server(error),
        })
    }

    /// Runs a command; a refusal is an error.
    async fn query_rows(&mut self, command: &str) -> Result<Vec<TextRow>, SourceError> {
        self.query(command).await?.map_err(SourceError::Server)
    }

    /// Runs a command; a refusal is a result.
    async fn query(
        &mut self,
        command: &str,
    ) -> Result<Result<Vec<TextRow>, ServerError>, SourceError> {
        self.send_query(command).await?;
        let mut rows = Vec::new();
        let mut refusal = None;
        loop {
            match self.conversation.receive().await? {
                BackendMessage::Known(backend::Message::DataRow(body)) => rows.push(row(&body)?),
                BackendMessage::Known(backend::Message::ErrorResponse(body)) => {
                    refusal = Some(server_error(body.fields())?.0);
                }
                BackendMessage::Known(backend::Message::ReadyForQuery(_)) => break,
                BackendMessage::Known(
                    backend::Message::RowDescription(_)
                    | backend::Message::CommandComplete(_)
                    | backend::Message::EmptyQueryResponse
                    | backend::Message::NoticeResponse(_)
                    | backend::Message::ParameterStatus(_),
                ) => {}
                BackendMessage::CopyBoth | BackendMessage::Known(_) => {
                    return Err(unexpected("a command"));
                }
            }
        }
        Ok(refusal.map_or(Ok(rows), Err))
    }

    async fn send_query(&mut self, command: &str) -> Result<(), SourceError> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out).map_err(|_| SourceError::Protocol {
            what: "a slot or publication name with a zero byte".to_owned(),
        })?;
        self.conversation.send(&out).await
    }

    async fn until_ready(&mut self) -> Result<(), SourceError> {
        loop {
            let message = self.conversation.receive().await?;
            if matches!(message, BackendMessage::Known(backend::Message::ReadyForQuery(_))) {
                return Ok(());
            }
        }
    }
}
