//! JSON text without the white space between its tokens. Pure.
//!
//! Receivers that sign what `JSON.stringify` makes of a body they have parsed get the bytes that were
//! sent only if there is none. Numbers and strings stay as they are, byte for byte.

/// Where in a text a reading stands that goes on later.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Compacting {
    in_string: bool,
}

impl Compacting {
    /// Appends a piece of a JSON text without its white space, and gives how much of it was read: all,
    /// or all but a backslash whose character is in the next piece.
    pub(crate) fn piece(&mut self, out: &mut Vec<u8>, text: &[u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if self.in_string {
                let Some(end) = memchr::memchr2(b'"', b'\\', rest) else {
                    out.extend_from_slice(rest);
                    return text.len();
                };
                let taken = if rest.get(end) == Some(&b'\\') { end + 2 } else { end + 1 };
                let Some(plain) = rest.get(..taken) else {
                    out.extend_from_slice(rest.get(..end).unwrap_or_default());
                    return at + end;
                };
                self.in_string = rest.get(end) == Some(&b'\\');
                out.extend_from_slice(plain);
                at += taken;
            } else {
                let ends = |byte: &u8| is_space(*byte) || *byte == b'"';
                let end = rest.iter().position(ends).unwrap_or(rest.len());
                out.extend_from_slice(rest.get(..end).unwrap_or_default());
                at += end;
                if let Some(&byte) = rest.get(end) {
                    if byte == b'"' {
                        out.push(byte);
                        self.in_string = true;
                    }
                    at += 1;
                }
            }
        }
        text.len()
    }
}

/// Appends a whole JSON text without its white space.
pub(crate) fn compact_into(out: &mut Vec<u8>, text: &[u8]) {
    let read = Compacting::default().piece(out, text);
    // A text that ends with a backslash is no JSON; nothing of it is lost all the same.
    out.extend_from_slice(text.get(read..).unwrap_or_default());
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compacted(text: &str) -> String {
        let mut out = Vec::new();
        compact_into(&mut out, text.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn white_space_goes_and_all_else_stays_byte_for_byte() {
        let cases = [
            (r#"{"a": 1.50, "b": [1, 2], "c": {}}"#, r#"{"a":1.50,"b":[1,2],"c":{}}"#),
            (
                "{\n  \"a b\" :\t\"c  d\\n \",\r\n\"e\": null }\n",
                "{\"a b\":\"c  d\\n \",\"e\":null}",
            ),
            (r#""a\" : b""#, r#""a\" : b""#),
            (r#""a\\" , 1"#, r#""a\\",1"#),
            (r#"["\\\"", " "]"#, r#"["\\\""," "]"#),
            (" 1e5 ", "1e5"),
            ("", ""),
            ("\"a\\", "\"a\\"),
        ];
        for (text, expected) in cases {
            assert_eq!(compacted(text), expected, "case: {text}");
        }
    }

    proptest! {
        #[test]
        fn a_text_means_the_same_and_may_be_cut_anywhere(
            value in prop::collection::vec(("[a\"\\\\ é\n]{0,9}", any::<i64>()), 0..9),
            cut in any::<prop::sample::Index>(),
        ) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            let whole = compacted(&text);
            prop_assert_eq!(&whole, &serde_json::to_string(&value).unwrap());
            let (mut out, mut reading) = (Vec::new(), Compacting::default());
            let cut = cut.index(text.len());
            let read = reading.piece(&mut out, &text.as_bytes()[..cut]);
            reading.piece(&mut out, &text.as_bytes()[read..]);
            prop_assert_eq!(out, whole.into_bytes());
        }
    }
}
