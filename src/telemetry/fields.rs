//! Fields of log lines as text: `name=value`, texts in quotes.
//!
//! Looks as `tracing_subscriber` has it. There is a line for every delivery, and most of its values
//! are short plain texts and numbers: these are written as they are, where the library's visitor
//! takes each character through `Debug`, which was a tenth of a delivery's instructions.

use std::fmt;
use std::fmt::Write;

use tracing::field::Field;
use tracing::field::Visit;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Formats the fields of a log line.
#[derive(Debug)]
pub(super) struct FieldText;

impl<'w> FormatFields<'w> for FieldText {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldVisitor { writer, is_first: true, written: Ok(()) };
        fields.record(&mut visitor);
        visitor.written
    }
}

struct FieldVisitor<'w> {
    writer: Writer<'w>,
    is_first: bool,
    written: fmt::Result,
}

impl FieldVisitor<'_> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.written.is_ok() {
            self.written = self.write(field.name(), value);
        }
    }

    fn write(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Writer<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let out = &mut self.writer;
        if !std::mem::take(&mut self.is_first) {
            out.write_str(" ")?;
        }
        let (before, after) = if out.has_ansi_escapes() {
            ("\x1b[3m", "\x1b[0m\x1b[2m=\x1b[0m") // italic; dimmed
        } else {
            ("", "=")
        };
        if name != "message" {
            out.write_str(before)?;
            out.write_str(name.strip_prefix("r#").unwrap_or(name))?;
            out.write_str(after)?;
        }
        value(out)
    }
}

impl Visit for FieldVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if field.name() == "message" {
            self.field(field, |out| Tame(out).write_str(value));
        } else if value.as_bytes().iter().all(is_plain) {
            self.field(field, |out| {
                out.write_str("\"")?;
                out.write_str(value)?;
                out.write_str("\"")
            });
        } else {
            self.field(field, |out| write!(out, "{value:?}"));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, |out| out.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |out| out.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.field(field, |out| out.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.field(field, |out| write!(Tame(out), "{value:?}"));
        } else {
            self.field(field, |out| write!(out, "{value:?}"));
        }
    }
}

/// Lets no control characters through to a terminal, but line breaks.
struct Tame<'a, 'w>(&'a mut Writer<'w>);

impl Write for Tame<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_wild = |c: char| c.is_control() && c != '\n';
        let mut pieces = text.split_inclusive(is_wild);
        pieces.try_for_each(|piece| match piece.char_indices().next_back() {
            Some((at, last)) if is_wild(last) => {
                self.0.write_str(piece.get(..at).unwrap_or_default())?;
                write!(self.0, "{}", last.escape_unicode())
            }
            _ => self.0.write_str(piece),
        })
    }
}
