//! Startup and authentication in replication mode: start-up message, SCRAM, channel binding.
//!
//! Session settings that change how values are written as text are pinned here: what the role or
//! the database has set as defaults must not change the payloads. Start-up parameters win over
//! those defaults.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl;
use postgres_protocol::authentication::sasl::ScramSha256;
use postgres_protocol::message::backend;
use postgres_protocol::message::frontend;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio_postgres::config::ChannelBinding;
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::config::settings::ServerSettings;
use crate::config::settings::SessionAttrs;
use crate::replication::error::SourceError;
use crate::replication::wire::message::BackendMessage;
use crate::replication::wire::message::ServerConversation;
use crate::replication::wire::message::server_error;
use crate::replication::wire::message::unexpected;
use crate::store::APPLICATION_NAME;
use crate::store::SEARCH_PATH;
use crate::store::WRITABLE;
use crate::store::error::StoreError;

/// Sent with the start-up message. All of these are known to every server that can decode at all,
/// so that one which is too old still gets as far as telling us its version.
const PINNED: [(&str, &str); 13] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("standard_conforming_strings", "on"),
    // Names in values of type regclass and the like are told with their schemas then.
    ("search_path", SEARCH_PATH),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    // A warning can mean that rows are being skipped; see `frame`.
    ("client_min_messages", "warning"),
    ("replication", "database"),
];

/// What the server says of itself while we log in.
#[derive(Debug, Default)]
pub(crate) struct ServerGreeting {
    /// `server_version`, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
}

/// Sends the start-up message, proves who we are, and waits until the server is ready.
///
/// # Errors
/// A [`StoreError`] for every way in which the server can refuse us.
pub(crate) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    conversation: &mut ServerConversation<S>,
    server: &ServerSettings,
    user: &str,
    end_point: Option<Vec<u8>>,
) -> Result<ServerGreeting, SourceError> {
    let params = &server.params;
    let mut parameters = PINNED.to_vec();
    parameters.extend((server.attrs == SessionAttrs::Any).then_some(WRITABLE));
    parameters.push(("user", user));
    parameters.push(("database", params.get_dbname().unwrap_or(user)));
    parameters
        .push(("application_name", params.get_application_name().unwrap_or(APPLICATION_NAME)));
    if let Some(options) = params.get_options() {
        parameters.push(("options", options));
    }
    let mut out = BytesMut::new();
    frontend::startup_message(parameters, &mut out).map_err(|_| unsendable())?;
    conversation.send(&out).await?;
    LoginState { conversation, server, user, end_point }.authenticate().await?;
    greeting(conversation, server).await
}

struct LoginState<'a, S> {
    conversation: &'a mut ServerConversation<S>,
    server: &'a ServerSettings,
    user: &'a str,
    end_point: Option<Vec<u8>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> LoginState<'_, S> {
    async fn authenticate(mut self) -> Result<(), SourceError> {
        use backend::Message as M;
        let mut out = BytesMut::new();
        match self.receive().await? {
            M::AuthenticationOk => return self.without_channel_binding(),
            M::AuthenticationCleartextPassword => {
                self.without_channel_binding()?;
                let password = self.password()?;
                frontend::password_message(password, &mut out).map_err(|_| unsendable())?;
            }
            M::AuthenticationMd5Password(body) => {
                self.without_channel_binding()?;
                let hash = md5_hash(self.user.as_bytes(), self.password()?, body.salt());
                frontend::password_message(hash.as_bytes(), &mut out).map_err(|_| unsendable())?;
            }
            M::AuthenticationSasl(body) => return self.scram(&body).await,
            M::AuthenticationGss | M::AuthenticationKerberosV5 => {
                return Err(unsupported("GSSAPI"));
            }
            M::AuthenticationSspi => return Err(unsupported("SSPI")),
            _ => return Err(unexpected("the login")),
        }
        self.conversation.send(&out).await?;
        self.expect_ok().await
    }

    /// SCRAM-SHA-256 (RFC 7677), bound to the TLS session where both sides can.
    async fn scram(
        &mut self,
        offered: &backend::AuthenticationSaslBody,
    ) -> Result<(), SourceError> {
        let broken = |error: std::io::Error| SourceError::Protocol { what: error.to_string() };
        let offered: Vec<&str> = offered.mechanisms().collect().map_err(broken)?;
        let binding = self.server.params.get_channel_binding();
        let end_point = self.end_point.take().filter(|_| binding != ChannelBinding::Disable);
        let (mechanism, channel) = match end_point {
            Some(hash) if offered.contains(&sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
            }
            _ if !offered.contains(&sasl::SCRAM_SHA_256) => return Err(unsupported("SASL")),
            // Says that we could have: the server notices if its offer was taken away in between.
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        if mechanism != sasl::SCRAM_SHA_256_PLUS {
            self.without_channel_binding()?;
        }
        let mut scram = ScramSha256::new(self.password()?, channel);
        let mut out = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut out)
            .map_err(|_| unsendable())?;
        self.conversation.send(&out).await?;
        let not_proven = StoreError::ServerNotProven;
        match self.receive().await? {
            backend::Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data()).map_err(not_proven)?;
            }
            _ => return Err(unexpected("SCRAM")),
        }
        out.clear();
        frontend::sasl_response(scram.message(), &mut out).map_err(|_| unsendable())?;
        self.conversation.send(&out).await?;
        match self.receive().await? {
            backend::Message::AuthenticationSaslFinal(body) => {
                scram.finish(body.data()).map_err(not_proven)?;
            }
            _ => return Err(unexpected("SCRAM")),
        }
        self.expect_ok().await
    }

    fn password(&self) -> Result<&[u8], SourceError> {
        let missing = || StoreError::password_missing(self.server);
        Ok(self.server.params.get_password().ok_or_else(missing)?)
    }

    fn without_channel_binding(&self) -> Result<(), SourceError> {
        match self.server.params.get_channel_binding() {
            ChannelBinding::Require => Err(StoreError::NoChannelBinding.into()),
            _ => Ok(()),
        }
    }

    async fn expect_ok(&mut self) -> Result<(), SourceError> {
        match self.receive().await? {
            backend::Message::AuthenticationOk => Ok(()),
            _ => Err(unexpected("the login")),
        }
    }

    async fn receive(&mut self) -> Result<backend::Message, SourceError> {
        receive(self.conversation, self.server).await
    }
}

/// Reads up to the first ReadyForQuery.
async fn greeting<S: AsyncRead + AsyncWrite + Unpin>(
    conversation: &mut ServerConversation<S>,
    server: &ServerSettings,
) -> Result<ServerGreeting, SourceError> {
    let mut greeting = ServerGreeting::default();
    loop {
        match receive(conversation, server).await? {
            backend::Message::ParameterStatus(body) => {
                if body.name().is_ok_and(|name| name == "server_version") {
                    greeting.version = body.value().unwrap_or_default().to_owned();
                }
            }
            backend::Message::ReadyForQuery(_) => return Ok(greeting),
            backend::Message::BackendKeyData(_) | backend::Message::NoticeResponse(_) => {}
            _ => return Err(unexpected("the start of the session")),
        }
    }
}

async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    conversation: &mut ServerConversation<S>,
    server: &ServerSettings,
) -> Result<backend::Message, SourceError> {
    match conversation.receive().await? {
        BackendMessage::Known(backend::Message::ErrorResponse(body)) => {
            let (error, _) = server_error(body.fields())?;
            Err(StoreError::refused_log_in(error, server).into())
        }
        BackendMessage::Known(message) => Ok(message),
        BackendMessage::CopyBoth => Err(unexpected("the login")),
    }
}

fn unsupported(method: &str) -> SourceError {
    StoreError::UnsupportedAuthentication { method: method.to_owned() }.into()
}

/// A parameter with a zero byte in it.
fn unsendable() -> SourceError {
    SourceError::Protocol {
        what: "a user, password, database or option with a zero byte".to_owned(),
    }
}
