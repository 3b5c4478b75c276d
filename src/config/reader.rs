//! Walks the TOML tree, knowing where everything stands in the file.
//!
//! A [`TomlSection`] is a table that is asked for its keys one by one; what nobody asked for is unknown,
//! and [`TomlSection::finish`] says so. Whatever is wrong is noted and reading goes on, so that one
//! run shows every problem. A key that is missing or bad reads as `None` and the caller goes on
//! with the default: nothing that is made so is used, because noted problems fail the whole.

use std::cell::RefCell;
#[cfg(test)]
use std::collections::BTreeSet;
use std::path::Path;

use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::field::FieldReader;
use crate::config::problem::ConfigPlace;
use crate::config::problem::ConfigProblem;
use crate::config::problem::ConfigProblems;

/// How alike two names must be (Jaro-Winkler, 0 to 1) for one to be taken for a slip of the other.
const LIKENESS_MIN: f64 = 0.8;

/// What all readers of one file share: the file, the environment, and the problems found so far.
pub(super) struct ProblemNotes<'a> {
    /// As named on the command line; the files of secrets are looked for beside it.
    file: &'a str,
    text: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether the text comes from somebody who must not see this host's variables and files.
    is_foreign: bool,
    problems: RefCell<Vec<ConfigProblem>>,
    consequences: RefCell<ConsequenceNotes>,
    /// Every key that was asked for: the reference file must show each of them.
    #[cfg(test)]
    pub(super) asked: RefCell<BTreeSet<String>>,
}

impl<'a> ProblemNotes<'a> {
    pub(super) fn new(
        file: &'a str,
        text: &'a str,
        env: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            file,
            text,
            env,
            is_foreign: false,
            problems: RefCell::default(),
            consequences: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// For a text from outside: strings are taken as they are, and secrets stand in it themselves.
    /// Its problems have keys and no lines.
    pub(super) fn foreign(name: &'a str) -> Self {
        Self { is_foreign: true, ..Self::new(name, "", &|_| None) }
    }

    pub(super) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// Notes a problem at a byte of the file.
    pub(super) fn note(&self, at: Option<usize>, key: &str, message: String) {
        self.problems.borrow_mut().push(ConfigProblem {
            file: self.file.to_owned(),
            // What is not TOML has no places.
            place: at
                .filter(|_| !self.text.is_empty())
                .map(|byte| ConfigPlace::of(self.text, byte)),
            key: key.to_owned(),
            message,
        });
    }

    /// Takes over the problems of another file that this one refers to.
    pub(super) fn adopt(&self, other: ProblemNotes<'_>) {
        self.problems.borrow_mut().extend(other.causes());
    }

    /// As [`ProblemNotes::note`], for what is no problem of its own where one of `keys` was misspelt or
    /// could not be read.
    pub(super) fn note_missing(
        &self,
        at: Option<usize>,
        key: &str,
        message: String,
        keys: Vec<String>,
    ) {
        let problem = self.problems.borrow().len();
        self.note(at, key, message);
        self.consequences.borrow_mut().missing.push(MissingKey { problem, at, keys });
    }

    /// Notes that what stands at this key is no table, so that nothing in it is missing.
    pub(super) fn note_broken(&self, key: &str) {
        self.consequences.borrow_mut().meant.push((None, key.to_owned()));
    }

    /// What was noted, without what follows from another problem.
    fn causes(self) -> Vec<ConfigProblem> {
        let problems = self.problems.into_inner();
        let ConsequenceNotes { missing, meant } = self.consequences.into_inner();
        let follows = |missing: &MissingKey| {
            missing.keys.iter().any(|key| {
                let is_above =
                    |other: &str| key.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'));
                let is_meant = |(at, name): &(Option<usize>, String)| {
                    (name == key && (*at == missing.at || missing.keys.len() > 1)) || is_above(name)
                };
                meant.iter().any(is_meant)
            })
        };
        let dropped: Vec<usize> =
            missing.iter().filter(|missing| follows(missing)).map(|m| m.problem).collect();
        let kept = problems.into_iter().enumerate().filter(|(index, _)| !dropped.contains(index));
        kept.map(|(_, problem)| problem).collect()
    }

    pub(super) fn env(&self) -> &'a dyn Fn(&str) -> Option<String> {
        self.env
    }

    /// The directory that relative paths start from.
    pub(super) fn directory(&self) -> &Path {
        Path::new(self.file).parent().unwrap_or(Path::new(""))
    }

    /// What was noted, as key and message.
    pub(super) fn problems(&self) -> Vec<String> {
        let shown = |problem: &ConfigProblem| format!("{}: {}", problem.key, problem.message);
        self.problems.borrow().iter().map(shown).collect()
    }

    /// The value, if nothing was noted.
    pub(super) fn conclude<T>(self, value: Option<T>) -> Result<T, ConfigProblems> {
        let problems = self.causes();
        debug_assert!(value.is_some() || !problems.is_empty(), "a missing value needs a reason");
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(ConfigProblems::new(problems)),
        }
    }
}

/// What tells problems from those that only follow from them: a key that is missing because it was
/// misspelt is one slip, and told once.
#[derive(Default)]
struct ConsequenceNotes {
    missing: Vec<MissingKey>,
    /// Keys that unknown ones were taken for, each with the place of its table; and those of what is no table.
    meant: Vec<(Option<usize>, String)>,
}

struct MissingKey {
    /// Its place among the problems.
    problem: usize,
    /// That of the table that lacks it.
    at: Option<usize>,
    /// Any of these would do. One alone has to be of the same table; of several, each is anywhere.
    keys: Vec<String>,
}

/// Tables of the file of which there may be several: `[[event]]`.
pub(super) const LISTS: [&str; 2] = ["event", "endpoint"];

/// A table that is being read; a missing table reads as an empty one.
pub(super) struct TomlSection<'a> {
    notes: &'a ProblemNotes<'a>,
    /// The keys from the root to here, joined by dots; array tables have no index, since a problem
    /// has its line.
    path: String,
    at: Option<usize>,
    table: Option<&'a DeTable<'a>>,
    asked: Vec<&'static str>,
}

impl<'a> TomlSection<'a> {
    pub(super) fn root(notes: &'a ProblemNotes<'a>, table: &'a DeTable<'a>) -> Self {
        Self::new(notes, String::new(), None, Some(table))
    }

    pub(super) fn new(
        notes: &'a ProblemNotes<'a>,
        path: String,
        at: Option<usize>,
        table: Option<&'a DeTable<'a>>,
    ) -> Self {
        Self { notes, path, at, table, asked: Vec::new() }
    }

    pub(super) fn notes(&self) -> &'a ProblemNotes<'a> {
        self.notes
    }

    /// Whether the file has the key; does not count as asking for it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(name))
    }

    /// Asks for a key.
    pub(super) fn field(&mut self, name: &'static str) -> Option<FieldReader<'a>> {
        self.asked.push(name);
        let path = self.path_of(name);
        #[cfg(test)]
        self.notes.asked.borrow_mut().insert(path.clone());
        let (key, value) = self.table?.get_key_value(name)?;
        // The key stands at the start of its line, the value of an inline list may be far below.
        Some(FieldReader::new(self.notes, path, key.span().start, value.get_ref()))
    }

    /// Asks for a key and reads it; `None` if it is missing or bad.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&FieldReader<'a>) -> Option<T>,
    ) -> Option<T> {
        self.field(name).and_then(|field| read(&field))
    }

    /// Like [`TomlSection::read`], and notes `message` if the key is missing.
    pub(super) fn require<T>(
        &mut self,
        name: &'static str,
        message: &str,
        read: impl FnOnce(&FieldReader<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.field(name) {
            Some(field) => read(&field),
            None => {
                self.note_missing(name, message, &[name]);
                None
            }
        }
    }

    /// Notes that none of `keys` is there: not where one of them was misspelt.
    pub(super) fn note_missing(&self, name: &str, message: impl Into<String>, keys: &[&str]) {
        let key = self.table.and_then(|table| table.get_key_value(name));
        let at = key.map(|(key, _)| key.span().start).or(self.at);
        let keys = keys.iter().map(|key| match key.contains('.') {
            true => (*key).to_owned(),
            false => self.path_of(key),
        });
        self.notes.note_missing(at, &self.path_of(name), message.into(), keys.collect());
    }

    /// Where these keys stand, or else the table.
    pub(super) fn places(&self, names: &[&'static str]) -> Vec<(&'static str, String)> {
        let place = |name: &&'static str| {
            let key = self.table.and_then(|table| table.get_key_value(*name));
            let at = key.map(|(key, _)| key.span().start).or(self.at)?;
            let line = ConfigPlace::of(self.notes.text, at).line;
            Some((*name, format!("{}:{line}", self.notes.file)))
        };
        let is_file = !self.notes.text.is_empty(); // what is no TOML has no places
        names.iter().filter_map(place).filter(|_| is_file).collect()
    }

    /// Asks for a table: `[name]`.
    pub(super) fn section(&mut self, name: &'static str) -> TomlSection<'a> {
        let field = self.field(name);
        field.and_then(|field| field.section()).unwrap_or_else(|| {
            let path = self.path_of(name);
            Self::new(self.notes, path, None, None)
        })
    }

    /// Asks for a list of tables: `[[name]]`.
    pub(super) fn sections(&mut self, name: &'static str) -> Vec<TomlSection<'a>> {
        let Some(field) = self.field(name) else { return Vec::new() };
        if field.is_table() {
            self.notes.note_broken(name);
            field.note(format!("is a list of tables: write [[{name}]]"));
            return Vec::new();
        }
        let items = field.list().unwrap_or_default();
        items.iter().filter_map(FieldReader::section).collect()
    }

    /// All keys of a table whose keys are the user's own, with their values.
    pub(super) fn entries(self) -> Vec<(&'a str, FieldReader<'a>)> {
        let entries = self.table.into_iter().flatten().map(|(key, value)| {
            let path = self.path_of(key.get_ref());
            let field = FieldReader::new(self.notes, path, key.span().start, value.get_ref());
            (key.get_ref().as_ref(), field)
        });
        entries.collect()
    }

    /// Likewise, in the order of the file.
    pub(super) fn entries_as_written(self) -> Vec<(&'a str, FieldReader<'a>)> {
        let mut entries = self.entries();
        entries.sort_by_key(|(_, field)| field.start());
        entries
    }

    /// Notes a problem with a key, at its place if the file has it and else at the table's.
    pub(super) fn note(&self, name: &str, message: impl Into<String>) {
        let key = self.table.and_then(|table| table.get_key_value(name));
        let at = key.map(|(key, _)| key.span().start).or(self.at);
        self.notes.note(at, &self.path_of(name), message.into());
    }

    /// Refuses every key that nobody asked for.
    pub(super) fn finish(self) {
        self.finish_knowing(&[]);
    }

    /// Likewise; `elsewhere` pairs names that other tables or programs have with the name here.
    pub(super) fn finish_knowing(self, elsewhere: &[(&str, &str)]) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                let known =
                    elsewhere.iter().find(|(there, _)| *there == name).map(|(_, here)| *here);
                let known = known.or_else(|| nearest(name, self.asked.iter().copied()));
                if let Some(known) = known {
                    let meant = known.split([' ', '.']).next().unwrap_or(known);
                    let mut notes = self.notes.consequences.borrow_mut();
                    notes.meant.push((self.at, self.path_of(meant)));
                }
                let message = match known {
                    Some(known) if self.path.is_empty() && LISTS.contains(&known) => {
                        format!("unknown key: did you mean `[[{known}]]`?")
                    }
                    Some(known) => format!("unknown key: did you mean `{known}`?"),
                    None => format!("unknown key: known here are {}", listed(&self.asked)),
                };
                self.notes.note(Some(key.span().start), &self.path_of(name), message);
            }
        }
    }

    fn path_of(&self, name: &str) -> String {
        let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let name = match !name.is_empty() && name.bytes().all(bare) {
            true => name.to_owned(),
            false => format!("{name:?}"),
        };
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }
}

/// The name that `given` is most likely a slip of.
pub(super) fn nearest<'n>(
    given: &str,
    known: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(given, name), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Names in a sentence: "`a`, `b`".
pub(super) fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// What TOML calls a value, with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
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
