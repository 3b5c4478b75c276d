//! A way through an HTTP proxy: `CONNECT` (RFC 9110, 9.3.6), and what the proxy says to it.

use std::io;

use http::HeaderValue;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;

/// The longest answer: a status line and a few headers.
const ANSWER_MAX_BYTES: usize = 16 * 1024;

/// The proxy does not let us through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    #[error("the proxy refused with {0}")]
    Refused(u16),
    #[error("the proxy does not answer as HTTP")]
    Malformed,
}

/// Asks for a tunnel to `at`, host and port. After it, the stream is the endpoint's.
pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    at: &str,
    authorization: Option<&HeaderValue>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut request = format!("CONNECT {at} HTTP/1.1\r\nhost: {at}\r\n").into_bytes();
    if let Some(value) = authorization {
        request.extend_from_slice(b"proxy-authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).await?;
        answer.extend_from_slice(piece.get(..read).unwrap_or_default());
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match memchr::memmem::find(&answer, b"\r\n\r\n") {
            // With TLS, and with HTTP, we speak first: what follows the answer is nobody's.
            Some(end) if end + 4 == answer.len() => return judge(&answer).map_err(Into::into),
            None if answer.len() < ANSWER_MAX_BYTES => {}
            // What is no success may go on with a text for people.
            Some(_) => {
                judge(&answer)?;
                return Err(TunnelError::Malformed.into());
            }
            None => return Err(TunnelError::Malformed.into()),
        }
    }
}

fn judge(answer: &[u8]) -> Result<(), TunnelError> {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = line.and_then(|line| line.get(2..5)).and_then(|code| code.parse().ok());
    match status {
        Some(200..=299) => Ok(()),
        Some(status) => Err(TunnelError::Refused(status)),
        None => Err(TunnelError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a proxy that answers with this, a few bytes at a time.
    async fn told(answer: &'static [u8]) -> String {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let proxy = async move {
            let mut request = [0; 44];
            theirs.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"CONNECT h.test:443 HTTP/1.1\r\nhost: h.test:44");
            for piece in answer.chunks(7) {
                theirs.write_all(piece).await.ok();
            }
            theirs
        };
        let (opened, _theirs) = tokio::join!(open(&mut ours, "h.test:443", None), proxy);
        opened.map_or_else(|error| error.to_string(), |()| String::from("open"))
    }

    #[tokio::test]
    async fn only_a_success_and_nothing_after_it_opens_a_tunnel() {
        let cases: [(&[u8], &str); 6] = [
            (b"HTTP/1.1 200 Connection established\r\n\r\n", "open"),
            (b"HTTP/1.0 200 OK\r\nvia: x\r\n\r\n", "open"),
            (b"HTTP/1.1 407 No\r\n\r\n", "the proxy refused with 407"),
            (b"HTTP/1.1 403 No\r\n\r\nGo away", "the proxy refused with 403"),
            (b"HTTP/1.1 200 OK\r\n\r\nhello", "the proxy does not answer as HTTP"),
            (b"SSH-2.0-x\r\n\r\n", "the proxy does not answer as HTTP"),
        ];
        for (answer, expected) in cases {
            assert_eq!(told(answer).await, expected, "case: {expected}");
        }
    }
}
