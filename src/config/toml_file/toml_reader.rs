//! Walks the TOML tree, knowing where everything stands in the file.
//!
//! A [`TomlSection`] is a table that is asked for its keys one by one; what nobody asked for is unknown,
//! and [`TomlSection::finish`] says so. Whatever is wrong is noted and reading goes on, so that one
//! run shows every problem. A key that is missing or bad reads as `None` and the caller goes on
//! with the default: nothing that is made so is used, because noted problems fail the whole.

use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::toml_file::naming::listed;
use crate::config::toml_file::naming::nearest;
use crate::config::toml_file::problem_notes::ProblemNotes;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_field::LISTS;
use crate::config::toml_file::toml_field::kind;

/// What tables look like that are often taken for something else.
const EXAMPLES: [(&str, &str); 8] = [
    ("retry", "{ delays = [\"10s\", \"30s\"] }"),
    ("headers", "{ X-Tenant = \"acme\" }"),
    ("auth", "{ bearer = { env = \"TOKEN\" } }"),
    ("basic", "{ username = \"walhook\", password = { env = \"PASSWORD\" } }"),
    ("api_key", "{ name = \"X-Api-Key\", value = { env = \"KEY\" } }"),
    ("batch", "{ size = 50 }"),
    ("backlog", "{ rows = 50000, age = \"1d\" }"),
    ("dedupe", "{ by = [\"id\"], window = \"10m\" }"),
];

/// A table that is being read; a missing table reads as an empty one.
pub(crate) struct TomlSection<'a> {
    notes: &'a ProblemNotes<'a>,
    /// The keys from the root to here, joined by dots; array tables have no index, since a problem
    /// has its line.
    path: String,
    at: Option<usize>,
    table: Option<&'a DeTable<'a>>,
    asked: Vec<&'static str>,
}

impl<'a> FieldReader<'a> {
    pub(crate) fn section(&self) -> Option<TomlSection<'a>> {
        match self.value {
            DeValue::Table(table) => {
                Some(TomlSection::new(self.notes, self.path.clone(), Some(self.at), Some(table)))
            }
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                self.notes.note_broken(&self.path);
                // The plural of what is a list is an easy slip.
                let singular = self.path.strip_suffix('s').filter(|one| LISTS.contains(one));
                let meant = singular.map(|one| format!(", or [[{one}]] for one {one}"));
                self.refuse(format!(
                    "is one table: write [{}]{}",
                    self.path,
                    meant.unwrap_or_default()
                ))
            }
            other => {
                self.notes.note_broken(&self.path);
                let last = self.path.rsplit('.').next().unwrap_or_default();
                let example = EXAMPLES.iter().find(|(key, _)| *key == last);
                let example = example.map(|(_, example)| format!(": write it like {example}"));
                self.refuse(format!(
                    "must be a table, not {}{}",
                    kind(other),
                    example.unwrap_or_default()
                ))
            }
        }
    }
}

impl<'a> TomlSection<'a> {
    pub(crate) fn root(notes: &'a ProblemNotes<'a>, table: &'a DeTable<'a>) -> Self {
        Self::new(notes, String::new(), None, Some(table))
    }

    pub(crate) fn new(
        notes: &'a ProblemNotes<'a>,
        path: String,
        at: Option<usize>,
        table: Option<&'a DeTable<'a>>,
    ) -> Self {
        Self { notes, path, at, table, asked: Vec::new() }
    }

    pub(crate) fn notes(&self) -> &'a ProblemNotes<'a> {
        self.notes
    }

    /// Whether the file has the key; does not count as asking for it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(name))
    }

    /// Asks for a key.
    pub(crate) fn field(&mut self, name: &'static str) -> Option<FieldReader<'a>> {
        self.asked.push(name);
        let path = self.path_of(name);
        #[cfg(test)]
        self.notes.asked.borrow_mut().insert(path.clone());
        let (key, value) = self.table?.get_key_value(name)?;
        // The key stands at the start of its line, the value of an inline list may be far below.
        Some(FieldReader::new(self.notes, path, key.span().start, value.get_ref()))
    }

    /// Asks for a key and reads it; `None` if it is missing or bad.
    pub(crate) fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&FieldReader<'a>) -> Option<T>,
    ) -> Option<T> {
        self.field(name).and_then(|field| read(&field))
    }

    /// Like [`TomlSection::read`], and notes `message` if the key is missing.
    pub(crate) fn require<T>(
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
    pub(crate) fn note_missing(&self, name: &str, message: impl Into<String>, keys: &[&str]) {
        let key = self.table.and_then(|table| table.get_key_value(name));
        let at = key.map(|(key, _)| key.span().start).or(self.at);
        let keys = keys.iter().map(|key| match key.contains('.') {
            true => (*key).to_owned(),
            false => self.path_of(key),
        });
        self.notes.note_missing(at, &self.path_of(name), message.into(), keys.collect());
    }

    /// Where these keys stand, or else the table.
    pub(crate) fn places(&self, names: &[&'static str]) -> Vec<(&'static str, String)> {
        let place = |name: &&'static str| {
            let key = self.table.and_then(|table| table.get_key_value(*name));
            let at = key.map(|(key, _)| key.span().start).or(self.at)?;
            Some((*name, format!("{}:{}", self.notes.file, self.notes.line_of(at))))
        };
        let is_file = !self.notes.text.is_empty(); // what is no TOML has no places
        names.iter().filter_map(place).filter(|_| is_file).collect()
    }

    /// Asks for a table: `[name]`.
    pub(crate) fn section(&mut self, name: &'static str) -> TomlSection<'a> {
        let field = self.field(name);
        field.and_then(|field| field.section()).unwrap_or_else(|| {
            let path = self.path_of(name);
            Self::new(self.notes, path, None, None)
        })
    }

    /// Asks for a list of tables: `[[name]]`.
    pub(crate) fn sections(&mut self, name: &'static str) -> Vec<TomlSection<'a>> {
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
    pub(crate) fn entries(self) -> Vec<(&'a str, FieldReader<'a>)> {
        let entries = self.table.into_iter().flatten().map(|(key, value)| {
            let path = self.path_of(key.get_ref());
            let field = FieldReader::new(self.notes, path, key.span().start, value.get_ref());
            (key.get_ref().as_ref(), field)
        });
        entries.collect()
    }

    /// Likewise, in the order of the file.
    pub(crate) fn entries_as_written(self) -> Vec<(&'a str, FieldReader<'a>)> {
        let mut entries = self.entries();
        entries.sort_by_key(|(_, field)| field.start());
        entries
    }

    /// Notes a problem with a key, at its place if the file has it and else at the table's.
    pub(crate) fn note(&self, name: &str, message: impl Into<String>) {
        let key = self.table.and_then(|table| table.get_key_value(name));
        let at = key.map(|(key, _)| key.span().start).or(self.at);
        self.notes.note(at, &self.path_of(name), message.into());
    }

    /// Refuses every key that nobody asked for.
    pub(crate) fn finish(self) {
        self.finish_knowing(&[]);
    }

    /// Likewise; `elsewhere` pairs names that other tables or programs have with the name here.
    pub(crate) fn finish_knowing(self, elsewhere: &[(&str, &str)]) {
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
