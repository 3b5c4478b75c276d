//! Builds a [`EventBody`] with one allocation for all of its text.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::settings::JsonForm;
use crate::event::datum;
use crate::event::datum::javascript;
use crate::flow::body::BodyPart;
use crate::flow::body::EventBody;
use crate::flow::body::LARGE_TEXT_BYTES;
use crate::flow::body::escape_into;
use crate::flow::change::ColumnValue;
use crate::flow::change::RowTuple;
use crate::flow::compact::compact_into;
use crate::flow::hex::is_hex;
use crate::flow::relation::SqlType;
use crate::flow::time::Timestamp;

/// A part whose text still lies in the writer's buffer.
#[derive(Debug)]
enum JsonPiece {
    Text(Range<usize>),
    Whole(BodyPart),
}

/// Collects a body. Reused from event to event, so that its buffers grow once.
#[derive(Debug, Default)]
pub(crate) struct JsonWriter {
    text: Vec<u8>,
    /// Where the text that belongs to no piece yet begins.
    open: usize,
    pieces: Vec<JsonPiece>,
    /// Bytes of the pieces that are slices of the row.
    shared: usize,
    form: JsonForm,
}

impl JsonWriter {
    /// Empty; what is written next has its values in this form.
    pub(crate) fn with_form(&mut self, form: JsonForm) -> &mut Self {
        self.form = form;
        self
    }

    /// Appends a JSON value.
    pub(crate) fn json(&mut self, json: &[u8]) {
        let start = self.text.len();
        compact_into(&mut self.text, json);
        if self.form == JsonForm::Javascript {
            javascript::rewrite(&mut self.text, start);
        }
    }

    /// Appends text as it is.
    pub(crate) fn raw(&mut self, text: impl AsRef<[u8]>) {
        self.text.extend_from_slice(text.as_ref());
    }

    /// Appends `text` as a JSON string.
    pub(crate) fn string(&mut self, text: &[u8]) {
        datum::write_string(&mut self.text, text);
    }

    /// Appends `text` as a part of a JSON string.
    pub(crate) fn escaped(&mut self, text: &[u8]) {
        escape_into(&mut self.text, text);
    }

    /// Appends a column's text as a part of a JSON string.
    pub(crate) fn escaped_column(&mut self, row: &RowTuple, column: usize) {
        let ColumnValue::Text(text) = row.value(column) else { return };
        match (text.len() > LARGE_TEXT_BYTES).then(|| row.shared(column)).flatten() {
            Some(shared) => self.part(BodyPart::Escaped(shared)),
            None => self.escaped(text),
        }
    }

    /// Appends a column's text as it is.
    pub(crate) fn raw_column(&mut self, row: &RowTuple, column: usize) {
        let ColumnValue::Text(text) = row.value(column) else { return };
        if std::str::from_utf8(text).is_err() {
            return self.raw(String::from_utf8_lossy(text).as_bytes()); // of a SQL_ASCII database
        }
        match (text.len() > LARGE_TEXT_BYTES).then(|| row.shared(column)).flatten() {
            Some(shared) => self.part(BodyPart::Bytes(shared)),
            None => self.raw(text),
        }
    }

    /// Appends a column's value; null for null and for a value that PostgreSQL did not send.
    pub(crate) fn column(&mut self, row: &RowTuple, column: usize, sql_type: &SqlType) {
        let ColumnValue::Text(text) = row.value(column) else { return self.raw("null") };
        let large = (text.len() > LARGE_TEXT_BYTES).then(|| row.shared(column)).flatten();
        match (large, sql_type) {
            (Some(shared), SqlType::Text) => {
                self.raw("\"");
                self.part(BodyPart::Escaped(shared));
                self.raw("\"");
            }
            (Some(shared), SqlType::Bytea) if is_large_bytea(text) => {
                self.raw("\"");
                self.part(BodyPart::Base64(shared.slice(HEX_MARK_BYTES..)));
                self.raw("\"");
            }
            (Some(shared), SqlType::Json)
                if self.form == JsonForm::Stored && datum::is_json(text) =>
            {
                self.part(BodyPart::Compacted(shared));
            }
            (large, _) => {
                let start = self.text.len();
                if large.is_some() {
                    // An array or row: its JSON is about as long. Doubling would take up more.
                    self.text.reserve_exact(text.len() + text.len() / 4);
                }
                datum::write_json(&mut self.text, sql_type, text);
                if self.form == JsonForm::Javascript && *sql_type != SqlType::Text {
                    javascript::rewrite(&mut self.text, start);
                }
            }
        }
    }

    pub(crate) fn attempt_seconds(&mut self) {
        self.part(BodyPart::AttemptSeconds);
    }

    /// Without quotes around it.
    pub(crate) fn attempt_iso(&mut self) {
        self.part(BodyPart::AttemptIso);
    }

    pub(crate) fn age_seconds(&mut self, born: Timestamp) {
        self.part(BodyPart::AgeSeconds { born });
    }

    /// Bytes of the body so far.
    pub(crate) fn written(&self) -> usize {
        self.text.len() + self.shared
    }

    fn part(&mut self, part: BodyPart) {
        self.close_text();
        self.shared += part.held_bytes();
        self.pieces.push(JsonPiece::Whole(part));
    }

    fn close_text(&mut self) {
        if self.open < self.text.len() {
            self.pieces.push(JsonPiece::Text(self.open..self.text.len()));
            self.open = self.text.len();
        }
    }

    /// The body; the writer is empty again.
    pub(crate) fn finish(&mut self) -> EventBody {
        self.close_text();
        let text = if self.text.len() > LARGE_TEXT_BYTES {
            // It would be in memory twice, and the buffer would stay as large.
            Bytes::from(std::mem::take(&mut self.text))
        } else {
            // Copied to its exact size: the scratch buffer is as large as the largest event so far.
            Bytes::copy_from_slice(&self.text)
        };
        let parts = self.pieces.drain(..).map(|piece| match piece {
            JsonPiece::Text(range) => BodyPart::Bytes(text.slice(range)),
            JsonPiece::Whole(part) => part,
        });
        let body = EventBody::new(parts.collect());
        self.text.clear();
        self.text.shrink_to(LARGE_TEXT_BYTES);
        (self.open, self.shared) = (0, 0);
        body
    }
}

/// `\x`, which precedes the digits of a bytea.
const HEX_MARK_BYTES: usize = 2;

fn is_large_bytea(text: &[u8]) -> bool {
    datum::hex_of_bytea(text).is_some_and(is_hex)
}

/// A column as payloads see it: where it stands, its type, and `"name":` ready to be written.
#[derive(Debug)]
pub(crate) struct NamedColumn {
    pub(crate) index: usize,
    pub(crate) sql_type: Arc<SqlType>,
    pub(crate) label: Vec<u8>,
    pub(crate) name: Arc<str>,
}

impl NamedColumn {
    pub(crate) fn new(index: usize, name: &str, sql_type: &Arc<SqlType>) -> Self {
        let mut label = Vec::new();
        datum::write_string(&mut label, name.as_bytes());
        label.push(b':');
        Self { index, sql_type: Arc::clone(sql_type), label, name: Arc::from(name) }
    }
}
