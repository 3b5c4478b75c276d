//! Rotation of secrets: of endpoints, and of the key that seals them.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SecureRandom;
use ring::rand::SystemRandom;
use serde_json::Value as Json;

use crate::api::answers::admin_answer::AdminAnswer;
use crate::api::answers::endpoint_answers::RotatedSecret;
use crate::api::requests::endpoint_calls::AdminOutcome;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::api::requests::field_kinds::IsoTime;
use crate::config::api_document;
use crate::config::settings::Signing;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::OURSELVES;
use crate::endpoints::admin::admit::unreadable;
use crate::endpoints::admin::record::NamedEventTypes;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;

/// How long the secret before goes on signing, and how long at most.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);
const OVERLAP_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Bytes of a secret that is made here.
const SECRET_BYTES: usize = 32;

impl EndpointAdmin {
    /// `{"secret": ..., "overlap": "24h"}`, both optional.
    pub(super) async fn rotate(
        &mut self,
        orders: &RegistryHandle,
        name: &str,
        body: &Json,
        who: &str,
    ) -> AdminOutcome {
        let before = self.own(orders, name)?.clone();
        let Json::Object(members) = body else {
            return Err(AdminRefusal::new(
                400,
                "the body must be an object, such as {\"overlap\": \"24h\"}",
            ));
        };
        if let Some(stranger) = members.keys().find(|key| !["secret", "overlap"].contains(&&***key))
        {
            return Err(unchanged(stranger, "unknown key: known here are `secret` and `overlap`"));
        }
        let given = match members.get("secret") {
            None => None,
            Some(Json::String(secret)) => Some(secret.as_str()),
            Some(_) => return Err(unchanged("secret", "must be a string")),
        };
        let overlap = match body.get("overlap") {
            None => OVERLAP,
            Some(text) => {
                let overlap = text.as_str().and_then(api_document::duration);
                overlap.filter(|overlap| *overlap <= OVERLAP_MAX).ok_or_else(|| {
                    unchanged("overlap", "is no duration of up to 30d: write it like \"24h\"")
                })?
            }
        };
        let now = self.now();
        let signing = before.endpoint(&self.settings, now, NamedEventTypes::MayBeGone);
        let signing = signing.map_err(|problems| unreadable(&problems))?.signing;
        // A signature in a header of one's own stands there alone.
        let overlaps = !matches!(signing, Some(Signing::Hmac { .. })) && !overlap.is_zero();
        let micros = i64::try_from(overlap.as_micros()).unwrap_or(i64::MAX);
        let until = overlaps.then(|| now.shifted(micros));
        let made = match given {
            Some(_) => None,
            None => Some(new_secret()?),
        };
        let secret = made.as_deref().or(given).unwrap_or_default();
        let mut record = before;
        record.rotate(secret, now, until);
        self.change(orders, record, who).await?;
        tracing::info!(endpoint = name, who, "endpoint has another secret");
        // Shown once: it is nowhere else in the clear.
        let (name, previous_until) = (name.to_owned(), until.map(IsoTime));
        Ok(AdminAnswer::Secret(RotatedSecret { name, secret: made, previous_until }))
    }

    /// Until the next secret has signed for the last time.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        let present = self.records.values().filter(|record| !record.is_leaving);
        let next = present.flat_map(|record| &record.previous).map(|p| p.until).min()?;
        Some(next.since(self.now()))
    }

    pub(super) async fn expire(&mut self, orders: &RegistryHandle) {
        let now = self.now();
        let over = self.records.iter().filter(|(_, record)| {
            !record.is_leaving && record.previous.iter().any(|p| p.until <= now)
        });
        let names: Vec<String> = over.map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(mut record) = self.records.get(&name).cloned() else { continue };
            record.forget_expired(now);
            let endpoint = record.endpoint(&self.settings, now, NamedEventTypes::MayBeGone);
            let Ok(endpoint) = endpoint else { continue };
            let change = EndpointChange::Replace(Box::new(endpoint));
            match self.save(orders, vec![change], record, OURSELVES).await {
                Ok(()) => tracing::info!(endpoint = name, "an old secret does not sign any more"),
                Err(refused) => {
                    let error = refused.detail;
                    tracing::warn!(endpoint = name, error, "cannot take back an old secret");
                }
            }
        }
    }

    /// Seals those records with the first key that were sealed with another one. What fails is left for later.
    pub(super) async fn seal_stale(&mut self, orders: &RegistryHandle) {
        // Where others change endpoints, too, nothing can be written before it is known what they have changed.
        if self.follow(orders).await.is_err() {
            return; // the log was told
        }
        for name in self.stale.clone() {
            if self.seal_anew(orders, &name).await {
                self.stale.retain(|stale| *stale != name);
            }
        }
    }

    /// Seals a record with the first key. Returns whether nothing is left to do.
    async fn seal_anew(&mut self, orders: &RegistryHandle, name: &str) -> bool {
        let Some(record) = self.records.get(name).cloned() else { return true };
        let who = record.updated.1.clone();
        match self.save(orders, Vec::new(), record, &who).await {
            Ok(()) => {
                tracing::info!(endpoint = name, "secrets are sealed with the first key");
                true
            }
            Err(refused) => {
                let error = refused.detail;
                tracing::warn!(
                    endpoint = name,
                    error,
                    "cannot seal secrets with the first key: it is tried again in a minute"
                );
                false
            }
        }
    }
}

fn unchanged(key: &str, message: &str) -> AdminRefusal {
    let errors = vec![(key.to_owned(), message.to_owned())];
    AdminRefusal { errors, ..AdminRefusal::new(422, "the secret was not changed: see errors") }
}

fn new_secret() -> Result<String, AdminRefusal> {
    let mut bytes = [0; SECRET_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| AdminRefusal::new(500, "this host has no random numbers"))?;
    Ok(format!("whsec_{}", BASE64_STANDARD.encode(bytes)))
}
