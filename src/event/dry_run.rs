//! Tries a rule on rows that are there, before one of them changes.
//!
//! ```text
//! EventRule, Endpoints, rows ─▶ [dry_run] ─ Trial ─▶ `walhook check`
//! ```
//!
//! Pure. Each row is taken as inserted, updated or deleted, as far as the rule asks for it, and the
//! old row is the row itself. Filters are tried on all rows; payloads on those that the event's
//! filter lets through, or, where it lets none through, on all: a filter over a change of values
//! is true for no row as it stands.

use std::sync::Arc;

use http::HeaderName;
use http::HeaderValue;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::event::expiry::AgeSource;
use crate::event::expression_fault::EvaluationFault;
use crate::event::expression_fault::RenderFaults;
use crate::event::payload::EndpointShape;
use crate::event::payload::PayloadShape;
use crate::event::plan::filter::RowFilter;
use crate::event::row_object;
use crate::event::scope::EvaluationScope;
use crate::event::writer::JsonWriter;
use crate::expression::Expression;
use crate::flow::backfill::ReadRow;
use crate::flow::body::RequestValue;
use crate::flow::change::ChangeOp;
use crate::flow::change::CommittedChange;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::event::EventId;
use crate::flow::event::IdOrigin;
use crate::flow::lsn::Position;
use crate::flow::relation::Relation;
use crate::flow::time::Timestamp;

/// What a rule came to.
#[derive(Debug, Default)]
pub(crate) struct DryRunTrial {
    pub rows: usize,
    /// Those that the event's filter lets through, whatever happens to them.
    pub passing: usize,
    /// Each expression and kind of failure once.
    pub failures: Vec<TrialFailure>,
    /// One body for each shape: of a row that passes, where there is one.
    pub bodies: Vec<SampleBody>,
}

/// An expression that has no value on some rows.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct TrialFailure {
    /// The key of the configuration: `when` or `payload`, with the endpoint whose it is.
    pub place: String,
    pub expression: Arc<str>,
    /// What it does, then what helps, such as `divides by zero`.
    pub what: &'static str,
    /// The first such row's key, such as `id=7`.
    pub row: String,
    /// How many such rows there are.
    pub rows: usize,
    /// The last of them, by its index.
    last: usize,
}

#[derive(Debug, Eq, PartialEq)]
pub(crate) struct SampleBody {
    /// Who gets it; empty for the event's own shape.
    pub endpoints: Vec<Arc<str>>,
    pub body: String,
    /// What the shape asks of the request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What URL and headers need.
    pub values: Vec<(Arc<str>, RequestValue)>,
}

/// Tries a rule, and what the endpoints that take its events add to it.
pub(crate) fn dry_run(
    rule: &EventRule,
    endpoints: &[Endpoint],
    relation: &Arc<Relation>,
    rows: &[RowTuple],
    now: Timestamp,
) -> DryRunTrial {
    let takers: Vec<&Endpoint> = endpoints.iter().filter(|e| e.takes(rule)).collect();
    let gate = match &rule.filter {
        None => RowFilter::Open,
        Some(filter) => RowFilter::compile(filter, relation),
    };
    let shapes = shapes(rule, &takers, relation);
    let mut trial = DryRunTrial { rows: rows.len(), ..DryRunTrial::default() };
    let mut passing = Vec::new();
    let mut others = Vec::new();
    let key = |row| shown_key(&shapes, row);
    for (index, row) in rows.iter().enumerate() {
        let before = passing.len();
        for change in changes(rule, relation, row, now) {
            let scope = scope(rule, &change, now);
            let mut faults = RenderFaults::new();
            let admitted = gate.admits(&scope, &mut faults);
            trial.note("when", &mut faults, index, key(row));
            for taker in &takers {
                faults.extend(taker.filter.as_ref().and_then(|filter| fault(filter, &scope)));
                trial.note(&of_endpoint("when", &taker.name), &mut faults, index, key(row));
            }
            let list = if admitted { &mut passing } else { &mut others };
            list.push((index, row, change));
        }
        trial.passing += usize::from(passing.len() > before);
    }
    let tried = if passing.is_empty() { others } else { passing };
    for (index, row, change) in &tried {
        for (names, shape) in &shapes {
            let mut faults = RenderFaults::new();
            let mut writer = JsonWriter::default();
            let scope = scope(rule, change, now);
            let fits = shape.write(writer.with_form(rule.json), &scope, &mut faults);
            let body = writer.finish();
            if !fits {
                faults.push((Arc::from("all of it together"), EvaluationFault::Oversize));
                trial.note(&of_payload(names), &mut faults, *index, key(row));
                continue;
            }
            let body = body.complete(now);
            trial.note(&of_payload(names), &mut faults, *index, key(row));
            let values = shape.values(&scope, &mut faults);
            if let Some(name) = names.first() {
                let place = of_endpoint("url or headers", name);
                trial.note(&place, &mut faults, *index, key(row));
            }
            if !trial.bodies.iter().any(|sample| sample.endpoints == *names) {
                let body = String::from_utf8_lossy(&body).into_owned();
                let headers = shape.headers(&scope);
                trial.bodies.push(SampleBody { endpoints: names.clone(), body, headers, values });
            }
        }
    }
    trial
}

type PayloadShapes = Vec<(Vec<Arc<str>>, PayloadShape)>;

/// The event's own shape first, then those of endpoints, each once.
fn shapes(rule: &EventRule, takers: &[&Endpoint], relation: &Relation) -> PayloadShapes {
    let mut wanted = vec![(EndpointShape::of_rule(rule), Vec::new())];
    for taker in takers {
        let Some(own) = EndpointShape::other(rule, taker) else { continue };
        match wanted.iter_mut().find(|(shape, _)| *shape == own) {
            Some((_, names)) => names.push(Arc::clone(&taker.name)),
            None => wanted.push((own, vec![Arc::clone(&taker.name)])),
        }
    }
    let compile = |shape| PayloadShape::compile(shape, &rule.event_type, relation);
    wanted.iter().map(|(shape, names)| (names.clone(), compile(shape))).collect()
}

fn changes(
    rule: &EventRule,
    relation: &Arc<Relation>,
    row: &RowTuple,
    now: Timestamp,
) -> Vec<CommittedChange> {
    let full = || OldRow::Full(row.clone());
    let ops = [
        (rule.on.insert, ChangeOp::Insert { new: row.clone() }),
        (rule.on.update, ChangeOp::Update { old: Some(full()), new: row.clone() }),
        (rule.on.delete, ChangeOp::Delete { old: full() }),
        (rule.on.read, ChangeOp::Read { new: row.clone(), read: ReadRow::of_nobody() }),
    ];
    let change = |op| CommittedChange {
        position: Position::default(),
        committed: now,
        relation: Arc::clone(relation),
        op,
        xid: 0,
        metadata: None,
        trace: None,
        held: None,
    };
    ops.into_iter().filter(|(wanted, _)| *wanted).map(|(_, op)| change(op)).collect()
}

fn scope<'a>(
    rule: &'a EventRule,
    change: &'a CommittedChange,
    now: Timestamp,
) -> EvaluationScope<'a> {
    let id = EventId::new(change.position, IdOrigin::new(0, &rule.event_type));
    let age = rule.expiry.as_ref().map(|expiry| AgeSource::compile(expiry, &change.relation));
    let born = age.map_or(now, |age| age.of(change, row_object::row_of(&change.op)).born);
    EvaluationScope { change, event_type: &rule.event_type, id, now, born }
}

fn fault(filter: &Expression, scope: &EvaluationScope<'_>) -> Option<(Arc<str>, EvaluationFault)> {
    Some((Arc::from(filter.source()), scope.is_true(filter).err()?))
}

fn of_payload(endpoints: &[Arc<str>]) -> String {
    match endpoints.first() {
        None => String::from("payload"),
        Some(name) => of_endpoint("payload", name),
    }
}

fn of_endpoint(key: &str, endpoint: &str) -> String {
    format!("{key} of endpoint {endpoint}")
}

impl DryRunTrial {
    /// Takes in what failed on the row at `index`, whose key is `row`.
    fn note(&mut self, place: &str, faults: &mut RenderFaults, index: usize, row: String) {
        for (expression, fault) in faults.drain(..) {
            let what = fault.as_str();
            let known = self.failures.iter_mut().find(|known| {
                known.place == place && known.expression == expression && known.what == what
            });
            match known {
                // The same row fails in the same way as inserted and as updated.
                Some(known) if known.last == index => {}
                Some(known) => {
                    known.rows += 1;
                    known.last = index;
                }
                None => {
                    let (place, row) = (place.to_owned(), row.clone());
                    let failure =
                        TrialFailure { place, expression, what, row, rows: 1, last: index };
                    self.failures.push(failure);
                }
            }
        }
    }
}

/// What logs would call the row by.
fn shown_key(shapes: &PayloadShapes, row: &RowTuple) -> String {
    let facts = shapes.first().map(|(_, shape)| shape.facts(Some(row))).unwrap_or_default();
    let parts: Vec<String> = facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if parts.is_empty() { String::from("without a key") } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::EventFilter;
    use crate::config::settings::PayloadSettings;
    use crate::event::route::tests::COMMITTED;
    use crate::event::route::tests::endpoint;
    use crate::event::route::tests::relation;
    use crate::event::route::tests::row;
    use crate::event::route::tests::rule;
    use crate::expression::template::TemplateNode;
    use crate::flow::relation::SqlType;

    fn rows() -> (Arc<Relation>, Vec<RowTuple>) {
        let columns = [("id", SqlType::Integer), ("total", SqlType::Numeric)];
        let rows = [("1", Some("5")), ("2", None), ("3", Some("0")), ("4", None)];
        let relation = relation("orders", &columns);
        (relation, rows.iter().map(|(id, total)| row(&[Some(id), *total])).collect())
    }

    fn expression(source: &str) -> Expression {
        Expression::parse(source).unwrap()
    }

    fn told(trial: &DryRunTrial) -> Vec<(&str, &str, &str, usize)> {
        let failures = trial.failures.iter();
        failures.map(|f| (f.place.as_str(), &*f.expression, f.row.as_str(), f.rows)).collect()
    }

    #[test]
    fn each_failure_is_told_once_with_its_place_and_first_row() {
        let (relation, rows) = rows();
        let mut rule = rule("orders", PayloadSettings::Standard);
        rule.filter = Some(EventFilter::When(expression("total > 1.0")));
        let picky = Endpoint { filter: Some(expression("10 / (id - 3) > 0")), ..endpoint("*") };
        let trial = dry_run(&rule, &[picky, endpoint("nothing")], &relation, &rows, COMMITTED);
        let expected = [
            ("when", "total > 1.0", "id=2", 2),
            ("when of endpoint e", "10 / (id - 3) > 0", "id=3", 1),
        ];
        assert_eq!(told(&trial), expected);
        assert_eq!((trial.rows, trial.passing), (4, 1));
        let [body] = trial.bodies.as_slice() else { panic!("one shape: {trial:?}") };
        assert!(body.body.contains("\"data\":{\"id\":1,\"total\":5}"), "of the row that passes");
    }

    #[test]
    fn payloads_are_tried_on_rows_that_pass_or_on_all_where_none_does() {
        let (relation, rows) = rows();
        let root = Arc::new(TemplateNode::Value(expression("total + 1.0")));
        let own = PayloadSettings::Template { root, content_type: None };
        let cases = [
            ("total != null", vec![]),
            ("total != old.total", vec![("payload of endpoint e", "total + 1.0", "id=2", 2)]),
        ];
        for (filter, expected) in cases {
            let mut rule = rule("orders", PayloadSettings::Standard);
            rule.filter = Some(EventFilter::When(expression(filter)));
            rule.on.insert = false;
            let taker = Endpoint { payload: Some(own.clone()), ..endpoint("*") };
            let trial = dry_run(&rule, &[taker], &relation, &rows, COMMITTED);
            assert_eq!(told(&trial), expected, "case: {filter}");
            let to: Vec<_> = trial.bodies.iter().map(|body| body.endpoints.len()).collect();
            assert_eq!(to, [0, 1], "case: {filter}");
        }
    }
}
