//! What was to be sent again to an endpoint that has been removed meanwhile.
//!
//! The API takes no such wish for an endpoint that is not there. One that was there when it was asked
//! for, and is no more, would keep its letters waiting for ever, so they are dead again and say why.

use crate::store::ownership::StateOwnership;
use crate::store::resend;
use crate::store::session::session_pool::SessionPool;
use crate::store::state_error::StateError;

/// Before the reason that the letter had.
const WHY: &str = "asked for again, but the endpoint was removed before it was sent; before that: ";

/// Makes the letters that wait for this endpoint dead again.
pub(crate) async fn take_back(pool: &SessionPool, ownership: &StateOwnership, endpoint: &str) {
    let taken = async {
        let mut session = pool.session().await?;
        resend::take_back(session.client(), ownership, endpoint, WHY).await
    };
    let taken: Result<u64, StateError> = taken.await;
    match taken {
        Ok(0) => {}
        Ok(letters) => tracing::warn!(
            endpoint,
            letters,
            "dead letters that were to be sent again are dead once more: their endpoint was removed"
        ),
        Err(error) => {
            let error = anyhow::Error::new(error);
            tracing::debug!(error = %format!("{error:#}"), "cannot take back what was asked for");
        }
    }
}
