//! How a file is read, with the place of everything that is wrong in it.
//!
//! | file | holds |
//! | --- | --- |
//! | `file` | Files that the configuration consists of, read with a limit and a deadline |
//! | `interpolate` | `${NAME}` and `${NAME:-default}` in strings of the configuration |
//! | `naming` | Names in messages |
//! | `problem_notes` | What is wrong with one file, noted while it is read |
//! | `text_file` | Reads a small text file, and nothing that only looks like one |
//! | `toml_field` | One value of the configuration file, read as what its key asks for |
//! | `toml_reader` | Walks the TOML tree, knowing where everything stands in the file |
//! | `toml_text` | Writes JSON as TOML |
//! | `units` | Durations and sizes as people write them |

pub(crate) mod file;
pub(crate) mod interpolate;
pub(crate) mod naming;
pub(crate) mod problem_notes;
pub(crate) mod text_file;
pub(crate) mod toml_field;
pub(crate) mod toml_reader;
pub(crate) mod toml_text;
pub(crate) mod units;
