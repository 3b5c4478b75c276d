//! Endpoints while walhook runs: which there are, who changes them, and those that are rows of a table.
//!
//! | file | holds |
//! | --- | --- |
//! | `admin` | The administration |
//! | `from_table` | Keeps the endpoints of a table current |
//! | `known_keys` | Which row each endpoint is, so that only rows are read that have changed |
//! | `mirror` | Keeps the endpoints of a partition what the process knows of them |
//! | `registry` | The registry |
//! | `renamed_rows` | Which rows of the table are those of before under another name |
//! | `row_ids` | The same, by a column that tells rows apart |
//! | `wanted_rows` | The endpoints that rows are to be |

pub(crate) mod admin;
pub(crate) mod from_table;
mod known_keys;
pub(crate) mod mirror;
pub(crate) mod registry;
mod renamed_rows;
pub(crate) mod row_ids;
mod wanted_rows;
