//! What a receiver says of the URL that it was called at. Pure.
//!
//! A path or a query can be a secret, and receivers like to repeat it: `Cannot POST /robot/...`. What
//! is kept of an answer does not show it.

use bytes::Bytes;
use memchr::memmem;
use url::Position;
use url::Url;

use crate::config::settings::TargetPiece;

/// What stands for a piece of the URL.
const MASK: &[u8] = b"[secret]";

/// Shorter pieces are words like `hooks`, which an answer may well hold for other reasons.
const PIECE_BYTES_MIN: usize = 8;

/// From this length on a piece is no word, even without digits in it.
const LONG_BYTES: usize = 16;

/// The pieces of one URL.
#[derive(Debug)]
pub(crate) struct TextRedactor {
    /// The longest first: a shorter one may be a part of it.
    pieces: Vec<Vec<u8>>,
}

impl TextRedactor {
    /// `target` is what of its path and query differs from event to event, if something does: of that, what is
    /// the same for all.
    pub(crate) fn new(url: &Url, target: &[TargetPiece]) -> Self {
        let literals = target.iter().filter_map(|piece| match piece {
            TargetPiece::Literal(text) => Some(text.as_str()),
            TargetPiece::InPath(_) | TargetPiece::InQuery(_) => None,
        });
        let (path, query) = (url.path(), url.query().unwrap_or_default());
        let whole = &url[Position::BeforePath..Position::AfterQuery];
        let words = std::iter::once(whole).chain(literals);
        let words = words.flat_map(|text| text.split(['/', '?', '&', '=', ';']));
        let words = words.filter(|piece| is_telling(piece));
        let mut pieces: Vec<Vec<u8>> = [whole, path, query]
            .into_iter()
            .filter(|piece| piece.len() >= PIECE_BYTES_MIN)
            .chain(words)
            // As it is, and as some write it in JSON and in HTML.
            .flat_map(|piece| {
                [piece.to_owned(), piece.replace('/', "\\/"), piece.replace('&', "&amp;")]
            })
            .map(String::into_bytes)
            .collect();
        pieces.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        pieces.dedup();
        Self { pieces }
    }

    /// The text with a mask in the place of each piece.
    pub(crate) fn redacted(&self, text: Bytes) -> Bytes {
        self.pieces.iter().fold(text, |text, piece| masked(text, piece))
    }
}

/// The text with a mask in the place of `piece`, wherever it stands.
pub(crate) fn masked(text: Bytes, piece: &[u8]) -> Bytes {
    let mut found = memmem::find_iter(&text, piece).peekable();
    if piece.is_empty() || found.peek().is_none() {
        return text;
    }
    let (mut masked, mut from) = (Vec::with_capacity(text.len()), 0);
    for at in found {
        masked.extend_from_slice(text.get(from..at).unwrap_or_default());
        masked.extend_from_slice(MASK);
        from = at + piece.len();
    }
    masked.extend_from_slice(text.get(from..).unwrap_or_default());
    Bytes::from(masked)
}

/// Whether a piece is more than a word.
fn is_telling(piece: &str) -> bool {
    let has_digit = piece.bytes().any(|byte| byte.is_ascii_digit());
    piece.len() >= LONG_BYTES || (piece.len() >= PIECE_BYTES_MIN && has_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(url: &str, answer: &str) -> String {
        let redactor = TextRedactor::new(&url.parse().unwrap(), &[]);
        String::from_utf8(redactor.redacted(Bytes::from(answer.to_owned())).to_vec()).unwrap()
    }

    #[test]
    fn an_answer_does_not_repeat_the_url() {
        let url = "https://h/robot/hunter2hunter2?key=693a91f6-7b1c&v=2";
        let cases = [
            ("Cannot POST /robot/hunter2hunter2", "Cannot POST [secret]"),
            ("no /robot/hunter2hunter2?key=693a91f6-7b1c&v=2 here", "no [secret] here"),
            (r#"{"path":"\/robot\/hunter2hunter2"}"#, r#"{"path":"[secret]"}"#),
            ("<b>key=693a91f6-7b1c&amp;v=2</b>", "<b>[secret]</b>"),
            ("bad key 693a91f6-7b1c", "bad key [secret]"),
            ("the robot is fine", "the robot is fine"),
            ("", ""),
        ];
        for (answer, expected) in cases {
            assert_eq!(redacted(url, answer), expected, "case: {answer}");
        }
        assert_eq!(redacted("https://h/", "GET / is fine"), "GET / is fine");
        assert_eq!(redacted("https://h/hooks", "no such hooks"), "no such hooks");
        assert_eq!(redacted("https://h/customers", "customers are gone"), "customers are gone");
    }
}
