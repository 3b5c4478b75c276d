//! The rows of `[endpoints_from]`: read, and judged before anything depends on them.

mod reading;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Map;
use serde_json::Value as Json;
use tokio_postgres::Client as Sql;

use crate::config::configuration::Settings;
use crate::config::sections::endpoints_from::EndpointsFrom;
use crate::config::settings::Endpoint;
use crate::pipeline::endpoint_row_changes::KeyColumn;
use crate::preflight::endpoint_rows::reading::KeyedQuestion;
use crate::preflight::endpoint_rows::reading::question;
use crate::preflight::old_rows;
use crate::preflight::reach;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::FindingLevel;
use crate::replication::catalog::facts::CatalogFacts;
use crate::store::error::StoreError;

pub(crate) use crate::preflight::endpoint_rows::reading::refused;
pub(crate) use crate::preflight::endpoint_rows::reading::unreadable;

/// A row by its columns.
pub(crate) type Row = Map<String, Json>;

/// Rows whose endpoints `walhook check` tries to reach.
const DIALED_MAX: usize = 200;

/// A row, and its key if it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct KeyedRow {
    pub(crate) key: Option<Arc<str>>,
    pub(crate) row: Row,
}

/// All rows of the table.
pub(crate) async fn rows(client: &Sql, from: &EndpointsFrom) -> Result<Vec<Row>, StoreError> {
    let rows = keyed_rows(client, from, None, None).await?;
    Ok(rows.into_iter().map(|keyed| keyed.row).collect())
}

/// The rows of the table with these keys, or all; with their keys, if there is a column for them.
///
/// # Errors
/// The table cannot be read.
pub(crate) async fn keyed_rows(
    client: &Sql,
    from: &EndpointsFrom,
    key: Option<&KeyColumn>,
    only: Option<&BTreeSet<Arc<str>>>,
) -> Result<Vec<KeyedRow>, StoreError> {
    let rows = match (key, only) {
        (Some(key), Some(only)) => {
            let question = question(client, from, &KeyedQuestion::Some(key)).await?;
            let only: Vec<&str> = only.iter().map(|key| &**key).collect();
            client.query(&question, &[&only]).await?
        }
        (key, _) => {
            let keyed = key.map_or(KeyedQuestion::Unkeyed, KeyedQuestion::All);
            client.query(&question(client, from, &keyed).await?, &[]).await?
        }
    };
    let texts = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let mut texts = texts.collect::<Result<Vec<(&str, Option<&str>)>, StoreError>>()?;
    // Of two rows of one name the same one counts each time.
    texts.sort_unstable();
    let mut read = Vec::with_capacity(texts.len());
    for (text, key) in texts {
        match serde_json::from_str(text) {
            Ok(Json::Object(row)) => read.push(KeyedRow { key: key.map(Arc::from), row }),
            Ok(_) | Err(_) => {
                return Err(StoreError::Protocol { what: "a row is no object".to_owned() });
            }
        }
    }
    Ok(read)
}

/// The names of all endpoints of the table, of those that cannot be used as well.
///
/// # Errors
/// The table cannot be read.
pub(crate) async fn names(from: &EndpointsFrom, client: &Sql) -> Result<Vec<Arc<str>>, StoreError> {
    let rows = rows(client, from).await?;
    let named = rows.iter().filter_map(|row| {
        from.endpoint(row).ok().or_else(|| from.unusable(row, false, "")).map(|one| one.name)
    });
    Ok(named.collect())
}

/// The endpoint of this name, if a row of the table is it, and the names of all of them.
///
/// # Errors
/// The table cannot be read.
pub(crate) async fn find(
    from: &EndpointsFrom,
    client: &Sql,
    name: &str,
) -> Result<(Option<Endpoint>, Vec<Arc<str>>), StoreError> {
    let mut endpoints: Vec<Endpoint> =
        rows(client, from).await?.iter().filter_map(|row| from.endpoint(row).ok()).collect();
    let names = endpoints.iter().map(|endpoint| Arc::clone(&endpoint.name)).collect();
    endpoints.retain(|endpoint| &*endpoint.name == name);
    Ok((endpoints.into_iter().next(), names))
}

/// Which of the table's endpoints cannot be reached, for `walhook check`.
///
/// # Errors
/// The table cannot be read.
pub(crate) async fn unreachable(
    settings: &Settings,
    client: &Sql,
) -> Result<Vec<CheckFinding>, StoreError> {
    let Some(from) = &settings.endpoints_from else { return Ok(Vec::new()) };
    let rows = match rows(client, from).await {
        Ok(rows) => rows,
        Err(StoreError::Refused(_)) => return Ok(Vec::new()), // that is said already
        Err(other) => return Err(other),
    };
    let endpoints = rows.iter().filter_map(|row| from.endpoint(row).ok());
    let endpoints: Vec<Endpoint> =
        endpoints.filter(|endpoint| endpoint.enabled).take(DIALED_MAX).collect();
    let mut findings = reach::findings(&endpoints).await;
    // One that can be reached is no line of its own: there may be hundreds.
    findings.retain(|finding| finding.level != FindingLevel::Ok);
    Ok(findings)
}

/// What `walhook check` has to say of the table: that it cannot be read, which rows are no endpoints,
/// or why none of them could get an event. What is wrong with the tables of a view is the catalog's to say.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings(
    settings: &Settings,
    facts: &CatalogFacts,
    client: &Sql,
) -> Result<Vec<CheckFinding>, StoreError> {
    let Some(from) = &settings.endpoints_from else { return Ok(Vec::new()) };
    let table = from.table.to_string();
    let read = match rows(client, from).await {
        Ok(read) => read,
        Err(StoreError::Refused(cause)) => {
            return Ok(vec![unreadable(from, client, &cause).await?.into()]);
        }
        Err(other) => return Err(other),
    };
    let (endpoints, problems): (Vec<_>, Vec<_>) =
        read.iter().map(|row| from.endpoint(row)).partition(Result::is_ok);
    let found = match endpoints.len() {
        1 => "1 endpoint".to_owned(),
        count => format!("{count} endpoints"),
    };
    let mut findings = vec![CheckFinding::ok(format!("[endpoints_from]: {found} in {table}"))];
    let example = endpoints.first().and_then(|read| read.as_ref().ok());
    let column = from.event_column();
    findings.extend(old_rows::findings_from(settings, facts, column, example));
    findings.extend(problems.into_iter().filter_map(Result::err).map(|(name, why)| {
        let what = format!("a row of {table} is no endpoint: {name}: {why}");
        let fix = "correct the row: until then its events become dead letters";
        CheckFinding::warning(what, String::from(fix))
    }));
    Ok(findings)
}
