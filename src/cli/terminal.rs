//! What goes to the terminal: lines that no row, header or name can turn into commands to it.
//!
//! Bodies, headers and the names in a catalog are other people's text. Printed as it is, an escape
//! sequence in them could rename the window, rewrite earlier lines or type into the shell.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::io::IsTerminal;
use std::io::Write as _;

/// The reader of the output has left, as `head` does. It has a type of its own because a connection to PostgreSQL that
/// breaks is a broken pipe as well, and that is no reason to end in silence.
#[derive(Debug)]
pub(crate) struct ClosedOutput;

impl fmt::Display for ClosedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of the output has left")
    }
}

impl std::error::Error for ClosedOutput {}

impl ClosedOutput {
    /// Whether that is what an output has answered.
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|cause| cause.is::<Self>())
    }

    /// What became of writing to an output.
    fn told(written: io::Result<()>) -> io::Result<()> {
        written.map_err(|error| match error.kind() {
            kind @ io::ErrorKind::BrokenPipe => io::Error::new(kind, Self),
            _ => error,
        })
    }
}

/// Writes a line to standard output.
///
/// # Errors
/// As the output: a closed pipe comes back as [`ClosedOutput`], where `println!` would panic.
pub(crate) fn line(text: &str) -> io::Result<()> {
    ClosedOutput::told(writeln!(io::stdout().lock(), "{text}"))
}

/// Writes a line to standard error: what a person wants to know and a pipe does not.
///
/// # Errors
/// As for [`line()`].
pub(crate) fn note(text: &str) -> io::Result<()> {
    ClosedOutput::told(writeln!(io::stderr().lock(), "{text}"))
}

/// Writes over the line that was drawn before, and stays on it.
///
/// # Errors
/// As for [`line()`].
pub(crate) fn redraw(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    ClosedOutput::told(write!(out, "\r{text}\x1b[K").and_then(|()| out.flush()))
}

/// `text` with every character written out that a terminal would act on instead of showing:
/// controls (also the 8-bit ones) and marks that turn the direction of writing.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(acts_on_terminal) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts_on_terminal(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// `value` as one line of JSON in which the same characters are escaped as JSON escapes them.
///
/// Line breaks between the tokens of a raw value become blanks.
pub(crate) fn json_line(value: &(impl serde::Serialize + ?Sized)) -> String {
    let json = serde_json::to_string(value).expect("what is shown has strings for names");
    if !json.contains(acts_on_terminal) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        // All others stand only inside of strings, so an escape is the same character there.
        if matches!(c, '\n' | '\r' | '\t') {
            out.push(' ');
        } else if acts_on_terminal(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
            }
        } else {
            out.push(c);
        }
    }
    out
}

fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// Colours, if standard output is a terminal that wants them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Colours {
    on: bool,
}

impl Colours {
    /// Off for pipes and with `NO_COLOR` set (no-color.org).
    pub(crate) fn detect() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { on: !refused && io::stdout().is_terminal() }
    }

    #[cfg(test)]
    pub(crate) const fn off() -> Self {
        Self { on: false }
    }

    pub(crate) fn good(self, text: &str) -> Cow<'_, str> {
        self.paint("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> Cow<'_, str> {
        self.paint("1;31", text)
    }

    pub(crate) fn faint(self, text: &str) -> Cow<'_, str> {
        self.paint("2", text)
    }

    fn paint<'a>(self, code: &str, text: &'a str) -> Cow<'a, str> {
        if self.on { Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m")) } else { Cow::Borrowed(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        let cases = [
            ("plain text, 張三 and 🦀", "plain text, 張三 and 🦀"),
            ("\x1b]0;owned\x07", "\\u{1b}]0;owned\\u{7}"),
            ("8-bit \u{9b}2J", "8-bit \\u{9b}2J"),
            ("line\nbreak", "line\\u{a}break"),
            ("user\u{202e}nimda", "user\\u{202e}nimda"),
        ];
        for (text, expected) in cases {
            assert_eq!(visible(text), expected);
        }
    }

    proptest! {
        #[test]
        fn no_text_reaches_the_terminal_as_a_command(text: String) {
            prop_assert!(!visible(&text).contains(acts_on_terminal));
            let json = json_line(&serde_json::Value::String(text.clone()));
            prop_assert!(!json.contains(acts_on_terminal));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_coloured() {
        assert_eq!(Colours::off().bad("WRONG"), "WRONG");
        assert_eq!(Colours { on: true }.bad("WRONG"), "\x1b[1;31mWRONG\x1b[0m");
    }
}
