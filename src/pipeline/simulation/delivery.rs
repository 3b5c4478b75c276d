//! An event on its way to one endpoint, and which others it concerns.

use std::time::Duration;

use crate::flow::lsn::Position;
use crate::pipeline::simulation::scenario::EndpointTaste;
use crate::pipeline::simulation::scenario::ModelRule;
use crate::pipeline::simulation::scenario::OrderPromise;
use crate::pipeline::simulation::wal::ModelChange;

/// An event on its way to one endpoint.
#[derive(Clone, Debug)]
pub(super) struct ModelDelivery {
    pub(super) endpoint: usize,
    pub(super) position: Position,
    pub(super) rule: usize,
    pub(super) label: String,
    pub(super) table: usize,
    /// None: every row of the table.
    pub(super) keys: Vec<u64>,
    pub(super) version: u64,
    /// When it is too old, if ever.
    pub(super) expires: Option<Duration>,
    /// Times that the receiver has taken it.
    pub(super) accepted: u32,
    /// The run that knows that it was taken, and since when.
    pub(super) answered: Option<(usize, Duration)>,
    /// It may have been given up.
    pub(super) is_excused: bool,
    /// It is owed by all means: its endpoint was there when it was read.
    pub(super) is_required: bool,
    /// The state says that nothing is owed.
    pub(super) is_final: bool,
}

/// How far walhook's idea of the server's clock may be off: half of the longest time that an answer takes.
pub(super) const CLOCK_ERROR_MAX: Duration = Duration::from_millis(5);

impl ModelDelivery {
    /// Whether it is too old by a clock that may be off.
    pub(super) fn may_be_old(&self, now: Duration) -> bool {
        self.expires.is_some_and(|expires| now + CLOCK_ERROR_MAX >= expires)
    }

    pub(super) fn order(&self) -> (Position, usize) {
        (self.position, self.rule)
    }

    pub(super) fn concerns(&self, other: &Self, promise: OrderPromise) -> bool {
        match promise {
            OrderPromise::Strict => true,
            OrderPromise::None => false,
            OrderPromise::Key => {
                let is_barrier = self.keys.is_empty() || other.keys.is_empty();
                let meet = self.keys.iter().any(|key| other.keys.contains(key));
                self.table == other.table && (is_barrier || meet)
            }
        }
    }
}

pub(super) fn raises(rule: &ModelRule, change: &ModelChange) -> bool {
    is_routed(rule, change)
        && !(rule.is_filtered && change.row().is_some_and(|row| row.tier == 'x'))
}

/// Whether the change comes by the rule at all.
pub(super) fn is_routed(rule: &ModelRule, change: &ModelChange) -> bool {
    rule.table == change.table && rule.on.contains(&change.operation_name())
}

pub(super) fn takes(taste: EndpointTaste, rule: &ModelRule, change: &ModelChange) -> bool {
    match taste {
        EndpointTaste::All => true,
        EndpointTaste::FirstTable => rule.table == 0,
        EndpointTaste::TierA => change.row().is_some_and(|row| row.tier == 'a'),
    }
}
