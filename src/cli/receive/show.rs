//! How a received request looks: a line for it, and its body below. Pure.

use std::collections::HashMap;
use std::collections::VecDeque;

use chrono::DateTime;
use chrono::Local;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::cli::receive::server::ReceivedRequest;
use crate::cli::receive::signature::SignatureVerdict;
use crate::cli::terminal::Colours;
use crate::cli::terminal::visible;
use crate::flow::time::Timestamp;

/// A body's lines that are shown; a row of a wide table fits.
const LINES_MAX: usize = 60;

/// Characters of one line that are shown.
const LINE_CHARS_MAX: usize = 300;

/// Ids that are remembered to recognise repeats: a few megabytes at most.
const IDS_MAX: usize = 50_000;

/// Recognises requests that came before, by path and id: an event that goes to two endpoints is no
/// repeat. Forgets the oldest beyond a limit.
#[derive(Debug, Default)]
pub(crate) struct RepeatCounter {
    times: HashMap<String, u32>,
    order: VecDeque<String>,
}

impl RepeatCounter {
    /// How often this id has come to this path, this time included.
    pub(crate) fn count(&mut self, path: &str, id: &str) -> u32 {
        let request = format!("{path} {id}");
        if let Some(times) = self.times.get_mut(&request) {
            *times = times.saturating_add(1);
            return *times;
        }
        if self.order.len() == IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.times.remove(&oldest);
        }
        self.times.insert(request.clone(), 1);
        self.order.push_back(request);
        1
    }
}

/// `12:00:00.123  POST /hook  200  evt_...  signature ok  repeat: seen 2 times`
pub(crate) fn headline(received: &ReceivedRequest, times: u32, colours: Colours) -> String {
    let mut parts = vec![
        colours.faint(&local_time(received.at)).into_owned(),
        format!("{} {}", received.method, visible(&received.path)),
        if received.status_answered.is_success() {
            colours.good(received.status_answered.as_str()).into_owned()
        } else {
            colours.bad(received.status_answered.as_str()).into_owned()
        },
        received.id().map_or_else(|| "no webhook-id".to_owned(), |id| visible(id).into_owned()),
    ];
    match received.signature {
        SignatureVerdict::NotChecked => {}
        SignatureVerdict::Ok => parts.push(format!("signature {}", colours.good("ok"))),
        SignatureVerdict::Missing => parts.push(format!("signature {}", colours.bad("missing"))),
        SignatureVerdict::Wrong(flaw) => {
            parts.push(format!("signature {}: {flaw}", colours.bad("WRONG")));
        }
    }
    if times > 1 {
        parts.push(colours.bad(&format!("repeat: seen {times} times")).into_owned());
    }
    if !received.complete {
        let bytes = received.body_bytes;
        parts.push(colours.bad(&format!("cut off after {bytes} bytes")).into_owned());
    }
    parts.join("  ")
}

/// The body's lines, indented, harmless and limited in number and length.
pub(crate) fn body_lines(received: &ReceivedRequest) -> Vec<String> {
    let kept = String::from_utf8_lossy(&received.body);
    let whole = received.body.len() as u64 == received.body_bytes;
    let text = if whole && serde_json::from_str::<IgnoredAny>(&kept).is_ok() {
        indent(&kept)
    } else {
        kept.into_owned()
    };
    let mut lines: Vec<String> =
        text.lines().take(LINES_MAX).map(|line| format!("    {}", shorten(line))).collect();
    let more = text.lines().count().saturating_sub(LINES_MAX);
    if more > 0 {
        lines.push(format!("    ... and {more} more lines"));
    }
    if !whole {
        lines.push(format!("    ... of {} bytes in all", received.body_bytes));
    }
    lines
}

/// The same for scripts. `body` is the text as it came, since only that can be signed.
pub(crate) fn json(received: &ReceivedRequest, times: u32) -> serde_json::Value {
    let headers: serde_json::Map<String, serde_json::Value> = received
        .headers
        .iter()
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into())
        })
        .collect();
    json!({
        "at": received.at.iso_millis(),
        "method": received.method.as_str(),
        "path": received.path,
        "id": received.id(),
        "times": times,
        "signature": received.signature.as_str(),
        "status": received.status_answered.as_u16(),
        "complete": received.complete,
        "headers": headers,
        "body_bytes": received.body_bytes,
        "body": String::from_utf8_lossy(&received.body),
    })
}

fn local_time(at: Timestamp) -> String {
    match DateTime::from_timestamp_micros(at.micros()) {
        Some(time) => time.with_timezone(&Local).format("%H:%M:%S%.3f").to_string(),
        None => at.iso_millis(),
    }
}

fn shorten(line: &str) -> String {
    let Some((cut, _)) = line.char_indices().nth(LINE_CHARS_MAX) else {
        return visible(line).into_owned();
    };
    let (shown, rest) = line.split_at(cut);
    format!("{} ... and {} more characters", visible(shown), rest.chars().count())
}

/// Lays valid JSON out in lines. It works on the text, since a parsed number could lose digits and
/// the point of looking is to see what came.
fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut chars = json.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            match c {
                '\\' => out.extend(chars.next()),
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = chars.next_if(|&c| c == '}' || c == ']') {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => {
                in_string = other == '"';
                out.push(other);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderMap;
    use http::HeaderValue;
    use http::Method;
    use http::StatusCode;
    use proptest::prelude::*;

    fn received(body: impl Into<Bytes>) -> ReceivedRequest {
        let body = body.into();
        ReceivedRequest {
            at: Timestamp::from_seconds(1_700_000_000),
            method: Method::POST,
            path: "/hook".to_owned(),
            headers: HeaderMap::new(),
            body_bytes: body.len() as u64,
            body,
            complete: true,
            signature: SignatureVerdict::NotChecked,
            status_answered: StatusCode::OK,
        }
    }

    #[test]
    fn json_is_laid_out_with_every_digit_it_had() {
        let text = r#"{"id":12345678901234567890.10,"empty":{ },"list":[1,[ ]],"s":"a,b:{\"}"}"#;
        let expected = "{\n  \"id\": 12345678901234567890.10,\n  \"empty\": {},\n  \"list\": [\n    \
                        1,\n    []\n  ],\n  \"s\": \"a,b:{\\\"}\"\n}";
        assert_eq!(indent(text), expected);
    }

    proptest! {
        #[test]
        fn any_body_is_shown_in_few_harmless_lines(body: Vec<u8>) {
            let lines = body_lines(&received(body));
            prop_assert!(lines.len() <= LINES_MAX + 2);
            for line in lines {
                prop_assert_eq!(visible(&line), line.as_str());
            }
        }

        #[test]
        fn laying_out_changes_only_blanks(
            keys in prop::collection::vec(any::<String>(), 0..5), number: i64,
        ) {
            let value: serde_json::Value =
                keys.into_iter().map(|key| (key.clone(), json!([number, key, {}]))).collect();
            let read: serde_json::Value =
                serde_json::from_str(&indent(&value.to_string())).unwrap();
            prop_assert_eq!(read, value);
        }
    }

    #[test]
    fn a_long_body_is_cut_and_says_so() {
        let lines = body_lines(&received("x\n".repeat(100)));
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert_eq!(lines.last().unwrap(), "    ... and 40 more lines");
        let lines = body_lines(&received("張".repeat(LINE_CHARS_MAX + 7)));
        assert!(lines[0].ends_with("張 ... and 7 more characters"), "{lines:?}");
    }

    #[test]
    fn the_headline_names_what_is_wrong() {
        let mut one = received("");
        one.headers.insert("webhook-id", HeaderValue::from_static("evt_1"));
        let line = headline(&one, 1, Colours::off());
        assert!(line.ends_with("POST /hook  200  evt_1"), "{line}");

        one.path = "/\u{1b}[2J".to_owned();
        one.signature = SignatureVerdict::Missing;
        one.complete = false;
        let line = headline(&one, 3, Colours::off());
        let expected = "POST /\\u{1b}[2J  200  evt_1  signature missing  repeat: seen 3 times  \
                        cut off after 0 bytes";
        assert!(line.ends_with(expected), "{line}");
    }

    #[test]
    fn repeats_are_counted_and_the_oldest_forgotten() {
        let mut repeats = RepeatCounter::default();
        let mut count = |id| repeats.count("/", id);
        assert_eq!((count("a"), count("b"), count("a")), (1, 1, 2));
        assert_eq!(repeats.count("/other", "a"), 1, "another endpoint's");
        for n in 0..IDS_MAX {
            repeats.count("/", &n.to_string());
        }
        assert_eq!(repeats.count("/", "a"), 1);
        assert_eq!(repeats.times.len(), IDS_MAX);
        assert_eq!(repeats.order.len(), IDS_MAX);
    }
}
