//! What an event, and an endpoint that takes it, need of the event's table, for `check` and for the
//! start: its columns, and old rows. Pure.

use std::collections::BTreeSet;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::expression::named_columns::NamedColumns;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;

/// Something that a rule needs and the table does not give.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum MissingInput {
    /// The table has no such column.
    Column { used_in: InputUse, column: String },
    /// Values of these columns come with the whole old row only. `whole`: all columns.
    OldRow { used_in: InputUse, columns: BTreeSet<String>, whole: bool },
}

/// Where a rule names a column.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum InputUse {
    Filter,
    Payload,
    Url,
    Headers,
    OrderBy,
    AgeColumn,
}

impl InputUse {
    /// The key of the configuration.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Filter => "when",
            Self::Payload => "payload",
            Self::Url => "url",
            Self::Headers => "headers",
            Self::OrderBy => "order_by",
            Self::AgeColumn => "age_column",
        }
    }
}

impl MissingInput {
    pub(crate) fn used_in(&self) -> InputUse {
        match self {
            Self::Column { used_in, .. } | Self::OldRow { used_in, .. } => *used_in,
        }
    }

    /// Whether the rule cannot work at all: a filter without its values lets nothing through.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Self::Column { .. } => true,
            Self::OldRow { used_in, .. } => *used_in == InputUse::Filter,
        }
    }
}

/// Everything that `rule` needs and `relation` does not give.
pub(crate) fn lacks(rule: &EventRule, relation: &Relation) -> Vec<MissingInput> {
    let mut lacks = Vec::new();
    named(rule, relation, InputUse::Filter, &rule.filter_names(), &mut lacks);
    named(rule, relation, InputUse::Payload, &rule.payload_names(), &mut lacks);
    let age_column = rule.expiry.as_ref().and_then(|expiry| expiry.column.as_ref());
    let order_by = rule.order_by.iter().map(|column| (InputUse::OrderBy, column));
    for (used_in, column) in order_by.chain(age_column.map(|column| (InputUse::AgeColumn, column)))
    {
        if relation.column(column).is_none() {
            lacks.push(MissingInput::Column { used_in, column: column.clone() });
        }
    }
    lacks
}

/// Everything that the endpoint's own filter, payload, URL and headers need for the events of `rule`, which it
/// takes, and `relation` does not give.
pub(crate) fn lacks_of(
    endpoint: &Endpoint,
    rule: &EventRule,
    relation: &Relation,
) -> Vec<MissingInput> {
    let mut lacks = Vec::new();
    if let Some(filter) = &endpoint.filter {
        named(rule, relation, InputUse::Filter, filter.names(), &mut lacks);
    }
    if let Some(payload) = &endpoint.payload {
        named(rule, relation, InputUse::Payload, &payload.names(), &mut lacks);
    }
    for used_in in [InputUse::Url, InputUse::Headers] {
        let names = endpoint.request.names_in(used_in.key());
        named(rule, relation, used_in, &names, &mut lacks);
    }
    lacks
}

fn named(
    rule: &EventRule,
    relation: &Relation,
    used_in: InputUse,
    names: &NamedColumns,
    lacks: &mut Vec<MissingInput>,
) {
    let named: BTreeSet<&String> = names.columns.union(&names.old).collect();
    let missing = named.into_iter().filter(|name| relation.column(name).is_none());
    lacks.extend(missing.map(|column| MissingInput::Column { used_in, column: column.clone() }));
    lacks.extend(old_row(rule, relation, used_in, names));
}

/// Values that only the whole old row carries: what the row was before an update, and all but the
/// identity of a deleted one.
fn old_row(
    rule: &EventRule,
    relation: &Relation,
    used_in: InputUse,
    names: &NamedColumns,
) -> Option<MissingInput> {
    if relation.identity == ReplicaIdentity::Full {
        return None;
    }
    let unsent = |name: &&String| {
        let column = relation.column(name).and_then(|index| relation.columns.get(index));
        column.is_some_and(|c| !c.identity || relation.identity == ReplicaIdentity::Nothing)
    };
    let mut columns = BTreeSet::new();
    let mut whole = false;
    if rule.on.update {
        columns.extend(names.old.iter().filter(unsent).cloned());
        whole |= names.whole_old;
    }
    if rule.on.delete {
        columns.extend(names.columns.union(&names.old).filter(unsent).cloned());
        whole |= names.whole && used_in == InputUse::Filter;
    }
    (whole || !columns.is_empty()).then_some(MissingInput::OldRow { used_in, columns, whole })
}

#[cfg(test)]
mod tests;
