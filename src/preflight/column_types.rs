//! Whether filters and ages fit the types of their columns: before a row shows it, or never does.
//!
//! What can never be true is a problem, for `run` as for `check`; what may be true all the same is worth
//! a word, and so is an event that nobody takes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::config::configuration::Settings;
use crate::config::sections::endpoints_from::EndpointsFrom;
use crate::config::settings::Endpoint;
use crate::config::settings::EventFilter;
use crate::config::settings::EventRule;
use crate::event::datum;
use crate::event::type_check;
use crate::expression::Expression;
use crate::flow::change::ColumnValue;
use crate::flow::change::RowTuple;
use crate::flow::relation::Relation;
use crate::flow::relation::SqlType;
use crate::flow::relation::TableName;
use crate::replication::catalog::CheckFinding;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::sample;
use crate::replication::sample::RowSample;
use crate::store::error::StoreError;

/// Enough to see in which unit a number counts.
const ROWS_MAX: usize = 20;

/// Numbers of seconds beyond this are milliseconds: as seconds they lie in the year 5138.
const SECONDS_MAX: i64 = 100_000_000_000;

const FIX: &str = "compare it with a constant of its own type, or convert it: string(x), int(x)";

/// The type of a column if its `=` is not that of its texts, and whether that is for its collation: built-in
/// types with several texts of one value, domains over `char(n)`, and whatever an extension brings.
const ODD_EQUALITY: &str = "
    WITH RECURSIVE base (oid, is_domain, is_odd_collation) AS (
        SELECT a.atttypid, false, EXISTS (SELECT FROM pg_catalog.pg_collation l
                   WHERE l.oid = a.attcollation AND NOT l.collisdeterministic)
          FROM pg_catalog.pg_attribute a
          JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3 AND NOT a.attisdropped
        UNION ALL
        SELECT t.typbasetype, true, b.is_odd_collation
          FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid WHERE t.typtype = 'd')
    SELECT pg_catalog.format_type(t.oid, NULL), b.is_odd_collation
      FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid
     WHERE t.typtype <> 'd'
       AND (b.is_odd_collation OR (t.typtype = 'b' AND t.oid >= 16384) OR t.typtype IN ('r', 'm')
            OR (b.is_domain AND t.typname = 'bpchar')
            OR (t.oid < 16384 AND t.typname IN ('interval', 'inet', 'cidr', 'timetz', 'jsonpath', 'xml')))";

const MATCH_FIX: &str =
    "match by a column that is a whole number, a text, a uuid, a boolean or a date";

/// Everything that does not fit. Tables that cannot be read say so elsewhere.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings(
    settings: &Settings,
    client: &Client,
) -> Result<Vec<CheckFinding>, StoreError> {
    let mut findings = Vec::new();
    for rule in &settings.events {
        let takers = settings.endpoints.iter().filter(|endpoint| endpoint.takes(rule));
        let takers: Vec<&Endpoint> = takers.collect();
        let has_filter = rule.filter.is_some() || takers.iter().any(|taker| taker.filter.is_some());
        let matched = settings.endpoints_from.as_ref().and_then(EndpointsFrom::event_column);
        if has_filter
            || matched.is_some()
            || rule.expiry.as_ref().is_some_and(|expiry| expiry.column.is_some())
        {
            let sample = sample::read(client, &rule.table, ROWS_MAX).await?;
            if let RowSample::Rows { relation, rows } = sample {
                of_event(rule, &takers, &relation, &rows, &mut findings);
                if let Some(column) = matched {
                    findings.extend(match of_match(rule, column, &relation) {
                        None => odd_match(client, rule, column).await?,
                        found => found,
                    });
                }
            }
        }
    }
    Ok(findings)
}

/// What can never be true of the types that columns have by now, without a look at rows: for a walhook that
/// runs.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn refusals(
    settings: &Settings,
    client: &Client,
) -> Result<Vec<SetupDiagnostic>, StoreError> {
    let mut findings = Vec::new();
    let mut tables: HashMap<&TableName, Option<Relation>> = HashMap::new();
    for rule in &settings.events {
        let has_age = rule.expiry.as_ref().is_some_and(|expiry| expiry.column.is_some());
        if !has_age && rule.filter.is_none() {
            continue;
        }
        let relation = match tables.entry(&rule.table) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(sample::described(client, &rule.table).await?),
        };
        if let Some(relation) = relation {
            of_event(rule, &[], relation, &[], &mut findings);
        }
    }
    Ok(findings.into_iter().filter_map(|finding| finding.refusal).collect())
}

/// Events that no endpoint takes, where none can be made while walhook runs.
pub(crate) fn untaken(settings: &Settings) -> Vec<CheckFinding> {
    let may_come = settings.endpoints_from.is_some()
        || settings.run_time.webhook_api.is_some()
        || settings.endpoints.is_empty();
    if may_come {
        return Vec::new();
    }
    let is_taken = |rule: &&EventRule| settings.endpoints.iter().any(|one| one.takes(rule));
    let untaken = settings.events.iter().filter(|rule| !is_taken(rule));
    let finding = |rule: &EventRule| {
        CheckFinding::warning(
            format!("event {}: no endpoint takes it, so it goes to nobody", rule.event_type),
            String::from("name it in `events` of an [[endpoint]], or make one over the API"),
        )
    };
    untaken.map(finding).collect()
}

fn of_event(
    rule: &EventRule,
    takers: &[&Endpoint],
    relation: &Relation,
    rows: &[RowTuple],
    findings: &mut Vec<CheckFinding>,
) {
    let whose = format!("event {}", rule.event_type);
    if let Some(EventFilter::When(filter)) = &rule.filter {
        findings.extend(of_filter(&whose, filter, relation));
    }
    for taker in takers {
        let filter = taker.filter.as_ref();
        let whose = format!("endpoint {} for event {}", taker.name, rule.event_type);
        // Others of its events may have columns of other types.
        let found = filter.and_then(|filter| of_filter(&whose, filter, relation));
        findings.extend(found.map(|finding| match finding.refusal {
            Some(refusal) => CheckFinding::warning(refusal.what(), refusal.fix()),
            None => finding,
        }));
    }
    let column = rule.expiry.as_ref().and_then(|expiry| expiry.column.as_deref());
    let index = column.and_then(|name| relation.column(name));
    if let Some(index) = index
        && let Some(column) = relation.columns.get(index)
    {
        let values = rows.iter().map(|row| row.value(index));
        let trouble = of_age_column(&column.sql_type, values);
        findings.extend(trouble.map(|(what, fix)| {
            let what = format!("names column {}, {what}", column.name);
            problem(&whose, "age_column", what, fix)
        }));
    }
}

/// What `match` of `[endpoints_from]` compares as text though it is written in another way there.
fn of_match(rule: &EventRule, name: &str, relation: &Relation) -> Option<CheckFinding> {
    let column = relation.columns.get(relation.column(name)?)?;
    let trouble = match &*column.sql_type {
        SqlType::Timestamp | SqlType::TimestampTz => "never matches: it is a point in time",
        SqlType::Json | SqlType::Hstore => "never matches: it is JSON",
        SqlType::Composite { .. } => "never matches: it is a row",
        SqlType::Array { .. } | SqlType::Vector { .. } => "never matches: it is an array",
        SqlType::Bool
        | SqlType::Float
        | SqlType::Integer
        | SqlType::Numeric
        | SqlType::Date
        | SqlType::Bytea
        | SqlType::Text => return None,
    };
    // Others of the events may have a column of another type under this name.
    let what =
        format!("`match` of [endpoints_from]: {name} of event {} {trouble}", rule.event_type);
    Some(CheckFinding::warning(what, String::from(MATCH_FIX)))
}

/// A column of texts of which two can be equal for PostgreSQL and different for us.
async fn odd_match(
    client: &Client,
    rule: &EventRule,
    name: &str,
) -> Result<Option<CheckFinding>, StoreError> {
    let of = [&rule.table.schema as &(dyn ToSql + Sync), &rule.table.name, &name];
    let Some(row) = client.query_opt(ODD_EQUALITY, &of).await? else { return Ok(None) };
    let (sql_type, is_collation): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let why = match is_collation {
        true => String::from("its collation takes different texts for equal"),
        false => format!("equal values of type {sql_type} can be written in several ways"),
    };
    let event = &rule.event_type;
    let what = format!("`match` of [endpoints_from]: {name} of event {event} may not match: {why}");
    Ok(Some(CheckFinding::warning(what, String::from(MATCH_FIX))))
}

fn of_filter(whose: &str, filter: &Expression, relation: &Relation) -> Option<CheckFinding> {
    let report = type_check::check_filter(filter, relation);
    let misfits = report.misfits.join(", and ");
    match (report.is_never_true, report.misfits.is_empty()) {
        (false, true) => None,
        (true, true) => {
            let fix = "correct it, or leave the event or endpoint out";
            Some(problem(whose, "when", String::from("can never be true"), fix))
        }
        (true, false) => {
            Some(problem(whose, "when", format!("can never be true: it {misfits}"), FIX))
        }
        (false, false) => {
            Some(CheckFinding::warning(format!("`when` of {whose} {misfits}"), String::from(FIX)))
        }
    }
}

/// What is wrong with a column that is to say when a row was born, and the fix.
fn of_age_column<'v>(
    sql_type: &SqlType,
    mut values: impl Iterator<Item = ColumnValue<'v>>,
) -> Option<(&'static str, &'static str)> {
    match sql_type {
        SqlType::TimestampTz | SqlType::Timestamp | SqlType::Date => None,
        SqlType::Integer | SqlType::Numeric | SqlType::Float => {
            let is_millis = |value: ColumnValue<'_>| match value {
                ColumnValue::Text(text) => datum::epoch_seconds(sql_type, text)
                    .is_some_and(|seconds| seconds.saturating_abs() > SECONDS_MAX),
                ColumnValue::Null | ColumnValue::Unchanged => false,
            };
            values.any(is_millis).then_some((
                "which counts milliseconds: taken for seconds, no row would ever be too old",
                "name a column with seconds since 1970, or of type timestamptz; a view or generated \
                 column can divide by 1000",
            ))
        }
        _ => Some((
            "which is no point in time and no number of seconds",
            "name a column of type timestamptz, timestamp or date, or with seconds since 1970",
        )),
    }
}

fn problem(whose: &str, key: &'static str, what: String, fix: &str) -> CheckFinding {
    SetupDiagnostic::EndpointLacks { whose: whose.to_owned(), key, what, fix: fix.to_owned() }
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_points_in_time_or_seconds() {
        let of = |sql_type: SqlType, text: &'static [u8]| {
            of_age_column(&sql_type, [ColumnValue::Null, ColumnValue::Text(text)].into_iter())
                .map(|(what, _)| what)
        };
        assert_eq!(of(SqlType::TimestampTz, b"2026-01-01 00:00:00+00"), None);
        assert_eq!(of(SqlType::Integer, b"1703123400"), None);
        assert!(of(SqlType::Integer, b"1703123400000").unwrap().contains("milliseconds"));
        assert!(of(SqlType::Numeric, b"1703123400000.5").unwrap().contains("milliseconds"));
        assert!(of(SqlType::Text, b"2026-01-01").unwrap().contains("no point in time"));
        assert!(of(SqlType::Bool, b"t").unwrap().contains("no point in time"));
    }
}
