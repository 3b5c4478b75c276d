//! One value of the configuration file, read as what its key asks for.
//!
//! Each reader gives `None` after noting what is wrong, with the value as it stands in the file
//! (before variables are filled in: those often hold secrets), and never for [`FieldReader::secret`].

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use crate::config::secret::Secret;
use crate::config::toml_file::file::FileError;
use crate::config::toml_file::file::read_text;
use crate::config::toml_file::interpolate::interpolate;
use crate::config::toml_file::interpolate::is_variable_name;
use crate::config::toml_file::naming::listed;
use crate::config::toml_file::naming::nearest;
use crate::config::toml_file::problem_notes::ProblemNotes;
use crate::config::toml_file::units::parse_duration;
use crate::config::toml_file::units::parse_size;
use crate::config::toml_file::units::show_duration;
use crate::config::toml_file::units::show_size;

/// The largest file that is read as a secret: a guard against a wrong path.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The largest payload or list of subscriptions.
const TEXT_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How much of a bad value a message shows.
const SHOWN_CHARS_MAX: usize = 60;

/// Why an expression is refused where a value is the same for every event.
const NOT_EVALUATED: &str = "holds {{ }}, which is not evaluated here: expressions stand in `when`, in `payload`, in \
                             values of `headers`, and in path and query of an endpoint's `url`. Write the value as it is";

/// Tables of the file of which there may be several: `[[event]]`.
pub(crate) const LISTS: [&str; 2] = ["event", "endpoint"];

/// A value and where it stands.
pub(crate) struct FieldReader<'a> {
    pub(crate) notes: &'a ProblemNotes<'a>,
    pub(crate) path: String,
    pub(crate) at: usize,
    pub(crate) value: &'a DeValue<'a>,
}

impl<'a> FieldReader<'a> {
    pub(crate) fn new(
        notes: &'a ProblemNotes<'a>,
        path: String,
        at: usize,
        value: &'a DeValue<'a>,
    ) -> Self {
        Self { notes, path, at, value }
    }

    /// Notes a problem with this value.
    pub(crate) fn note(&self, message: impl Into<String>) {
        self.notes.note(Some(self.at), &self.path, message.into());
    }

    /// The same under another path.
    pub(crate) fn renamed(self, path: String) -> Self {
        Self { path, ..self }
    }

    /// Where it begins in the file, in bytes.
    pub(crate) fn start(&self) -> usize {
        self.at
    }

    pub(crate) fn is_string(&self) -> bool {
        self.value.is_str()
    }

    pub(crate) fn notes(&self) -> &'a ProblemNotes<'a> {
        self.notes
    }

    pub(crate) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(crate) fn is_boolean(&self) -> bool {
        self.value.is_bool()
    }

    pub(crate) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// A number, boolean or date as JSON; `None` for everything else. A number that JSON cannot
    /// express is an error.
    pub(crate) fn literal(&self) -> Option<Result<String, String>> {
        let whole = |digits: &str, radix| i64::from_str_radix(digits, radix);
        match self.value {
            DeValue::Boolean(bool) => Some(Ok(bool.to_string())),
            DeValue::Integer(digits) => Some(match whole(digits.as_str(), digits.radix()) {
                Ok(number) => Ok(number.to_string()),
                Err(_) => Err(format!("{} is too large: write it as a string", self.shown())),
            }),
            DeValue::Float(digits) => Some(match digits.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(serde_json::Value::from(number).to_string()),
                _ => Err(format!("{} is no JSON number: write it as a string", self.shown())),
            }),
            DeValue::Datetime(date) => Some(Ok(format!("\"{date}\""))),
            DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => None,
        }
    }

    /// A string with its variables filled in.
    pub(crate) fn string(&self) -> Option<String> {
        let Some(text) = self.value.as_str() else {
            return self.refuse(format!("must be a string, not {}", kind(self.value)));
        };
        if self.notes.is_foreign() {
            return Some(text.to_owned());
        }
        match interpolate(text, self.notes.env()) {
            Ok(text) => Some(text),
            Err(messages) => {
                messages.into_iter().for_each(|message| self.note(message));
                None
            }
        }
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        let value = self.value.as_bool();
        value.or_else(|| self.refuse(format!("must be true or false, not {}", kind(self.value))))
    }

    pub(crate) fn integer<T>(&self, range: &RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let DeValue::Integer(digits) = self.value else {
            return self.refuse(format!("must be a whole number, not {}", kind(self.value)));
        };
        let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
        let number = number.and_then(|number| T::try_from(number).ok());
        number.filter(|number| range.contains(number)).or_else(|| {
            let (start, end) = (range.start(), range.end());
            self.refuse(format!("{} is out of range: give {start} to {end}", self.shown()))
        })
    }

    /// A whole number of which there is at least one.
    pub(crate) fn count(&self, range: &RangeInclusive<usize>) -> Option<NonZeroUsize> {
        let range = range.start().max(&1)..=range.end();
        let as_signed = |n: &usize| i64::try_from(*n).unwrap_or(i64::MAX);
        let number = self.integer(&(as_signed(range.start())..=as_signed(range.end())))?;
        NonZeroUsize::new(usize::try_from(number).ok()?)
    }

    /// A number, whole or decimal.
    pub(crate) fn number(&self, range: &RangeInclusive<f64>) -> Option<f64> {
        let number = match self.value {
            DeValue::Integer(digits) => {
                let whole = i32::from_str_radix(digits.as_str(), digits.radix());
                whole.ok().map(f64::from)
            }
            DeValue::Float(digits) => digits.as_str().parse().ok(),
            other => return self.refuse(format!("must be a number, not {}", kind(other))),
        };
        number.filter(|number| range.contains(number)).or_else(|| {
            let (start, end) = (range.start(), range.end());
            self.refuse(format!("{} is out of range: give {start} to {end}", self.shown()))
        })
    }

    pub(crate) fn duration(&self, range: &RangeInclusive<Duration>) -> Option<Duration> {
        let shape =
            "write whole numbers with units, such as \"500ms\", \"10s\", \"5m\" or \"1h30m\"";
        if self.value.is_integer() || self.value.is_float() {
            return self.refuse(format!("{} has no unit: {shape}", self.shown()));
        }
        let Some(duration) = parse_duration(&self.string()?) else {
            return self.refuse(format!("{} is not a duration: {shape}", self.shown()));
        };
        if range.contains(&duration) {
            return Some(duration);
        }
        let (start, end) = (show_duration(*range.start()), show_duration(*range.end()));
        self.refuse(format!("{} is out of range: give \"{start}\" to \"{end}\"", self.shown()))
    }

    /// A size in bytes.
    pub(crate) fn size(&self, range: &RangeInclusive<u64>) -> Option<usize> {
        let shape = "write a whole number with a unit, such as \"512B\", \"64KiB\" or \"1MiB\"";
        if self.value.is_integer() || self.value.is_float() {
            return self.refuse(format!("{} has no unit: {shape}", self.shown()));
        }
        let Some(bytes) = parse_size(&self.string()?) else {
            return self.refuse(format!("{} is not a size: {shape}", self.shown()));
        };
        let usable = usize::try_from(bytes).ok().filter(|_| range.contains(&bytes));
        usable.or_else(|| {
            let (start, end) = (show_size(*range.start()), show_size(*range.end()));
            self.refuse(format!("{} is out of range: give \"{start}\" to \"{end}\"", self.shown()))
        })
    }

    /// One of a few words.
    pub(crate) fn one_of<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        if !self.value.is_str() {
            let found = kind(self.value);
            return self.refuse(format!("must be one of {}, not {found}", listed(&names)));
        }
        let text = self.string()?;
        if let Some((_, word)) = words.iter().find(|(name, _)| *name == text) {
            return Some(*word);
        }
        let fix = match nearest(&text, names.iter().copied()) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("give one of {}", listed(&names)),
        };
        self.refuse(format!("{} is not known: {fix}", self.shown()))
    }

    /// The items of a list.
    pub(crate) fn list(&self) -> Option<Vec<FieldReader<'a>>> {
        match self.value {
            DeValue::Array(items) => {
                let field = |item: &'a toml::Spanned<DeValue<'a>>| {
                    FieldReader::new(
                        self.notes,
                        self.path.clone(),
                        item.span().start,
                        item.get_ref(),
                    )
                };
                Some(items.iter().map(field).collect())
            }
            DeValue::String(_) => self.refuse("must be a list: put the string into [ ]"),
            other => self.refuse(format!("must be a list, not {}", kind(other))),
        }
    }

    /// A secret: a string, `{ env = "NAME" }` or `{ file = "path" }`; never empty.
    pub(crate) fn secret(&self) -> Option<Secret<String>> {
        let value = match self.value {
            DeValue::String(_) => self.string()?,
            _ if self.notes.is_foreign() => {
                return self.refuse("must be a string that is the secret itself");
            }
            DeValue::Table(_) => self.referred_secret()?,
            other => {
                let found = kind(other);
                return self.refuse(format!(
                    "must be a string, {{ env = \"NAME\" }} or {{ file = \"path\" }}, not {found}"
                ));
            }
        };
        if value.is_empty() {
            return self.refuse("is empty: give a value");
        }
        Some(Secret::new(value))
    }

    /// A secret that is the same for every event. What comes from a file or the environment is the secret
    /// itself, whatever it looks like.
    pub(crate) fn fixed_secret(&self) -> Option<Secret<String>> {
        let text = self.secret()?;
        if self.is_string() && is_expression(text.reveal()) {
            return self.refuse(NOT_EVALUATED);
        }
        Some(text)
    }

    /// A string that is the same for every event.
    pub(crate) fn fixed_string(&self) -> Option<String> {
        let text = self.string()?;
        if is_expression(&text) {
            return self.refuse(NOT_EVALUATED);
        }
        Some(text)
    }

    fn referred_secret(&self) -> Option<String> {
        let mut section = self.section()?;
        let name = section.field("env");
        let path = section.field("file");
        section.finish();
        match (name, path) {
            (Some(name), None) => name.secret_of_env(),
            (None, Some(path)) => path.secret_of_file(),
            _ => self.refuse("give either { env = \"NAME\" } or { file = \"path\" }"),
        }
    }

    /// The file that [`Self::secret`] reads, if it reads one.
    pub(crate) fn secret_file(&self) -> Option<PathBuf> {
        let DeValue::Table(table) = self.value else { return None };
        let DeValue::String(path) = table.get("file")?.get_ref() else { return None };
        let path = interpolate(path, self.notes.env()).ok()?;
        // The process may change its directory, and the configuration's name may be relative.
        std::path::absolute(self.notes.directory().join(path)).ok()
    }

    /// Looks up environment variables.
    pub(crate) fn env(&self) -> &'a dyn Fn(&str) -> Option<String> {
        self.notes.env()
    }

    fn secret_of_env(&self) -> Option<String> {
        let name = self.string()?;
        if !is_variable_name(&name) {
            // An operator may have written the secret itself here: it must not stand in a log.
            return self.refuse("is not the name of an environment variable");
        }
        self.notes.env()(&name)
            .or_else(|| self.refuse(format!("environment variable {name} is not set: set it")))
    }

    fn secret_of_file(&self) -> Option<String> {
        let fix = "give the path of a file that holds only the secret";
        let mut text = self.file_up_to(SECRET_FILE_BYTES_MAX, fix)?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        Some(text)
    }

    /// The text of the file that the value names, from the directory of the configuration.
    pub(crate) fn text_of_file(&self) -> Option<String> {
        self.file_up_to(TEXT_FILE_BYTES_MAX, "give the path of the right file")
    }

    fn file_up_to(&self, bytes_max: u64, fix: &str) -> Option<String> {
        if self.notes.is_foreign() {
            return self.refuse("names a file of walhook's host: only its own configuration may");
        }
        let path = self.notes.directory().join(self.string()?);
        match read_text(&path, bytes_max) {
            Ok(text) => Some(text),
            Err(FileError::Unreadable(error)) => {
                self.refuse(format!("{} cannot be read: {error}", path.display()))
            }
            Err(FileError::TooLarge) => self.refuse(format!(
                "{} is larger than {}: {fix}",
                path.display(),
                show_size(bytes_max)
            )),
        }
    }

    /// The value as the file has it, for a message.
    pub(crate) fn shown(&self) -> String {
        match self.value {
            DeValue::String(text) if text.chars().count() > SHOWN_CHARS_MAX => {
                let start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                format!("{:?}", start + "...")
            }
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Integer(digits) => digits.to_string(),
            DeValue::Float(digits) => digits.to_string(),
            other => kind(other).to_owned(),
        }
    }

    /// Notes a problem and gives nothing.
    pub(crate) fn refuse<T>(&self, message: impl Into<String>) -> Option<T> {
        self.note(message);
        None
    }

    /// The same for a table that has none of `keys`: not where one of them was misspelt.
    pub(crate) fn refuse_missing<T>(&self, message: &str, keys: &[&str]) -> Option<T> {
        let keys = keys.iter().map(|key| format!("{}.{key}", self.path)).collect();
        self.notes.note_missing(Some(self.at), &self.path, message.to_owned(), keys);
        None
    }
}

/// Whether a text looks as if it was to be evaluated.
fn is_expression(text: &str) -> bool {
    text.split_once("{{").is_some_and(|(_, rest)| rest.contains("}}"))
}

/// What TOML calls a value, with its article.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
