//! Who takes the events of a rule: everybody who takes all of them, and those who choose by the row.
//!
//! An endpoint that chooses by a value (`match`, or a filter like `plan == "pro" && total > 10.0`) is found
//! through a map of the values, so what an event costs does not grow with those who do not take it.
//! Only filters of another form are evaluated for each event, each of them once, however many
//! endpoints have it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::config::settings::Endpoint;
use crate::config::settings::ValueMatch;
use crate::event::column_change;
use crate::event::column_change::RowImage;
use crate::event::expression_fault::EvaluationFault;
use crate::event::expression_fault::RenderFaults;
use crate::event::match_form::MatchForm;
use crate::event::scope::EvaluationScope;
use crate::expression::Expression;
use crate::expression::column_equality::ConstantValue;
use crate::expression::column_equality::EqualityIndex;
use crate::flow::change::ColumnValue;
use crate::flow::relation::Relation;
use crate::flow::relation::SqlType;
use crate::flow::settlement::EndpointIndex;

/// The subscribers of one rule, whatever its table looks like.
#[derive(Debug, Default)]
pub(super) struct EventSubscribers {
    /// Those that take every event.
    pub(super) everybody: Arc<[EndpointIndex]>,
    choosing: Vec<ChoosingStep>,
}

/// One that takes some events.
#[derive(Debug)]
struct ChoosingStep {
    endpoint: EndpointIndex,
    only: Option<ValueMatch>,
    filter: Option<Expression>,
}

impl EventSubscribers {
    pub(super) fn new<'e>(takers: impl Iterator<Item = (EndpointIndex, &'e Endpoint)>) -> Self {
        let (mut everybody, mut choosing) = (Vec::new(), Vec::new());
        for (endpoint, Endpoint { only, filter, .. }) in takers {
            if only.is_none() && filter.is_none() {
                everybody.push(endpoint);
            } else {
                let (only, filter) = (only.clone(), filter.clone());
                choosing.push(ChoosingStep { endpoint, only, filter });
            }
        }
        Self { everybody: everybody.into(), choosing }
    }

    /// Those that an event is for of which nothing is known but that it is one: not those that take
    /// events by a value.
    pub(super) fn of_unknown(&self) -> Arc<[EndpointIndex]> {
        let filtering = self.choosing.iter().filter(|one| one.only.is_none());
        let mut filtering = filtering.map(|one| one.endpoint).peekable();
        if filtering.peek().is_none() {
            return Arc::clone(&self.everybody);
        }
        self.everybody.iter().copied().chain(filtering).collect()
    }

    /// Whether an event that nobody chooses is for nobody, though there are subscribers.
    pub(super) fn is_for_nobody(&self) -> bool {
        self.everybody.is_empty() && !self.choosing.is_empty()
    }

    pub(super) fn compile(&self, relation: &Relation) -> SubscriberIndex {
        let mut built = IndexBuilding::default();
        for ChoosingStep { endpoint, only, filter } in &self.choosing {
            built.add(*endpoint, only.as_ref(), filter.as_ref(), relation);
        }
        built.index
    }
}

/// Subscribers that choose, against one relation.
#[derive(Debug, Default)]
pub(super) struct SubscriberIndex {
    columns: Vec<ByColumn>,
    /// Whose filters have to be evaluated for each event.
    others: Vec<SubscriberGroup>,
    /// Filters that cannot be true, as the table does not have their column.
    without_column: UnknowableValue,
}

/// Who of those who choose gets an event.
#[derive(Debug, Default)]
pub(super) struct SubscriberChoice {
    pub(super) takers: Vec<EndpointIndex>,
    /// Whose filters take more than an evaluation may: nobody knows whether they want it.
    pub(super) costly: Vec<EndpointIndex>,
}

impl SubscriberChoice {
    pub(super) fn is_empty(&self) -> bool {
        self.takers.is_empty() && self.costly.is_empty()
    }
}

/// Subscribers with the same filter, or with none beside the value that has led to them.
#[derive(Debug)]
struct SubscriberGroup {
    filter: Option<Expression>,
    endpoints: Vec<EndpointIndex>,
}

/// Who wants which values of one column.
#[derive(Debug)]
struct ByColumn {
    column: usize,
    /// Of those who choose by `match`: by what counts of a value.
    matched: HashMap<Box<[u8]>, Vec<SubscriberGroup>>,
    form: MatchForm,
    /// By the text that PostgreSQL sends.
    texts: HashMap<Box<[u8]>, Vec<SubscriberGroup>>,
    integers: HashMap<i64, Vec<SubscriberGroup>>,
    /// False and true.
    booleans: [Vec<SubscriberGroup>; 2],
    nulls: Vec<SubscriberGroup>,
    /// Those filters, for when PostgreSQL does not send the value.
    filters: UnknowableValue,
}

/// Filters that are not true for want of a value. Each is named once, and never evaluated.
#[derive(Debug, Default)]
struct UnknowableValue {
    filters: Vec<Expression>,
    are_named: AtomicBool,
}

impl UnknowableValue {
    fn name(&self, faults: &mut RenderFaults) {
        if self.filters.is_empty() || self.are_named.swap(true, Ordering::Relaxed) {
            return;
        }
        faults
            .extend(self.filters.iter().map(|f| (Arc::from(f.source()), EvaluationFault::Unknown)));
    }
}

impl ByColumn {
    fn new(column: usize) -> Self {
        Self {
            column,
            matched: HashMap::new(),
            form: MatchForm::default(),
            texts: HashMap::new(),
            integers: HashMap::new(),
            booleans: [Vec::new(), Vec::new()],
            nulls: Vec::new(),
            filters: UnknowableValue::default(),
        }
    }

    fn groups(&mut self, constant: &ConstantValue) -> &mut Vec<SubscriberGroup> {
        match constant {
            ConstantValue::Null => &mut self.nulls,
            ConstantValue::Bool(value) => {
                let [no, yes] = &mut self.booleans;
                if *value { yes } else { no }
            }
            ConstantValue::Int(value) => self.integers.entry(*value).or_default(),
            ConstantValue::Text(text) => self.texts.entry(text.as_bytes().into()).or_default(),
        }
    }
}

/// A column's place, what counts of a value, and a filter.
type MatchedGroup = (usize, Box<[u8]>, Option<Arc<str>>);

#[derive(Debug, Default)]
struct IndexBuilding {
    index: SubscriberIndex,
    /// Places in `index.columns`, by the column's place in the relation.
    columns: HashMap<usize, usize>,
    /// Places of groups, by column, value and filter.
    groups: HashMap<(usize, ConstantValue, Option<Arc<str>>), usize>,
    /// The same of `matched`.
    matched: HashMap<MatchedGroup, usize>,
    /// Places in `index.others`, by filter.
    others: HashMap<Arc<str>, usize>,
}

impl IndexBuilding {
    fn add(
        &mut self,
        endpoint: EndpointIndex,
        only: Option<&ValueMatch>,
        filter: Option<&Expression>,
        relation: &Relation,
    ) {
        if let Some(only) = only {
            // Who names a column that is not there takes nothing.
            if let Some(index) = relation.column(&only.column)
                && let Some(column) = relation.columns.get(index)
            {
                let (place, form) = (self.column(index), MatchForm::of(column));
                for value in &only.values {
                    self.put_matched((place, form), form.wanted(value), endpoint, filter);
                }
            }
            return;
        }
        let Some(filter) = filter else { return };
        let Some(equality) = filter.equality() else { return self.evaluate(endpoint, filter) };
        let Some(column) = relation.column(equality.column) else {
            return self.index.without_column.filters.push(filter.clone());
        };
        let sql_type = relation.columns.get(column).map(|column| &*column.sql_type);
        let Some(values) = sql_type.and_then(|sql_type| comparable(sql_type, &equality)) else {
            return self.evaluate(endpoint, filter);
        };
        let place = self.column(column);
        let rest = (!equality.suffices).then_some(filter);
        for value in values {
            self.put(place, value.clone(), endpoint, rest);
        }
        if let Some(found) = self.index.columns.get_mut(place) {
            found.filters.filters.push(filter.clone());
        }
    }

    fn column(&mut self, column: usize) -> usize {
        let columns = &mut self.index.columns;
        *self.columns.entry(column).or_insert_with(|| {
            columns.push(ByColumn::new(column));
            columns.len() - 1
        })
    }

    fn put(
        &mut self,
        place: usize,
        value: ConstantValue,
        endpoint: EndpointIndex,
        filter: Option<&Expression>,
    ) {
        let Some(column) = self.index.columns.get_mut(place) else { return };
        let groups = column.groups(&value);
        let key = (place, value, filter.map(|filter| Arc::from(filter.source())));
        let group = *self.groups.entry(key).or_insert(groups.len());
        join(groups, group, endpoint, filter);
    }

    fn put_matched(
        &mut self,
        (place, form): (usize, MatchForm),
        value: Box<[u8]>,
        endpoint: EndpointIndex,
        filter: Option<&Expression>,
    ) {
        let Some(column) = self.index.columns.get_mut(place) else { return };
        column.form = form;
        let groups = column.matched.entry(value.clone()).or_default();
        let key = (place, value, filter.map(|filter| Arc::from(filter.source())));
        let group = *self.matched.entry(key).or_insert(groups.len());
        join(groups, group, endpoint, filter);
    }

    fn evaluate(&mut self, endpoint: EndpointIndex, filter: &Expression) {
        let others = &mut self.index.others;
        let group = *self.others.entry(Arc::from(filter.source())).or_insert(others.len());
        join(others, group, endpoint, Some(filter));
    }
}

/// Puts an endpoint into the group at this place, or at the end.
fn join(
    groups: &mut Vec<SubscriberGroup>,
    place: usize,
    endpoint: EndpointIndex,
    filter: Option<&Expression>,
) {
    match groups.get_mut(place) {
        Some(group) if group.endpoints.last() == Some(&endpoint) => {} // a value named twice
        Some(group) => group.endpoints.push(endpoint),
        None => groups.push(SubscriberGroup { filter: filter.cloned(), endpoints: vec![endpoint] }),
    }
}

/// The constants that a column of this type can equal. `None` for types of which a value can equal
/// constants that are written in another way.
fn comparable<'e>(
    sql_type: &SqlType,
    equality: &'e EqualityIndex<'_>,
) -> Option<Vec<&'e ConstantValue>> {
    let is_possible = |constant: &&ConstantValue| match (sql_type, constant) {
        (_, ConstantValue::Null)
        | (SqlType::Integer, ConstantValue::Int(_))
        | (SqlType::Bool, ConstantValue::Bool(_))
        | (SqlType::Text | SqlType::Date, ConstantValue::Text(_)) => true,
        // Values of different types are not equal.
        (_, ConstantValue::Int(_) | ConstantValue::Bool(_) | ConstantValue::Text(_)) => false,
    };
    match sql_type {
        SqlType::Integer | SqlType::Bool | SqlType::Text | SqlType::Date => {
            Some(equality.values.iter().filter(is_possible).collect())
        }
        SqlType::Float
        | SqlType::Numeric
        | SqlType::Json
        | SqlType::Timestamp
        | SqlType::TimestampTz
        | SqlType::Bytea
        | SqlType::Hstore
        | SqlType::Vector { .. }
        | SqlType::Array { .. }
        | SqlType::Composite { .. } => None,
    }
}

impl SubscriberIndex {
    /// Who takes the event of this change.
    pub(super) fn choose(
        &self,
        scope: &EvaluationScope<'_>,
        faults: &mut RenderFaults,
    ) -> SubscriberChoice {
        let mut choice = SubscriberChoice::default();
        self.without_column.name(faults);
        for by_column in &self.columns {
            by_column.choose(scope, faults, &mut choice);
        }
        choice.admit(&self.others, scope, faults);
        choice
    }
}

impl ByColumn {
    fn choose(
        &self,
        scope: &EvaluationScope<'_>,
        faults: &mut RenderFaults,
        choice: &mut SubscriberChoice,
    ) {
        let image = column_change::current(scope.change, self.column);
        let value = match image {
            RowImage::In(row) => row.value(self.column),
            RowImage::None => ColumnValue::Null,
            RowImage::Unknown => ColumnValue::Unchanged,
        };
        let text = match value {
            ColumnValue::Null => return choice.admit(&self.nulls, scope, faults),
            ColumnValue::Unchanged => return self.filters.name(faults),
            ColumnValue::Text(text) => text,
        };
        if !self.matched.is_empty()
            && let Some(groups) = self.matched.get(&*self.form.of_row(text))
        {
            choice.admit(groups, scope, faults);
        }
        if let Some(groups) = self.texts.get(text) {
            choice.admit(groups, scope, faults);
        }
        if !self.integers.is_empty() {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
            match number.map(|number| self.integers.get(&number)) {
                Some(Some(groups)) => choice.admit(groups, scope, faults),
                Some(None) => {}
                None => self.filters.name(faults),
            }
        }
        let [no, yes] = &self.booleans;
        choice.admit(if text == b"t" { yes } else { no }, scope, faults);
    }
}

impl SubscriberChoice {
    fn admit(
        &mut self,
        groups: &[SubscriberGroup],
        scope: &EvaluationScope<'_>,
        faults: &mut RenderFaults,
    ) {
        for SubscriberGroup { filter, endpoints } in groups {
            let before = faults.len();
            if filter.as_ref().is_none_or(|filter| scope.holds(filter, faults)) {
                self.takers.extend_from_slice(endpoints);
            } else if let Some((_, EvaluationFault::TooMuch)) = faults.get(before) {
                self.costly.extend_from_slice(endpoints);
            }
        }
    }
}

#[cfg(test)]
mod tests;
