//! Values made of values: arrays, row types and vectors, in any nesting.
//!
//! What is read here is what `array_out` and `record_out` of the server write; whatever else is
//! `None`, and the caller takes the text as it is. Arrays and row types also say whether all row types in
//! them fit. Depth is bounded: by [`DIMENSIONS_MAX`] for the
//! braces of one array, and by the type for arrays in rows in arrays.

use std::borrow::Cow;
use std::sync::Arc;

use crate::event::datum::write_json;
use crate::event::datum::write_string;
use crate::event::datum::write_value;
use crate::flow::relation::SqlType;

/// PostgreSQL's MAXDIM.
const DIMENSIONS_MAX: usize = 6;

/// Appends an array of numbers from `1 2 3`.
pub(super) fn write_vector(out: &mut Vec<u8>, element: &SqlType, text: &[u8]) -> Option<()> {
    out.push(b'[');
    if !text.is_empty() {
        for (at, value) in text.split(|byte| *byte == b' ').enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_json(out, element, value);
        }
    }
    out.push(b']');
    Some(())
}

/// What may stand at the reader's place in an array.
enum ExpectedToken {
    /// After an opening brace: a value, another brace, or at once the end.
    First,
    /// After a delimiter: a value or another brace.
    Next,
    /// After a value: a delimiter or the end.
    After,
}

/// Appends `[[1,2],[3,null]]` from `{{1,2},{3,NULL}}` or `[0:1][5:6]={{1,2},{3,NULL}}`: JSON has no
/// place for bounds.
pub(super) fn write_array(
    out: &mut Vec<u8>,
    element: &SqlType,
    delimiter: u8,
    text: &[u8],
) -> Option<bool> {
    let mut fits = true;
    let mut r = NestedReader { rest: without_bounds(text)? };
    r.expect(b'{')?;
    out.push(b'[');
    let mut depth = 1_usize;
    let mut expected = ExpectedToken::First;
    while depth > 0 {
        match (expected, *r.rest.first()?) {
            (ExpectedToken::First | ExpectedToken::Next, b'{') if depth < DIMENSIONS_MAX => {
                r.skip(1);
                out.push(b'[');
                depth += 1;
                expected = ExpectedToken::First;
            }
            (ExpectedToken::First | ExpectedToken::After, b'}') => {
                r.skip(1);
                out.push(b']');
                depth -= 1;
                expected = ExpectedToken::After;
            }
            (ExpectedToken::After, byte) if byte == delimiter => {
                r.skip(1);
                out.push(b',');
                expected = ExpectedToken::Next;
            }
            (ExpectedToken::First | ExpectedToken::Next, _) => {
                match r.element(delimiter)? {
                    Some(value) => fits &= write_value(out, element, &value),
                    None => out.extend_from_slice(b"null"),
                }
                expected = ExpectedToken::After;
            }
            (ExpectedToken::After, _) => return None,
        }
    }
    r.rest.is_empty().then_some(fits)
}

/// Appends an object from `(1,"a ""b""",)`: a field's value, or nothing for null.
pub(super) fn write_composite(
    out: &mut Vec<u8>,
    fields: &[(String, Arc<SqlType>)],
    text: &[u8],
) -> Option<bool> {
    let mut fits = true;
    let mut r = NestedReader { rest: text };
    r.expect(b'(')?;
    out.push(b'{');
    for (at, (name, sql_type)) in fields.iter().enumerate() {
        if at > 0 {
            // Attributes are appended: a row that was written before has the first ones.
            if r.rest == b")" {
                break;
            }
            r.expect(b',')?;
            out.push(b',');
        }
        write_string(out, name.as_bytes());
        out.push(b':');
        match r.field()? {
            Some(value) => fits &= write_value(out, sql_type, &value),
            None => out.extend_from_slice(b"null"),
        }
    }
    // Fields are left over if one was dropped from the type after the row was written.
    r.expect(b')')?;
    out.push(b'}');
    r.rest.is_empty().then_some(fits)
}

/// Appends an object from `"a"=>"1", "b"=>NULL`, which hstore writes.
pub(super) fn write_hstore(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let mut r = NestedReader { rest: text };
    out.push(b'{');
    let mut is_first = true;
    while !r.rest.is_empty() {
        if !std::mem::take(&mut is_first) {
            r.expect(b',')?;
            r.expect(b' ')?;
            out.push(b',');
        }
        r.expect(b'"')?;
        let key = r.quoted_element()?;
        write_string(out, &key);
        out.push(b':');
        r.rest = r.rest.strip_prefix(b"=>")?;
        if let Some(rest) = r.rest.strip_prefix(b"NULL") {
            r.rest = rest;
            out.extend_from_slice(b"null");
        } else {
            r.expect(b'"')?;
            let value = r.quoted_element()?;
            write_string(out, &value);
        }
    }
    out.push(b'}');
    Some(())
}

/// Skips `[0:1][5:6]=`, which the server writes if a lower bound is not 1.
fn without_bounds(text: &[u8]) -> Option<&[u8]> {
    if !text.starts_with(b"[") {
        return Some(text);
    }
    let equals = memchr::memchr(b'=', text)?;
    let (bounds, values) = text.split_at_checked(equals)?;
    let plain =
        |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'[' | b']' | b':' | b'-' | b'+');
    bounds.iter().all(plain).then_some(values.get(1..)?)
}

struct NestedReader<'a> {
    rest: &'a [u8],
}

impl<'a> NestedReader<'a> {
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    /// Takes `len` bytes.
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// An element of an array: quoted, plain, or null. A backslash makes the next byte a plain one.
    fn element(&mut self, delimiter: u8) -> Option<Option<Cow<'a, [u8]>>> {
        if self.expect(b'"').is_some() {
            return self.quoted_element().map(Some);
        }
        let ends = |byte: &u8| *byte == delimiter || matches!(byte, b'}' | b'{' | b'"' | b'\\');
        let len = self.rest.iter().position(ends)?;
        let plain = self.take(len)?;
        match (plain, self.rest.first()) {
            // The server quotes elements that are empty or have any of these in them.
            ([], _) | (_, Some(b'{' | b'"' | b'\\')) => None,
            (null, _) if null.eq_ignore_ascii_case(b"NULL") => Some(None),
            (plain, _) => Some(Some(Cow::Borrowed(plain))),
        }
    }

    /// The rest of an element whose opening quote has been read.
    fn quoted_element(&mut self) -> Option<Cow<'a, [u8]>> {
        let mut value = Cow::Borrowed(b"".as_slice());
        loop {
            let plain = self.take(memchr::memchr2(b'"', b'\\', self.rest)?)?;
            append(&mut value, plain);
            if self.expect(b'"').is_some() {
                return Some(value);
            }
            self.skip(1); // the backslash
            let escaped = self.take(1)?;
            append(&mut value, escaped);
        }
    }

    /// A field of a row: text in which any part may be quoted; within quotes, two quotes or a
    /// backslash and a byte stand for one byte. Nothing at all is null.
    fn field(&mut self) -> Option<Option<Cow<'a, [u8]>>> {
        if matches!(self.rest.first()?, b',' | b')') {
            return Some(None);
        }
        let mut value = Cow::Borrowed(b"".as_slice());
        let mut quoted = false;
        loop {
            let ends = |byte: &u8| match byte {
                b'"' | b'\\' => true,
                b',' | b')' => !quoted,
                _ => false,
            };
            let plain = self.take(self.rest.iter().position(ends)?)?;
            append(&mut value, plain);
            match self.rest {
                [b',' | b')', ..] if !quoted => return Some(Some(value)),
                [b'\\', ..] => {
                    self.skip(1);
                    let escaped = self.take(1)?;
                    append(&mut value, escaped);
                }
                [b'"', b'"', ..] if quoted => {
                    self.skip(1);
                    let quote = self.take(1)?;
                    append(&mut value, quote);
                }
                _ => {
                    self.skip(1);
                    quoted = !quoted;
                }
            }
        }
    }
}

/// Joins pieces; a value of one piece is not copied.
fn append<'a>(value: &mut Cow<'a, [u8]>, piece: &'a [u8]) {
    if value.is_empty() {
        *value = Cow::Borrowed(piece);
    } else if !piece.is_empty() {
        value.to_mut().extend_from_slice(piece);
    }
}
