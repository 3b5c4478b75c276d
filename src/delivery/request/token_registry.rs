//! The access tokens that a process has: one per corporation and secret, kept as long as an endpoint
//! needs it.

use std::sync::Arc;
use std::sync::Mutex as Lock;
use std::sync::PoisonError;
use std::sync::Weak;

use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::config::secret::Secret;
use crate::config::settings::WecomApp;

/// The tokens of a process, by whom they are for. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct TokenRegistry(Arc<Lock<Vec<KnownHolder>>>);

/// A token, as long as an endpoint needs it.
struct KnownHolder {
    holder: TokenHolder,
    current: Weak<IssuedTokens>,
}

/// Who has a token.
#[derive(Clone, Eq, PartialEq)]
struct TokenHolder {
    token_url: Url,
    corp_id: String,
    corp_secret: Secret<String>,
}

#[derive(Default)]
pub(crate) struct IssuedTokens {
    pub(crate) token: Mutex<Option<AccessToken>>,
    /// The last texts that were handed out, to be masked.
    pub(crate) known: Lock<Vec<Arc<str>>>,
}

/// A token in use.
#[derive(Clone)]
pub(crate) struct AccessToken {
    pub(crate) text: Arc<str>,
    pub(crate) until: Instant,
}

impl TokenRegistry {
    pub(crate) fn current(&self, app: &WecomApp) -> Arc<IssuedTokens> {
        let holder = TokenHolder {
            token_url: app.token_url.reveal().clone(),
            corp_id: app.corp_id.clone(),
            corp_secret: app.corp_secret.clone(),
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.current.strong_count() > 0);
        let found = known.iter().find(|known| known.holder == holder);
        if let Some(current) = found.and_then(|known| known.current.upgrade()) {
            return current;
        }
        let current = Arc::<IssuedTokens>::default();
        known.push(KnownHolder { holder, current: Arc::downgrade(&current) });
        current
    }
}
