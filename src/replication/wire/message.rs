//! Framing: cuts the server's bytes into messages.
//!
//! A message is a tag, a length and a body (PostgreSQL manual, "Message Formats").
//! postgres-protocol parses what it knows; `CopyBothResponse` it does not.

use std::io;

use bytes::Buf;
use bytes::BytesMut;
use postgres_protocol::message::backend;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::replication::error::SourceError;
use crate::store::error::server_error::ServerError;

/// Tag and length.
pub(crate) const HEADER_BYTES: usize = 5;

/// PostgreSQL builds a message in one allocation of at most 1 GiB; a greater length means that we
/// have lost the thread, or that the peer is no PostgreSQL.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Everything but row data is small. An error's text has no limit of its own, hence the room.
pub(crate) const CONTROL_BYTES_MAX: usize = 1 << 20;

pub(crate) const COPY_BOTH_RESPONSE: u8 = b'W';

/// Tag and length of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MessageHeader {
    pub tag: u8,
    /// Bytes of the whole message, header included.
    pub total: usize,
}

impl MessageHeader {
    /// The header at the front of `buf`; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`SourceError::Protocol`] if the length cannot be true.
    pub(crate) fn peek(buf: &[u8]) -> Result<Option<Self>, SourceError> {
        let Some(&[tag, a, b, c, d]) = buf.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        // The length counts itself, but not the tag.
        let length = u32::from_be_bytes([a, b, c, d]);
        let total = usize::try_from(length).ok().and_then(|length| length.checked_add(1));
        let max = if tag == backend::COPY_DATA_TAG { MESSAGE_BYTES_MAX } else { CONTROL_BYTES_MAX };
        match total {
            Some(total) if (HEADER_BYTES..=max).contains(&total) => Ok(Some(Self { tag, total })),
            _ => Err(SourceError::Protocol {
                what: format!("a message {:?} of {length} bytes", char::from(tag)),
            }),
        }
    }
}

/// A message outside of the stream of changes.
pub(crate) enum BackendMessage {
    Known(backend::Message),
    CopyBoth,
}

/// Parses one whole message.
///
/// # Errors
/// [`SourceError::Protocol`] if it is none.
pub(crate) fn parse(mut whole: BytesMut) -> Result<BackendMessage, SourceError> {
    if whole.first() == Some(&COPY_BOTH_RESPONSE) {
        return Ok(BackendMessage::CopyBoth);
    }
    let broken = |error: io::Error| SourceError::Protocol { what: error.to_string() };
    match backend::Message::parse(&mut whole).map_err(broken)? {
        Some(message) => Ok(BackendMessage::Known(message)),
        None => Err(SourceError::Protocol { what: "a message shorter than it says".to_owned() }),
    }
}

/// The fields that walhook uses of an ErrorResponse or a NoticeResponse.
pub(crate) fn server_error(
    mut fields: backend::ErrorFields<'_>,
) -> Result<(ServerError, NoticeSeverity), SourceError> {
    let mut sqlstate = SqlState::INTERNAL_ERROR;
    let mut message = String::new();
    let mut hint = None;
    let mut severity = NoticeSeverity::Other;
    let broken = |error: io::Error| SourceError::Protocol { what: error.to_string() };
    while let Some(field) = fields.next().map_err(broken)? {
        let text = String::from_utf8_lossy(field.value_bytes());
        match field.type_() {
            b'C' => sqlstate = SqlState::from_code(&text),
            b'M' => message = text.into_owned(),
            b'H' => hint = Some(text.into_owned()),
            // `V`, unlike `S`, is never translated.
            b'V' if text == "WARNING" => severity = NoticeSeverity::Warning,
            _ => {}
        }
    }
    Ok((ServerError { sqlstate, message, hint }, severity))
}

/// The context of an error: where in its work the server met it.
pub(crate) fn error_context(mut fields: backend::ErrorFields<'_>) -> Option<String> {
    while let Ok(Some(field)) = fields.next() {
        if field.type_() == b'W' {
            return Some(String::from_utf8_lossy(field.value_bytes()).into_owned());
        }
    }
    None
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NoticeSeverity {
    Warning,
    Other,
}

/// The connection while it takes turns: we ask, the server answers.
#[derive(Debug)]
pub(crate) struct ServerConversation<S> {
    stream: S,
    buf: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerConversation<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buf: BytesMut::with_capacity(4096) }
    }

    /// Sends messages that are already framed.
    pub(crate) async fn send(&mut self, framed: &[u8]) -> Result<(), SourceError> {
        self.stream.write_all(framed).await.map_err(SourceError::Disconnected)?;
        self.stream.flush().await.map_err(SourceError::Disconnected)
    }

    /// Waits for the next message.
    pub(crate) async fn receive(&mut self) -> Result<BackendMessage, SourceError> {
        loop {
            if let Some(header) = MessageHeader::peek(&self.buf)? {
                if header.total > CONTROL_BYTES_MAX {
                    return Err(SourceError::Protocol {
                        what: format!("an answer of {} bytes", header.total),
                    });
                }
                if self.buf.remaining() >= header.total {
                    return parse(self.buf.split_to(header.total));
                }
                self.buf.reserve(header.total - self.buf.remaining());
            } else {
                self.buf.reserve(HEADER_BYTES);
            }
            let read = self.stream.read_buf(&mut self.buf).await;
            if read.map_err(SourceError::Disconnected)? == 0 {
                let eof = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(SourceError::Disconnected(eof));
            }
        }
    }

    /// The stream, and what has been read from it beyond the last message.
    pub(crate) fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.buf)
    }
}

/// What was received does not belong here.
pub(crate) fn unexpected(during: &str) -> SourceError {
    SourceError::Protocol { what: format!("an unexpected message during {during}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_cannot_be_true_are_refused() {
        let cases: [(&[u8], Option<usize>); 5] = [
            (b"d\x00\x00\x00\x04", Some(5)),
            (b"d\x00\x00\x00\x03", None),
            (b"d\x7f\xff\xff\xff", None),
            (b"E\x00\x20\x00\x00", None),
            (b"d\x00\x20\x00\x00", Some(0x0020_0001)),
        ];
        for (bytes, expected) in cases {
            let total = MessageHeader::peek(bytes).ok().flatten().map(|header| header.total);
            assert_eq!(total, expected, "case: {bytes:?}");
        }
        assert_eq!(MessageHeader::peek(b"d\x00\x00\x00").unwrap(), None);
    }

    #[tokio::test]
    async fn messages_are_found_at_every_split() {
        let bytes = b"Z\x00\x00\x00\x05IC\x00\x00\x00\x0bCOPY 0\x00W\x00\x00\x00\x07\x00\x00\x00";
        for split in 0..=bytes.len() {
            let (client, mut server) = tokio::io::duplex(64);
            let mut conversation = ServerConversation::new(client);
            let feed = async {
                server.write_all(&bytes[..split]).await.unwrap();
                tokio::task::yield_now().await;
                server.write_all(&bytes[split..]).await.unwrap();
            };
            let listen = async {
                let first = conversation.receive().await.unwrap();
                assert!(matches!(first, BackendMessage::Known(backend::Message::ReadyForQuery(_))));
                let second = conversation.receive().await.unwrap();
                assert!(matches!(
                    second,
                    BackendMessage::Known(backend::Message::CommandComplete(_))
                ));
                assert!(matches!(conversation.receive().await.unwrap(), BackendMessage::CopyBoth));
            };
            tokio::join!(feed, listen);
        }
    }
}
