//! Keeps callbacks: a row each in the source's table, before anybody is answered with success.
//!
//! ```text
//! listener ─ verified callback ─▶ [writer] ─ one transaction for what has gathered ─▶ PostgreSQL
//!     ▲                              │
//!     └────── kept, repeated, nonce seen, or not in time ◀────┘
//! ```
//!
//! Nonce and row are written by one transaction: a nonce that is remembered has its row, and one whose
//! row was lost is not remembered, so the sender's repeat is taken. Every replica writes to the same
//! tables, so none takes what another has taken. While one transaction is on its way the next gathers.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::settings::ServerSettings;
use crate::failpoint;
use crate::flow::relation::TableName;
use crate::inbound::row::CallbackRow;
use crate::inbound::verified::VerifiedCallback;
use crate::store;
use crate::store::SqlSession;
use crate::store::error::StoreError;

/// Callbacks that wait for their transaction. More than that are told to come again.
const WAITING_MAX: usize = 4096;

/// Rows of one transaction.
const ROWS_MAX: usize = 512;

/// The sender waits 5 s for an answer, and has waited before its callback came to us.
const STORE_LIMIT: Duration = Duration::from_secs(3);

/// After a failure, so that a database that is away is not asked thousands of times a second.
const PAUSE: Duration = Duration::from_millis(100);

/// How long nonces are remembered at least, and how often the older ones are removed. What is older
/// than any tolerance is refused by its timestamp.
const NONCE_LIFE: &str = "2 days";
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// What became of a callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CallbackOutcome {
    Kept,
    /// There was a row of it already.
    Repeated,
    /// Its nonce was taken before.
    NonceSeen,
}

/// A source's tables.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct CallbackTables {
    pub callbacks: TableName,
    pub nonces: TableName,
}

struct PendingCallback {
    tables: CallbackTables,
    callback: VerifiedCallback,
    answer: oneshot::Sender<CallbackOutcome>,
}

/// Hands callbacks to the task that keeps them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CallbackWriter(mpsc::Sender<PendingCallback>);

/// The task's side.
pub(crate) struct CallbackWriterTask {
    requests: mpsc::Receiver<PendingCallback>,
    server: ServerSettings,
}

/// The writer, and the task that has to be run for it.
pub(crate) fn open(server: ServerSettings) -> (CallbackWriter, CallbackWriterTask) {
    let (sender, requests) = mpsc::channel(WAITING_MAX);
    (CallbackWriter(sender), CallbackWriterTask { requests, server })
}

impl CallbackWriter {
    /// Returns when the callback is committed; `None` if it could not be kept in time.
    pub(crate) async fn keep(
        &self,
        tables: &CallbackTables,
        callback: VerifiedCallback,
    ) -> Option<CallbackOutcome> {
        let (answer, kept) = oneshot::channel();
        let request = PendingCallback { tables: tables.clone(), callback, answer };
        self.0.try_send(request).ok()?;
        timeout(STORE_LIMIT, kept).await.ok()?.ok()
    }
}

impl CallbackWriterTask {
    /// Runs until `stop`, and until what was waiting then is kept or given up.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let (mut session, mut gathered) = (None, Vec::new());
        let mut tables = BTreeSet::new();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        let mut is_away = false;
        loop {
            let count = tokio::select! {
                biased;
                count = self.requests.recv_many(&mut gathered, ROWS_MAX) => count,
                _ = sweep.tick() => {
                    self.sweep(&mut session, &tables).await;
                    continue;
                }
                () = stop.cancelled() => return,
            };
            if count == 0 {
                return; // nobody can hand anything over any more
            }
            // A request that has stopped waiting is not answered; the sender comes again.
            gathered.retain(|request| !request.answer.is_closed());
            tables.extend(gathered.iter().map(|request| request.tables.clone()));
            let kept = timeout(STORE_LIMIT, self.keep(&mut session, &mut gathered)).await;
            let trouble = match kept {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{:#}", anyhow::Error::new(error))),
                Err(_too_late) => Some(format!("no answer within {STORE_LIMIT:?}")),
            };
            if let Some(error) = &trouble {
                if !is_away {
                    tracing::warn!(
                        error,
                        "callbacks cannot be kept: senders are told to come again"
                    );
                }
                session = None;
                gathered.clear(); // their waits end with 503
                tokio::time::sleep(PAUSE).await;
            } else if is_away {
                tracing::info!("callbacks are kept again");
            }
            is_away = trouble.is_some();
        }
    }

    /// Commits what has gathered, table by table. Where a transaction fails because of one row, each
    /// has one of its own, so that one that cannot be kept keeps no other from being kept.
    async fn keep(
        &self,
        session: &mut Option<SqlSession>,
        gathered: &mut Vec<PendingCallback>,
    ) -> Result<(), StoreError> {
        let open = SqlSession::take_or_connect(session, &self.server, store::ANSWER_MAX).await?;
        let session = session.insert(open);
        let mut by_tables: BTreeMap<CallbackTables, Vec<PendingCallback>> = BTreeMap::new();
        for request in gathered.drain(..) {
            by_tables.entry(request.tables.clone()).or_default().push(request);
        }
        for (tables, mut requests) in by_tables {
            let callbacks: Vec<&VerifiedCallback> =
                requests.iter().map(|request| &request.callback).collect();
            match write(session, &tables, &callbacks).await {
                Ok(outcomes) => {
                    for (request, outcome) in requests.drain(..).zip(outcomes) {
                        request.answer.send(outcome).ok(); // it may have stopped waiting
                    }
                }
                Err(error) if is_of_one_row(&error) => {
                    for request in requests {
                        match write(session, &tables, &[&request.callback]).await {
                            Ok(outcomes) => {
                                let outcome = outcomes.into_iter().next();
                                outcome.map(|outcome| request.answer.send(outcome));
                            }
                            Err(error) if is_of_one_row(&error) => tracing::warn!(
                                source = request.callback.row.source,
                                error = %format!("{:#}", anyhow::Error::new(error)),
                                "a callback cannot be kept: see the table's columns and constraints"
                            ),
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes nonces that no timestamp lets through any more.
    async fn sweep(&self, session: &mut Option<SqlSession>, tables: &BTreeSet<CallbackTables>) {
        for CallbackTables { nonces, .. } in tables {
            let Some(session) = session.as_ref() else { return };
            let sql = format!(
                "DELETE FROM {} WHERE seen_at < pg_catalog.now() - interval '{NONCE_LIFE}'",
                nonces.quoted()
            );
            match timeout(STORE_LIMIT, session.client.batch_execute(&sql)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "old nonces stay"),
                Err(_too_late) => tracing::debug!("old nonces stay: no answer"),
            }
        }
    }
}

/// Whether the data of a row is the reason (classes 22 and 23), and not the connection or the server.
fn is_of_one_row(error: &StoreError) -> bool {
    let StoreError::Refused(cause) = error else { return false };
    let code = cause.sqlstate.code();
    code.starts_with("22") || code.starts_with("23")
}

/// One transaction; what became of each callback, in their order.
async fn write(
    session: &mut SqlSession,
    tables: &CallbackTables,
    callbacks: &[&VerifiedCallback],
) -> Result<Vec<CallbackOutcome>, StoreError> {
    let transaction = session.client.transaction().await?;
    // In one order in every replica: who waits for another's row holds none that the other waits for.
    let mut nonces: Vec<(&str, &str)> = callbacks
        .iter()
        .filter_map(|callback| Some((callback.row.source.as_str(), callback.nonce.as_deref()?)))
        .collect();
    nonces.sort_unstable();
    nonces.dedup();
    let (sources, texts): (Vec<&str>, Vec<&str>) = nonces.into_iter().unzip();
    let mut fresh: BTreeSet<(String, String)> = BTreeSet::new();
    if !sources.is_empty() {
        let sql = format!(
            "INSERT INTO {} (source, nonce) \
             SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING \
             RETURNING source, nonce",
            tables.nonces.quoted()
        );
        for row in transaction.query(&sql, &[&sources, &texts]).await? {
            fresh.insert((row.try_get(0)?, row.try_get(1)?));
        }
    }
    // Of those with one nonce that came together, one is fresh.
    let admitted: Vec<bool> = callbacks
        .iter()
        .map(|callback| match &callback.nonce {
            None => true,
            Some(nonce) => fresh.remove(&(callback.row.source.clone(), nonce.clone())),
        })
        .collect();
    let mut rows: Vec<&CallbackRow> = callbacks
        .iter()
        .zip(&admitted)
        .filter(|(_, admitted)| **admitted)
        .map(|(callback, _)| &callback.row)
        .collect();
    rows.sort_by(|a, b| a.dedupe_key.cmp(&b.dedupe_key));
    rows.dedup_by(|a, b| a.dedupe_key == b.dedupe_key);
    let mut kept: BTreeSet<String> = BTreeSet::new();
    if !rows.is_empty() {
        kept = insert(&transaction, &tables.callbacks, &rows).await?;
    }
    transaction.commit().await?;
    failpoint::reached(failpoint::CALLBACK_KEPT);
    let outcome = |(callback, admitted): (&&VerifiedCallback, bool)| match admitted {
        false => CallbackOutcome::NonceSeen,
        true if kept.remove(&callback.row.dedupe_key) => CallbackOutcome::Kept,
        true => CallbackOutcome::Repeated,
    };
    Ok(callbacks.iter().zip(admitted).map(outcome).collect())
}

/// Inserts rows that are not there yet; returns the keys of those that were not.
async fn insert(
    transaction: &tokio_postgres::Transaction<'_>,
    table: &TableName,
    rows: &[&CallbackRow],
) -> Result<BTreeSet<String>, StoreError> {
    let sql = format!(
        "INSERT INTO {} (source, kind, event, message_id, user_id, agent_id, occurred_at, content, \
         fields, dedupe_key) \
         SELECT source, kind, event, message_id, user_id, agent_id, \
         pg_catalog.to_timestamp(occurred_at), content, fields, dedupe_key \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], \
         $7::bigint[], $8::text[], $9::jsonb[], $10::text[]) \
         AS t(source, kind, event, message_id, user_id, agent_id, occurred_at, content, fields, dedupe_key) \
         ON CONFLICT (dedupe_key) DO NOTHING RETURNING dedupe_key",
        table.quoted()
    );
    let texts = |of: fn(&CallbackRow) -> &str| -> Vec<String> {
        rows.iter().map(|row| without_zero(of(row))).collect()
    };
    let options = |of: fn(&CallbackRow) -> Option<&str>| -> Vec<Option<String>> {
        rows.iter().map(|row| of(row).map(without_zero)).collect()
    };
    let kinds: Vec<&str> = rows.iter().map(|row| row.kind.as_str()).collect();
    let occurred: Vec<Option<i64>> = rows.iter().map(|row| row.occurred_at).collect();
    let fields: Vec<Value> = rows.iter().map(|row| storable(&row.fields)).collect();
    let made = transaction
        .query(
            &sql,
            &[
                &texts(|row| &row.source),
                &kinds,
                &texts(|row| &row.event),
                &options(|row| row.message_id.as_deref()),
                &options(|row| row.user_id.as_deref()),
                &options(|row| row.agent_id.as_deref()),
                &occurred,
                // What became of a message is what there is to read of a status.
                &options(|row| row.state.as_deref().or(row.content.as_deref())),
                &fields,
                &texts(|row| &row.dedupe_key),
            ],
        )
        .await?;
    made.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// PostgreSQL's texts have no zero byte.
fn without_zero(text: &str) -> String {
    text.replace('\0', "")
}

/// The same in all texts of a JSON value.
fn storable(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_zero(text)),
        Value::Array(items) => items.iter().map(storable).collect(),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (without_zero(name), storable(value)));
            Value::Object(members.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}
