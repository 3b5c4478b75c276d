//! What a process does of the work for a source.

use clap::ValueEnum;

/// Who reads, and who delivers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum MemberRole {
    /// Reads the slot and delivers.
    #[default]
    #[value(skip)]
    Alone,
    /// Reads the slot and hands events to the broker of `[relay]`
    Tail,
    /// Delivers what comes from there, together with others
    Deliver,
}
