//! A private NATS server with JetStream, for as long as the value lives.

use std::io;
use std::io::Read;
use std::net::Ipv4Addr;
use std::net::TcpStream;
use std::time::Duration;

use crate::sandbox::broker_installation::BrokerInstallation;
use crate::sandbox::error::SandboxError;
use crate::sandbox::error::io_error;
use crate::sandbox::find_broker::find_broker;
use crate::sandbox::port::PORT_ATTEMPTS_MAX;
use crate::sandbox::port::free_port;
use crate::sandbox::program::ProgramCall;
use crate::sandbox::program::SandboxProgram;
use crate::sandbox::surroundings::Surroundings;
use crate::sandbox::watched_process::wait_until;

/// A start takes a tenth of a second.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a server that has accepted may take to say its first word.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A running server, on 127.0.0.1 only. Dropping it ends it and removes what it has stored.
#[derive(Debug)]
pub struct SandboxBroker {
    _program: SandboxProgram,
    port: u16,
}

impl SandboxBroker {
    /// Starts the server that the environment has, or one that is fetched.
    ///
    /// # Errors
    /// There is none and none could be fetched; as [`Self::start`].
    pub fn found() -> Result<Self, SandboxError> {
        let at = Surroundings::read();
        Self::start(&find_broker(&at, &mut |_| {})?, &at)
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// There is no room for its data, or it does not start (the error then shows the end of its log).
    pub(crate) fn start(
        installation: &BrokerInstallation,
        at: &Surroundings,
    ) -> Result<Self, SandboxError> {
        let mut attempt = 1;
        loop {
            let port = free_port().map_err(io_error("find a free port"))?;
            match launch(installation, at, port) {
                Err(SandboxError::BrokerStart { log })
                    if log.contains("address already in use") && attempt < PORT_ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// The URL of `[relay]`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

fn launch(
    installation: &BrokerInstallation,
    at: &Surroundings,
    port: u16,
) -> Result<SandboxBroker, SandboxError> {
    let text = format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"store\" }}\n");
    let call = ProgramCall {
        program: installation.program(),
        arguments: &["-c", "nats.conf"],
        environment: &[],
        file: ("nats.conf", &text),
    };
    let mut program = SandboxProgram::start(&call, at)?;
    let mut ended = false;
    let answered = wait_until(START_LIMIT, || {
        ended = program.has_ended();
        ended || greets(port)
    });
    if ended {
        return Err(SandboxError::BrokerStart { log: program.log_tail() });
    }
    if !answered {
        return Err(SandboxError::BrokerNotReady { limit: START_LIMIT, log: program.log_tail() });
    }
    Ok(SandboxBroker { _program: program, port })
}

/// Whether a NATS server answers there: it speaks first, with `INFO {...}` (NATS client protocol).
fn greets(port: u16) -> bool {
    let attempt = || -> io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut word = [0; 5];
        stream.read_exact(&mut word)?;
        Ok(word == *b"INFO ")
    };
    attempt().unwrap_or(false)
}
