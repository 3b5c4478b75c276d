//! Statements that a session sends again and again: the server parses and plans each of them once.
//!
//! ```text
//! sent without a name ─▶ known ─ next transaction ─▶ prepared ─ after 500 transactions ─▶ known
//! ```
//!
//! Only where the session is with the server itself. Behind a pooler a name may be nobody's in the next
//! transaction, or that of another client's statement, which would be taken for ours: so nothing is prepared
//! unless the server's process is the one that the login has named, which no pooler knows to say.
//!
//! For statements whose plan is the same whatever their tables hold. What joins rows that are looked up with a
//! large table is sent without a name, so that it is planned for the table as it is.

use std::collections::HashMap;
use std::mem;
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio_postgres::Client;
use tokio_postgres::CopyInSink;
use tokio_postgres::IsolationLevel;
use tokio_postgres::Statement;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use crate::store::session::answer_watch::BackendKeyPid;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// Statements that a session has names for at most: more than a flush has.
const STATEMENTS_MAX: usize = 32;

/// Transactions after which everything is prepared anew. A plan is made for tables as they were then, and what
/// would have the server plan it again, an ANALYZE, may never come.
const PREPARED_FOR: u32 = 500;

/// What a session has prepared, and what it will.
#[derive(Debug)]
pub(crate) struct PreparedStatements {
    process: BackendKeyPid,
    table: Mutex<StatementTable>,
}

#[derive(Debug, Default)]
struct StatementTable {
    known: HashMap<&'static str, KnownStatement>,
    /// Whether statements may have names; `None` before the server was asked.
    named: Option<bool>,
    /// Transactions since everything was prepared.
    begun: u32,
}

#[derive(Debug)]
struct KnownStatement {
    types: Vec<Type>,
    prepared: Option<Statement>,
}

impl PreparedStatements {
    /// For a session whose login names the process.
    pub(crate) fn new(process: BackendKeyPid) -> Self {
        Self { process, table: Mutex::default() }
    }

    /// Begins a transaction, after what was sent before has been prepared.
    ///
    /// # Errors
    /// That the transaction could not be begun.
    pub(crate) async fn begin<'a>(
        &'a self,
        client: &'a mut Client,
    ) -> Result<StateTransaction<'a>, StateError> {
        self.prepare(client).await;
        let level = IsolationLevel::ReadCommitted;
        let tx = client.build_transaction().isolation_level(level).start().await?;
        Ok(StateTransaction { tx, statements: self })
    }

    /// Sends everything without a name from here on.
    pub(crate) fn give_up(&self) {
        let known = {
            let mut table = self.lock();
            table.named = Some(false);
            mem::take(&mut table.known)
        };
        drop(known); // the server is told to forget them
    }

    async fn prepare(&self, client: &Client) {
        let wanted = self.wanted();
        if wanted.is_empty() || !self.may_name(client).await {
            return;
        }
        let prepare = |(sql, types): &(&'static str, Vec<Type>)| {
            let (sql, types) = (*sql, types.clone());
            async move { (sql, client.prepare_typed(sql, &types).await) }
        };
        for (sql, outcome) in join_all(wanted.iter().map(prepare)).await {
            match outcome {
                Ok(statement) => {
                    let mut table = self.lock();
                    let Some(known) = table.known.get_mut(sql) else { continue };
                    known.prepared = Some(statement);
                }
                // The caller that sends the statement is told what is wrong with it.
                Err(error) => {
                    tracing::debug!(%error, "statements are not prepared");
                    self.give_up();
                }
            }
        }
    }

    /// What is to be prepared before the next transaction.
    fn wanted(&self) -> Vec<(&'static str, Vec<Type>)> {
        let mut old = Vec::new();
        let mut table = self.lock();
        table.begun += 1;
        if table.begun >= PREPARED_FOR {
            table.begun = 0;
            old.extend(table.known.values_mut().filter_map(|known| known.prepared.take()));
        }
        let unprepared = table.known.iter().filter(|(_, known)| known.prepared.is_none());
        let wanted = unprepared.map(|(sql, known)| (*sql, known.types.clone())).collect();
        drop(table);
        drop(old);
        wanted
    }

    /// Whether the session is with the server itself.
    async fn may_name(&self, client: &Client) -> bool {
        let known = self.lock().named;
        if let Some(named) = known {
            return named;
        }
        let question = "SELECT pg_catalog.pg_backend_pid() AS pid";
        let row = client.query_typed_one(question, &[]).await;
        let pid = row.ok().and_then(|row| read::<i32>(&row, "pid").ok());
        let named = pid.is_some() && pid == self.process.pid();
        if named {
            self.lock().named = Some(true);
        } else {
            tracing::debug!("a pooler stands before the state: statements are not prepared");
            self.give_up();
        }
        named
    }

    /// The statement, if it is prepared; if not, it is known from here on.
    fn find(&self, sql: &'static str, types: impl FnOnce() -> Vec<Type>) -> Option<Statement> {
        let mut table = self.lock();
        if table.named == Some(false) {
            return None;
        }
        if let Some(known) = table.known.get(sql) {
            return known.prepared.clone();
        }
        if table.known.len() < STATEMENTS_MAX {
            table.known.insert(sql, KnownStatement { types: types(), prepared: None });
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, StatementTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server does not know a name, or knows it already: a pooler stands between after all.
pub(crate) fn is_of_names(error: &StateError) -> bool {
    let states = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT];
    error.sqlstate().is_some_and(|state| states.contains(state))
}

/// A transaction that can use what its session has prepared.
pub(crate) struct StateTransaction<'a> {
    tx: Transaction<'a>,
    statements: &'a PreparedStatements,
}

impl StateTransaction<'_> {
    /// Sends the statement, prepared if it can be. How many rows it was about.
    ///
    /// # Errors
    /// That the statement failed.
    pub(crate) async fn execute(
        &self,
        sql: &'static str,
        params: &SqlParams<'_>,
    ) -> Result<u64, StateError> {
        let list = params.list();
        let types = || list.iter().map(|(_, sql_type)| sql_type.clone()).collect();
        let Some(statement) = self.statements.find(sql, types) else {
            return Ok(self.tx.execute_typed(sql, &list).await?);
        };
        let values: Vec<&(dyn ToSql + Sync)> = list.iter().map(|(value, _)| *value).collect();
        Ok(self.tx.execute(&statement, &values).await?)
    }

    /// Begins a COPY to the server.
    ///
    /// # Errors
    /// That the statement failed.
    pub(crate) async fn copy_in(&self, sql: &'static str) -> Result<CopyInSink<Bytes>, StateError> {
        match self.statements.find(sql, Vec::new) {
            Some(statement) => Ok(self.tx.copy_in(&statement).await?),
            None => Ok(self.tx.copy_in(sql).await?),
        }
    }

    /// A part that can be given up by itself.
    ///
    /// # Errors
    /// That the statement failed.
    pub(crate) async fn savepoint(
        &mut self,
        name: &str,
    ) -> Result<StateTransaction<'_>, StateError> {
        let tx = self.tx.savepoint(name).await?;
        Ok(StateTransaction { tx, statements: self.statements })
    }

    /// # Errors
    /// That the statement failed.
    pub(crate) async fn rollback(self) -> Result<(), StateError> {
        Ok(self.tx.rollback().await?)
    }

    /// # Errors
    /// That it was not committed, or that nobody knows.
    pub(crate) async fn commit(self) -> Result<(), StateError> {
        Ok(self.tx.commit().await?)
    }
}

/// For statements that are never prepared.
impl<'a> Deref for StateTransaction<'a> {
    type Target = Transaction<'a>;

    fn deref(&self) -> &Self::Target {
        &self.tx
    }
}
