//! The shape of a document that another room reads, such as the reader of the configuration: what the API's
//! document shows of it.

use utoipa::ToSchema;

pub(crate) const JSON: &str = "application/json";

/// How a document comes, and what it holds.
pub(crate) trait DocumentShape {
    /// The types of its content; more than one for a patch.
    const KINDS: &'static [&'static str];
    /// Whether there has to be one.
    const IS_NEEDED: bool;
    type Schema: ToSchema;
}
