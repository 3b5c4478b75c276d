//! Where messages are looked up, if `[messages]` says so.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;

use crate::api::answers::problem::ProblemResponse;
use crate::config::settings::MessageTables;
use crate::config::settings::ServerSettings;
use crate::store::error::StoreError;
use crate::store::messages;
use crate::store::messages::Message;
use crate::store::session::session_pool::SessionPool;
use crate::store::state_error::StateError;

/// People who ask at once; others wait.
const SESSIONS: usize = 2;

/// A question is about one message.
const STATEMENT_MAX: Duration = Duration::from_secs(5);

/// How long a request waits for a session and its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where messages are looked up, if `[messages]` says so. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MessageQueries(Option<Arc<(SessionPool, MessageTables)>>);

impl MessageQueries {
    pub(crate) fn new(source: &ServerSettings, tables: Option<&MessageTables>) -> Self {
        let pool = || SessionPool::new(source.clone(), SESSIONS, STATEMENT_MAX);
        Self(tables.map(|tables| Arc::new((pool(), tables.clone()))))
    }

    pub(crate) async fn find(&self, id: &str) -> Result<Message, ProblemResponse> {
        let Some(inner) = &self.0 else {
            let detail = "there is no [messages] in the configuration: add it to be told";
            return Err(ProblemResponse::new(StatusCode::NOT_FOUND, detail));
        };
        let (pool, tables) = &**inner;
        let asked = tokio::time::timeout(PATIENCE, async {
            let mut session = pool.session().await.map_err(StateError::from)?;
            messages::find(session.client(), tables, id).await
        });
        match asked.await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(ProblemResponse::new(
                StatusCode::NOT_FOUND,
                format!("message {id:?} is not known"),
            )),
            Ok(Err(StateError::Store(StoreError::Refused(cause)))) => Err(away(&cause.to_string())),
            Ok(Err(_)) => Err(away("the database is away")),
            Err(_late) => Err(away("nobody answered in time")),
        }
    }
}

fn away(why: &str) -> ProblemResponse {
    let detail = format!(
        "what [messages] names cannot be read, try again, or see what `walhook check` says: {why}"
    );
    ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}
