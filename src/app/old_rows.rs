//! Whether PostgreSQL sends what the events need of old rows.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::config::settings::EventRule;
use crate::config::settings::Settings;
use crate::event::require;
use crate::event::require::Lack;
use crate::flow::relation::Column;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::SqlType;
use crate::source::catalog::Finding;
use crate::source::catalog::Wanted;
use crate::source::catalog::facts;
use crate::source::catalog::facts::TableFacts;
use crate::source::catalog::judge;
use crate::source::refusal::Refusal;
use crate::store::error::StoreError;

/// A problem for each event whose filter could never be true, a warning for each payload with
/// places that stay empty. What else is wrong with tables is the catalog's to say.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings(
    settings: &Settings,
    client: &Client,
) -> Result<Vec<Finding>, StoreError> {
    let wanted = Wanted::new(settings);
    let server = facts::server(client).await?;
    if judge::too_old(&server).is_some() {
        return Ok(Vec::new());
    }
    let facts = facts::gather(client, server, &wanted).await?;
    let mut findings = Vec::new();
    for rule in &settings.events {
        let place = wanted.tables.iter().position(|table| table.name == rule.table);
        let Some(Some(table)) = place.and_then(|place| facts.tables.get(place)) else { continue };
        let relation = relation(rule, table);
        findings.extend(require::lacks(rule, &relation).iter().filter_map(|lack| {
            let Lack::OldRow { used_in, .. } = lack else { return None };
            let refusal = Refusal::NeedsOldRow {
                event: rule.event_type.to_string(),
                key: used_in.key(),
                sql: lack.fix(&relation)?,
            };
            let warning = || Finding::warning(refusal.what(), refusal.fix());
            Some(if lack.is_fatal() { refusal.clone().into() } else { warning() })
        }));
    }
    Ok(findings)
}

/// The table as the stream would describe it, as far as old rows go.
fn relation(rule: &EventRule, table: &TableFacts) -> Relation {
    let identity = match table.identity {
        'f' => ReplicaIdentity::Full,
        'n' => ReplicaIdentity::Nothing,
        'i' => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    };
    let column = |name: &String| Column {
        name: name.clone(),
        type_oid: 0,
        // Which columns an identity index has is not known here: none of them is relied upon.
        identity: identity == ReplicaIdentity::Default && table.key.contains(name),
        sql_type: Arc::new(SqlType::Text),
    };
    Relation {
        oid: 0,
        table: rule.table.clone(),
        identity,
        columns: table.columns.iter().map(column).collect(),
        key: Vec::new(),
    }
}
