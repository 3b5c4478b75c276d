//! Messages whose text is longer than their system takes: cut, or in several pieces. Pure.

use bytes::Bytes;
use serde_json::Map;
use serde_json::Value as Json;

use crate::config::settings::Overflow;
use crate::config::settings::Preset;

/// What ends a text that was cut.
const ELLIPSIS: &str = "…";

/// The bodies in the place of a message whose text is too long; `None` if it is not.
pub(super) fn of(
    preset: &Preset,
    overflow: Overflow,
    message: &Map<String, Json>,
) -> Option<Vec<Bytes>> {
    preset.texts.iter().find_map(|&(name, max)| {
        let text = message.get(name)?.get("content")?.as_str()?;
        let pieces = || shortened(text, max, overflow);
        (text.len() > max)
            .then(|| pieces().into_iter().map(|text| with(message, name, text)).collect())
    })
}

pub(super) fn bytes_of(message: &Map<String, Json>) -> Bytes {
    Bytes::from(serde_json::to_vec(message).unwrap_or_default())
}

/// The message with another `content` in this member.
fn with(message: &Map<String, Json>, name: &str, text: String) -> Bytes {
    let mut message = message.clone();
    if let Some(content) = message.get_mut(name).and_then(|member| member.get_mut("content")) {
        *content = Json::String(text);
    }
    bytes_of(&message)
}

/// A text in pieces of at most `max` bytes, cut between characters.
pub(super) fn shortened(text: &str, max: usize, overflow: Overflow) -> Vec<String> {
    if overflow == Overflow::Cut {
        let end = text.floor_char_boundary(max - ELLIPSIS.len());
        let (start, _) = text.split_at_checked(end).unwrap_or((text, ""));
        return vec![format!("{start}{ELLIPSIS}")];
    }
    let (mut pieces, mut rest) = (Vec::new(), text);
    while rest.len() > max {
        let Some((piece, after)) = rest.split_at_checked(rest.floor_char_boundary(max)) else {
            break;
        };
        pieces.push(piece.to_owned());
        rest = after;
    }
    pieces.push(rest.to_owned());
    pieces
}
