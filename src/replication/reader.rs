//! A checked cursor over one message of the replication stream.
//!
//! ```text
//! wire ─ XLogData ─▶ [reader] pgoutput ─ PgOutput ─▶ assemble
//! ```
//!
//! The bytes come from a peer, so every read may fail: none panics, none reads past the end, and a
//! length or count is believed only after the bytes that it promises were found.

use std::ops::Range;

use crate::flow::lsn::Lsn;
use crate::flow::time::Timestamp;

/// A message of the replication stream that does not follow the format. It cannot become valid by
/// waiting.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("the message ends within its {field}")]
    CutOff { field: &'static str },
    #[error("the {field} has no end mark")]
    Unterminated { field: &'static str },
    #[error("the {field} is negative: {given}")]
    Negative { field: &'static str, given: i32 },
    #[error("{bytes} bytes are left over after the message")]
    LeftOver { bytes: usize },
    #[error("message type {tag:?} is unknown: start replication with proto_version 1")]
    UnknownTag { tag: char },
    #[error("{given:?} is no replica identity")]
    UnknownIdentity { given: char },
    #[error("expected {expected}, found {found:?}")]
    UnexpectedTuple { expected: &'static str, found: char },
    #[error("field {column} is of the unknown kind {kind:?}")]
    UnknownField { column: usize, kind: char },
    #[error("field {column} is in binary form: start replication without the binary option")]
    BinaryField { column: usize },
}

/// Reads a message from front to back. Names in errors (`field`) are the manual's words.
#[derive(Clone, Debug)]
pub(crate) struct MessageReader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> MessageReader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// How many bytes have not been read.
    pub(crate) fn left(&self) -> usize {
        self.message.len() - self.at
    }

    /// # Errors
    /// [`DecodeError::CutOff`], as for every read below.
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        let [byte] = self.array(field)?;
        Ok(byte)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        self.array(field).map(u64::from_be_bytes).map(Lsn::from_raw)
    }

    /// Microseconds since 2000-01-01.
    pub(crate) fn time(&mut self, field: &'static str) -> Result<Timestamp, DecodeError> {
        self.array(field).map(i64::from_be_bytes).map(Timestamp::from_postgres)
    }

    /// A 16-bit count of things of which each takes at least `each` bytes. A count that the rest
    /// of the message cannot hold is refused before memory is set aside for it.
    pub(crate) fn count16(
        &mut self,
        field: &'static str,
        each: usize,
    ) -> Result<usize, DecodeError> {
        let given = self.array(field).map(i16::from_be_bytes)?;
        self.plausible(field, i32::from(given), each)
    }

    /// The same with 32 bits.
    pub(crate) fn count32(
        &mut self,
        field: &'static str,
        each: usize,
    ) -> Result<usize, DecodeError> {
        let given = self.array(field).map(i32::from_be_bytes)?;
        self.plausible(field, given, each)
    }

    /// The place of the next `len` bytes.
    pub(crate) fn range(
        &mut self,
        field: &'static str,
        len: usize,
    ) -> Result<Range<usize>, DecodeError> {
        if len > self.left() {
            return Err(DecodeError::CutOff { field });
        }
        let range = self.at..self.at + len;
        self.at = range.end;
        Ok(range)
    }

    /// The place of a text that ends with a zero byte, without that byte.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<Range<usize>, DecodeError> {
        let rest = self.message.get(self.at..).unwrap_or_default();
        let len = memchr::memchr(0, rest).ok_or(DecodeError::Unterminated { field })?;
        let range = self.at..self.at + len;
        self.at = range.end + 1;
        Ok(range)
    }

    /// A name. Bytes that are not UTF-8, which only a SQL_ASCII database can send, become U+FFFD.
    pub(crate) fn name(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let range = self.text(field)?;
        let bytes = self.message.get(range).unwrap_or_default();
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Ends the message.
    ///
    /// # Errors
    /// Bytes left over mean that some field was misread.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            bytes => Err(DecodeError::LeftOver { bytes }),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let rest = self.message.get(self.at..).unwrap_or_default();
        let bytes = rest.first_chunk::<N>().ok_or(DecodeError::CutOff { field })?;
        self.at += N;
        Ok(*bytes)
    }

    fn plausible(
        &self,
        field: &'static str,
        given: i32,
        each: usize,
    ) -> Result<usize, DecodeError> {
        let count =
            usize::try_from(given).map_err(|_negative| DecodeError::Negative { field, given })?;
        if count.saturating_mul(each) > self.left() {
            return Err(DecodeError::CutOff { field });
        }
        Ok(count)
    }
}
