//! Change to event: which changes become which events, with which body.
//!
//! ```text
//! source ─ CommittedChange ─▶ [route ─▶ plan ─▶ expiry ─▶ payload] ─ Event ─▶ lanes
//! ```
//!
//! Pure, but for one warning for each expression that fails: a change, the rules and the time in;
//! events out. Rules are compiled once per relation, so that a row costs no look-up by name, unless
//! an expression asks for one.
//!
//! | file | holds |
//! | --- | --- |
//! | `datum` | PostgreSQL's text of a value, as JSON |
//! | `dedupe` | Which events come with values that were pushed before, within a window of time |
//! | `dry_run` | Tries a rule on rows that are there, before one of them changes |
//! | `envelope` | Envelopes that others have specified |
//! | `expiry` | When a row was born, and whether it is too old |
//! | `expression_fault` | Why an expression has no value on a row |
//! | `column_change` | What a change says about a column, before and after |
//! | `match_form` | How values of a column are compared with those of `match` |
//! | `ocr_wallet` | The body of the preset `ocr-wallet` |
//! | `payload` | Payloads, compiled once per relation into labels and column references; the two built-in ones that are walhook's own |
//! | `plan` | A rule against one relation |
//! | `request_values` | What the expressions of an endpoint's URL and headers come to on a change |
//! | `require` | What an event, and an endpoint that takes it, need of the event's table, for `check` and for the start |
//! | `route` | Which changes become which events, and who gets them |
//! | `row_object` | Rows and what belongs to them as JSON |
//! | `row_order` | Order keys |
//! | `schema` | The JSON Schema of an event's body |
//! | `scope` | A change as expressions see it |
//! | `subscribers` | Who takes the events of a rule |
//! | `table_shape` | The shape of a table as receivers see it, for events that tell that it has changed |
//! | `target` | The row that an event's write-back is to find, taken from its change |
//! | `template` | A payload of the user's own against one relation |
//! | `trial` | What one change would come to, without anything being sent |
//! | `type_check` | Whether an expression's types fit a table's columns, before any row shows it |
//! | `misfit_value` | Values that do not fit their row type any more |
//! | `value` | An expression's value as JSON |
//! | `writer` | Builds a `EventBody` with one allocation for all of its text |
//! | `writer_trace` | The trace that a change's writer gave |

mod column_change;
pub(crate) mod datum;
pub(crate) mod dedupe;
pub(crate) mod dry_run;
mod envelope;
pub(crate) mod expiry;
mod expression_fault;
mod match_form;
mod misfit_value;
mod ocr_wallet;
pub(crate) mod payload;
pub(crate) mod plan;
mod request_values;
pub(crate) mod require;
pub(crate) mod route;
mod row_object;
mod row_order;
pub(crate) mod schema;
mod scope;
mod subscribers;
mod table_shape;
mod target;
mod template;
pub(crate) mod trial;
pub(crate) mod type_check;
mod value;
mod writer;
mod writer_trace;
