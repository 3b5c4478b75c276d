//! Classifies transport errors: refused, reset, TLS, timed out.
//!
//! An error's text can carry the name or the URL, which can be a credential. So nothing of it is
//! copied: the chain of causes is searched for types that are known, and the detail is written
//! here or taken from a cause whose text is constant.

use std::error::Error;
use std::io;

use rustls::CertificateError;

use crate::delivery::connection::address_guard::AddressRefusal;
use crate::delivery::connection::own_shortage;
use crate::delivery::connection::own_shortage::cause_of;
use crate::delivery::connection::resolve_error::ResolveError;
use crate::delivery::connection::sockets::NoSocket;
use crate::delivery::connection::transport_trouble::TransportTrouble;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::FailureClass;

/// Longer details are cut.
const DETAIL_MAX_CHARS: usize = 120;

/// Sorts what went wrong into a class.
pub(crate) fn classify(trouble: &TransportTrouble) -> AttemptFailure {
    let found = |class, detail: &str| AttemptFailure { class, detail: tidy(detail) };
    let mut io_kind = None;
    let mut deepest = None;
    let mut next: Option<&(dyn Error + 'static)> = Some(match trouble {
        TransportTrouble::Connect(error) => error.as_ref(),
        TransportTrouble::Exchange(error) | TransportTrouble::Unprocessed(error) => error,
    });
    while let Some(cause) = next {
        if let Some(refusal) = cause.downcast_ref::<AddressRefusal>() {
            return found(FailureClass::Refused, &refusal.to_string());
        }
        if let Some(none) = cause.downcast_ref::<NoSocket>() {
            let detail = none.to_string();
            return AttemptFailure { class: FailureClass::Local, detail };
        }
        if let Some(resolve) = cause.downcast_ref::<ResolveError>() {
            if let Some(own) = own_shortage::of_lookup(resolve) {
                return found(FailureClass::Local, own);
            }
            return found(FailureClass::Dns, &resolve.to_string());
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return found(FailureClass::Tls, &describe_tls(tls));
        }
        if let Some(own) = cause.downcast_ref::<io::Error>().and_then(own_shortage::of_system) {
            return found(FailureClass::Local, own);
        }
        io_kind = io_kind.or(cause.downcast_ref().map(io::Error::kind));
        next = cause_of(cause);
        deepest = Some(cause);
    }
    let class = match trouble {
        TransportTrouble::Connect(_) if io_kind == Some(io::ErrorKind::TimedOut) => {
            return found(FailureClass::Timeout, "the connection could not be made in time");
        }
        TransportTrouble::Connect(_) => FailureClass::Connect,
        TransportTrouble::Unprocessed(_) => {
            let detail = "the peer says that it did not process the request (HTTP/2)";
            return found(FailureClass::Protocol, detail);
        }
        TransportTrouble::Exchange(error) if error.is_user() => FailureClass::Request,
        TransportTrouble::Exchange(_) => FailureClass::Protocol,
    };
    match (io_kind, deepest) {
        // Of what arrives, only the sizes of chunks are read like this.
        (Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData), _)
            if class == FailureClass::Protocol =>
        {
            found(class, "the answer's chunked body breaks the rules of HTTP (RFC 9112, 7.1)")
        }
        (Some(kind), _) => found(class, &describe_io(kind)),
        // Causes that are neither of the system nor of TLS are the HTTP parser's, whose texts are
        // constants.
        (None, Some(cause)) => match &*cause.to_string() {
            // Every other line that is no header is passed over.
            "invalid HTTP header parsed" => found(
                class,
                "a header of the answer holds NUL, or a carriage return without its line feed",
            ),
            text => found(class, text),
        },
        (None, None) => found(class, "the exchange failed"),
    }
}

fn describe_io(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::UnexpectedEof => String::from("the connection was closed too early"),
        kind => kind.to_string(),
    }
}

fn describe_tls(error: &rustls::Error) -> String {
    let certificate = |what: &str| format!("the certificate {what}");
    match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                certificate("has expired")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                certificate("is not valid yet")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                certificate("is for another name")
            }
            CertificateError::UnknownIssuer => certificate("is signed by an unknown authority"),
            CertificateError::BadSignature => certificate("is not signed by whom it says"),
            CertificateError::Revoked => certificate("has been revoked"),
            _ => certificate("is not valid"),
        },
        rustls::Error::InvalidMessage(_) => String::from("the peer does not speak TLS"),
        rustls::Error::AlertReceived(alert) => format!("the peer refused with {alert:?}"),
        rustls::Error::PeerIncompatible(_) => {
            String::from("the peer and walhook have no TLS version or cipher in common")
        }
        _ => String::from("the handshake failed"),
    }
}

/// One short line, whatever the text was.
fn tidy(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(DETAIL_MAX_CHARS).collect()
}
