//! What an answer of a chat system says. Pure.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value as Json;

use crate::config::settings::ChannelAnswer;
use crate::config::settings::Preset;
use crate::delivery::response::reply_verdict::without_mark;

/// The longest reason of a system that is shown.
const REASON_CHARS_MAX: usize = 200;

/// How much of an answer that is a word is looked at.
const WORD_BYTES_MAX: usize = 80;

/// An answer, read by its system's preset.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct ChannelReply {
    pub(super) said: Said,
    /// The system's own code, where it is no success and has one.
    pub(super) code: Option<String>,
}

/// What an answer says, each with its reason.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Said {
    Taken,
    /// Not before this time, and nothing else either.
    Throttled(Duration, String),
    Again(String),
    /// The token is none any more.
    Stale(String),
    Refused(String),
    /// It is no answer of this system.
    Unreadable(String),
}

impl ChannelReply {
    pub(super) fn read(preset: &Preset, status: Option<StatusCode>, body: &[u8]) -> Self {
        match preset.answer {
            ChannelAnswer::Word(word) => Self::of_word(word, status.unwrap_or_default(), body),
            ChannelAnswer::Code { code, text } => {
                Self::of_code(preset, (code, text), status.unwrap_or_default(), body)
            }
        }
    }

    fn of_word(word: &str, status: StatusCode, body: &[u8]) -> Self {
        let body = body.trim_ascii();
        if body == word.as_bytes() {
            return Self { said: Said::Taken, code: None };
        }
        let text = String::from_utf8_lossy(body.get(..WORD_BYTES_MAX).unwrap_or(body));
        // `no_service`, `channel_is_archived`
        let is_code = !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let said = match status.is_success() {
            true => Said::Unreadable(format!("{}, but its body is not `{word}`", status.as_str())),
            false => Said::Refused(format!("{}: {}", status.as_str(), plain(&text))),
        };
        Self { said, code: is_code.then(|| text.into_owned()) }
    }

    fn of_code(
        preset: &Preset,
        (code_name, text_name): (&str, &str),
        status: StatusCode,
        body: &[u8],
    ) -> Self {
        let answer: Option<Json> = serde_json::from_slice(without_mark(body)).ok();
        let number = |value: &Json| value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
        let Some(code) = answer.as_ref().and_then(|answer| number(answer.get(code_name)?)) else {
            let status = status.as_str();
            let said = Said::Unreadable(format!("{status}, but its body holds no {code_name}"));
            return Self { said, code: None };
        };
        if code == 0 {
            return Self { said: Said::Taken, code: None };
        }
        let text = answer.as_ref().and_then(|answer| answer.get(text_name)?.as_str());
        let detail = format!("{code_name} {code}: {}", plain(text.unwrap_or_default()));
        let wait = preset.waits.iter().find(|(known, _)| *known == code);
        let said = if let Some((_, seconds)) = wait {
            Said::Throttled(Duration::from_secs(*seconds), detail)
        } else if preset.stale.contains(&code) {
            Said::Stale(detail)
        } else if preset.again.contains(&code) {
            Said::Again(detail)
        } else {
            Said::Refused(detail)
        };
        Self { said, code: Some(code.to_string()) }
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}
