//! Gets from a connection URL to an open [`ServerTransport`]: hosts, addresses, sockets, TLS.
//!
//! What the URL's parameters mean is libpq's definition: PostgreSQL manual, "Database Connection
//! Control Functions".

use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_postgres::config::Host;
use tokio_postgres::config::LoadBalanceHosts;
use tokio_postgres::config::SslNegotiation;
use tokio_rustls::TlsConnector;

use crate::config::settings::ServerSettings;
use crate::config::settings::SessionAttrs;
use crate::config::settings::TlsMode;
use crate::store::error::StoreError;
use crate::store::session::login;
use crate::store::session::tls;
use crate::store::session::transport::ServerTransport;

/// For one address, from the socket to the end of the login, unless the URL has a
/// `connect_timeout`. A wrong address is to be reported while the operator is still looking.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// PostgreSQL's own default.
const PORT: u16 = 5432;

/// One address of the list.
#[derive(Clone, Debug)]
enum DialTarget {
    /// `name` is what the certificate must show.
    Tcp {
        name: String,
        dial: String,
        port: u16,
    },
    Unix {
        folder: PathBuf,
        port: u16,
    },
}

/// Whether an attempt is to be encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Encryption {
    Plain,
    /// `required`: if not, a server that offers no TLS is talked to without.
    Tls {
        required: bool,
    },
}

/// Tries the hosts of the list in turn and hands each connection to `open`, which logs in; the
/// first that succeeds is the result. The server that `open` gets has the user and the password for
/// this host, as files have them at this moment.
///
/// # Errors
/// The last host's error, or at once an error that no other host can mend, such as a wrong
/// password.
pub(crate) async fn dial<T, F: Future<Output = Result<T, StoreError>>>(
    server: &ServerSettings,
    // Not `AsyncFn`: the future of a call could not be shown to be `Send` then.
    open: impl Fn(ServerTransport, Arc<ServerSettings>) -> F,
) -> Result<T, StoreError> {
    let server = login::current(server).await?;
    if server.attrs != SessionAttrs::PreferStandby {
        return dial_in_turn(&server, &open).await;
    }
    // As libpq: standbys first, and if there is none, any server that lets us in.
    let standby = ServerSettings { attrs: SessionAttrs::Standby, ..server.clone() };
    match dial_in_turn(&standby, &open).await {
        Err(error) if error.is_about_one_host() => {
            dial_in_turn(&ServerSettings { attrs: SessionAttrs::Any, ..server }, &open).await
        }
        outcome => outcome,
    }
}

async fn dial_in_turn<T, F: Future<Output = Result<T, StoreError>>>(
    server: &ServerSettings,
    open: &impl Fn(ServerTransport, Arc<ServerSettings>) -> F,
) -> Result<T, StoreError> {
    let limit = server.params.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    let config = tls_config(server).await?;
    let mut last = StoreError::NoHost;
    for target in targets(server)? {
        let (host, port) = target.place();
        let server = Arc::new(login::for_host(server, &host, port).await);
        for encryption in encryptions(&target, server.tls.mode) {
            let attempt = async {
                let transport = connect(&target, encryption, config.as_ref(), &server).await?;
                open(transport, Arc::clone(&server)).await
            };
            let outcome = tokio::time::timeout(limit, attempt).await;
            let error = match outcome {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(error)) => error,
                Err(_) => StoreError::TimedOut { at: target.shown(), limit },
            };
            tracing::debug!(at = target.shown(), ?encryption, %error, "could not connect");
            let may_differ = other_encryption_may_help(&error);
            last = error;
            if !may_differ {
                break;
            }
        }
        if !last.is_about_one_host() {
            break;
        }
    }
    Err(last)
}

/// What certificates there are, as their files have them: read aside, since a disk may hang.
async fn tls_config(server: &ServerSettings) -> Result<Option<Arc<ClientConfig>>, StoreError> {
    let tls = server.tls.clone();
    let read = tokio::task::spawn_blocking(move || tls::client_config(&tls));
    let trouble = |cause: Box<dyn Error + Send + Sync>| StoreError::Certificate {
        what: String::from("the files of sslrootcert, sslcert and sslkey"),
        cause,
    };
    match tokio::time::timeout(login::READ_MAX, read).await {
        Ok(Ok(config)) => config,
        Ok(Err(panicked)) => Err(trouble(panicked.into())),
        Err(_) => Err(trouble(format!("not read within {:?}", login::READ_MAX).into())),
    }
}

/// The user to log in as.
///
/// # Errors
/// [`StoreError::NoUser`] if neither names one.
pub(crate) fn user(server: &ServerSettings) -> Result<String, StoreError> {
    server.user().ok_or(StoreError::NoUser)
}

/// Compares `target_session_attrs` with what the server says of itself.
///
/// # Errors
/// That the session is not of the kind that was asked for.
pub(crate) fn check_attrs(
    attrs: SessionAttrs,
    DialKind { read_only, standby }: DialKind,
    at: &str,
) -> Result<(), StoreError> {
    let at = at.to_owned();
    match attrs {
        SessionAttrs::ReadWrite if read_only => Err(StoreError::ReadOnly { at }),
        SessionAttrs::ReadOnly if !read_only => Err(StoreError::ReadWrite { at }),
        SessionAttrs::Primary if standby => Err(StoreError::IsStandby { at }),
        SessionAttrs::Standby if !standby => Err(StoreError::IsPrimary { at }),
        _ => Ok(()),
    }
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DialKind {
    pub read_only: bool,
    pub standby: bool,
}

/// As libpq: with prefer, TLS that fails or is not let in is followed by an attempt without; with
/// allow, it is the other way round.
fn other_encryption_may_help(error: &StoreError) -> bool {
    matches!(error, StoreError::Tls { .. } | StoreError::NotAllowed { .. })
}

fn encryptions(target: &DialTarget, mode: TlsMode) -> Vec<Encryption> {
    match (target, mode) {
        // A unix socket does not leave the machine: PostgreSQL offers no TLS there.
        (DialTarget::Unix { .. }, _) | (_, TlsMode::Disable) => vec![Encryption::Plain],
        (_, TlsMode::Allow) => vec![Encryption::Plain, Encryption::Tls { required: true }],
        (_, TlsMode::Prefer) => vec![Encryption::Tls { required: false }, Encryption::Plain],
        (_, TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull) => {
            vec![Encryption::Tls { required: true }]
        }
    }
}

fn targets(server: &ServerSettings) -> Result<Vec<DialTarget>, StoreError> {
    let params = &server.params;
    let (hosts, addresses, ports) =
        (params.get_hosts(), params.get_hostaddrs(), params.get_ports());
    let count = hosts.len().max(addresses.len());
    let fits = |len: usize| len == 0 || len == count;
    if !fits(hosts.len()) || !fits(addresses.len()) || (ports.len() > 1 && ports.len() != count) {
        return Err(StoreError::HostLists);
    }
    let target = |index: usize| {
        let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(PORT);
        let address: Option<&IpAddr> = addresses.get(index);
        match (hosts.get(index), address) {
            (Some(Host::Unix(folder)), _) => {
                Some(DialTarget::Unix { folder: folder.clone(), port })
            }
            (Some(Host::Tcp(name)), address) => {
                let dial = address.map_or_else(|| name.clone(), ToString::to_string);
                Some(DialTarget::Tcp { name: name.clone(), dial, port })
            }
            (None, Some(address)) => {
                Some(DialTarget::Tcp { name: address.to_string(), dial: address.to_string(), port })
            }
            (None, None) => None,
        }
    };
    let mut targets: Vec<DialTarget> = (0..count).filter_map(target).collect();
    if targets.is_empty() {
        return Err(StoreError::NoHost);
    }
    if params.get_load_balance_hosts() == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut targets);
    }
    Ok(targets)
}

impl DialTarget {
    /// As a password file has it.
    fn place(&self) -> (String, u16) {
        match self {
            Self::Tcp { name, port, .. } => (name.clone(), *port),
            Self::Unix { folder, port } => (folder.display().to_string(), *port),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Tcp { name, port, .. } => format!("{name}:{port}"),
            Self::Unix { folder, port } => format!("{} port {port}", folder.display()),
        }
    }
}

async fn connect(
    target: &DialTarget,
    encryption: Encryption,
    config: Option<&Arc<ClientConfig>>,
    server: &ServerSettings,
) -> Result<ServerTransport, StoreError> {
    let at = target.shown();
    match target {
        DialTarget::Unix { folder, port } => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            match UnixStream::connect(path).await {
                Ok(socket) => Ok(ServerTransport::unix(socket, at)),
                Err(cause) => Err(StoreError::Unreachable { at, cause }),
            }
        }
        DialTarget::Tcp { name, dial, port } => {
            let socket = connect_tcp(name, dial, *port, server).await?;
            match (encryption, config) {
                (Encryption::Tls { required }, Some(config)) => {
                    encrypt(socket, name, at, required, config, server).await
                }
                (Encryption::Plain, _) | (_, None) => Ok(ServerTransport::tcp(socket, at)),
            }
        }
    }
}

async fn connect_tcp(
    name: &str,
    dial: &str,
    port: u16,
    server: &ServerSettings,
) -> Result<TcpStream, StoreError> {
    let addresses = tokio::net::lookup_host((dial, port))
        .await
        .map_err(|cause| StoreError::UnknownHost { host: name.to_owned(), cause })?;
    let unreachable = |cause| StoreError::Unreachable { at: format!("{name}:{port}"), cause };
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => {
                set_options(&socket, server).map_err(unreachable)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(last))
}

fn set_options(socket: &TcpStream, server: &ServerSettings) -> std::io::Result<()> {
    let params = &server.params;
    socket.set_nodelay(true)?;
    let raw = SockRef::from(socket);
    #[cfg(target_os = "linux")]
    if let Some(limit) = params.get_tcp_user_timeout() {
        raw.set_tcp_user_timeout(Some(*limit))?;
    }
    if params.get_keepalives() {
        let mut keepalive = TcpKeepalive::new().with_time(params.get_keepalives_idle());
        if let Some(interval) = params.get_keepalives_interval() {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(retries) = params.get_keepalives_retries() {
            keepalive = keepalive.with_retries(retries);
        }
        raw.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

async fn encrypt(
    mut socket: TcpStream,
    name: &str,
    at: String,
    required: bool,
    config: &Arc<ClientConfig>,
    server: &ServerSettings,
) -> Result<ServerTransport, StoreError> {
    if server.params.get_ssl_negotiation() == SslNegotiation::Postgres {
        let mut request = bytes::BytesMut::with_capacity(8);
        postgres_protocol::message::frontend::ssl_request(&mut request);
        let unreachable = |cause| StoreError::Unreachable { at: at.clone(), cause };
        socket.write_all(&request).await.map_err(unreachable)?;
        // Exactly one byte: whatever an attacker in between may have put after it must end up in
        // the TLS handshake, not in our buffer (CVE-2021-23222).
        match socket.read_u8().await.map_err(unreachable)? {
            b'S' => {}
            b'N' if required => return Err(StoreError::TlsNotOffered { at }),
            b'N' => return Ok(ServerTransport::tcp(socket, at)),
            // Another program's greeting, or its answer to what it does not understand.
            _ => return Err(StoreError::NotPostgres { at }),
        }
    }
    let failed = |cause| StoreError::Tls { at: at.clone(), cause };
    let name = ServerName::try_from(name.to_owned())
        .map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)))?;
    let stream =
        TlsConnector::from(Arc::clone(config)).connect(name, socket).await.map_err(failed)?;
    Ok(ServerTransport::tls(stream, at))
}

#[cfg(test)]
mod tests;
