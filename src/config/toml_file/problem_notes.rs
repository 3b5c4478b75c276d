//! What is wrong with one file, noted while it is read.

use std::cell::OnceCell;
use std::cell::RefCell;
#[cfg(test)]
use std::collections::BTreeSet;
use std::path::Path;

use crate::config::problem::ConfigPlace;
use crate::config::problem::ConfigProblem;
use crate::config::problem::ConfigProblems;

/// What all readers of one file share: the file, the environment, and the problems found so far.
pub(crate) struct ProblemNotes<'a> {
    /// As named on the command line; the files of secrets are looked for beside it.
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
    /// Where its lines end: a file can have thousands of tables whose lines are asked for.
    line_ends: OnceCell<Vec<usize>>,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether the text comes from outside: its writer must not see this host's variables and files.
    is_foreign: bool,
    problems: RefCell<Vec<ConfigProblem>>,
    pub(crate) consequences: RefCell<ConsequenceNotes>,
    /// Every key that was asked for: the reference file must show each of them.
    #[cfg(test)]
    pub(crate) asked: RefCell<BTreeSet<String>>,
}

impl<'a> ProblemNotes<'a> {
    pub(crate) fn new(
        file: &'a str,
        text: &'a str,
        env: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            file,
            text,
            line_ends: OnceCell::new(),
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
    pub(crate) fn foreign(name: &'a str) -> Self {
        Self { is_foreign: true, ..Self::new(name, "", &|_| None) }
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// The line of a byte of the file, from 1.
    pub(crate) fn line_of(&self, byte: usize) -> usize {
        let ends = || memchr::memchr_iter(b'\n', self.text.as_bytes()).collect::<Vec<_>>();
        self.line_ends.get_or_init(ends).partition_point(|end| *end < byte) + 1
    }

    /// Notes a problem at a byte of the file.
    pub(crate) fn note(&self, at: Option<usize>, key: &str, message: String) {
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
    pub(crate) fn adopt(&self, other: ProblemNotes<'_>) {
        self.problems.borrow_mut().extend(other.causes());
    }

    /// As [`ProblemNotes::note`], for what is no problem of its own where one of `keys` was misspelt or
    /// could not be read.
    pub(crate) fn note_missing(
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
    pub(crate) fn note_broken(&self, key: &str) {
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

    pub(crate) fn env(&self) -> &'a dyn Fn(&str) -> Option<String> {
        self.env
    }

    /// The directory that relative paths start from.
    pub(crate) fn directory(&self) -> &Path {
        Path::new(self.file).parent().unwrap_or(Path::new(""))
    }

    /// What was noted, as key and message.
    pub(crate) fn problems(&self) -> Vec<String> {
        let shown = |problem: &ConfigProblem| format!("{}: {}", problem.key, problem.message);
        self.problems.borrow().iter().map(shown).collect()
    }

    /// The value, if nothing was noted.
    pub(crate) fn conclude<T>(self, value: Option<T>) -> Result<T, ConfigProblems> {
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
pub(crate) struct ConsequenceNotes {
    missing: Vec<MissingKey>,
    /// Keys that unknown ones were taken for, each with the place of its table; and those of what is no table.
    pub(crate) meant: Vec<(Option<usize>, String)>,
}

struct MissingKey {
    /// Its place among the problems.
    problem: usize,
    /// That of the table that lacks it.
    at: Option<usize>,
    /// Any of these would do. One alone has to be of the same table; of several, each is anywhere.
    keys: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_the_line_that_its_place_has() {
        for text in ["", "a = 1", "\n", "a\n\nbc\r\nd = 'é\n'\n"] {
            let notes = ProblemNotes::new("the test's configuration", text, &|_| None);
            for byte in 0..=text.len() {
                assert_eq!(
                    notes.line_of(byte),
                    ConfigPlace::of(text, byte).line,
                    "{text:?}, {byte}"
                );
            }
        }
    }
}
