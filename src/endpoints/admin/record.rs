//! One endpoint that was made at run time: what its maker wrote, and how that is stored.
//!
//! ```text
//! document, secrets in it ─▶ row: document with masks, and the secrets sealed
//! ```

use serde_json::Value as Json;
use serde_json::json;

use crate::config::api_document;
use crate::config::api_document::SecretFiles;
use crate::config::configuration::Settings;
use crate::config::problem::ConfigProblems;
use crate::config::settings::Endpoint;
use crate::flow::time::Timestamp;
use crate::store::endpoints::StoredEndpoint;
use crate::store::sealed_secret::SealError;
use crate::store::sealed_secret::SealingKeys;

/// Keys that an endpoint signs with at once: the one that it has, and those it had.
const PREVIOUS_MAX: usize = 4;

/// What seals secrets, and for which slot.
#[derive(Debug)]
pub(crate) struct RecordSeal {
    pub(crate) keys: SealingKeys,
    pub(crate) slot: String,
}

impl RecordSeal {
    pub(crate) fn new(settings: &Settings) -> Self {
        let keys = SealingKeys::new(&settings.run_time.keys);
        Self { keys, slot: settings.postgres.slot.clone() }
    }
}

/// Whether event types that an endpoint names have to be those of an event rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NamedEventTypes {
    MustExist,
    /// Their rules may have been removed since: the endpoint gets nothing of them.
    MayBeGone,
}

/// An endpoint of the API, as it is stored and shown.
#[derive(Clone)]
pub(crate) struct EndpointRecord {
    /// As it was written, with its secrets.
    pub(crate) document: Json,
    /// What `wechat-messages`'s calls said beyond that: `MessageTypes` and `IncludeSelfMessage`.
    pub(crate) message: Option<Json>,
    /// Secrets that it had before, the latest first.
    pub(crate) previous: Vec<PreviousSecret>,
    /// It is being removed.
    pub(crate) is_leaving: bool,
    pub(crate) created: (Timestamp, String),
    pub(crate) updated: (Timestamp, String),
}

/// A secret that still signs.
#[derive(Clone)]
pub(crate) struct PreviousSecret {
    pub(crate) secret: String,
    /// Not any more from then on.
    pub(crate) until: Timestamp,
}

/// Why a row makes no record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    Sealed(#[from] SealError),
    #[error(
        "endpoint {endpoint} in walhook.endpoints cannot be understood: delete the row, and make \
         the endpoint again"
    )]
    Unreadable { endpoint: String },
}

impl EndpointRecord {
    pub(crate) fn new(document: Json, message: Option<Json>) -> Self {
        let nobody = || (Timestamp::default(), String::new());
        let (created, updated) = (nobody(), nobody());
        Self { document, message, previous: Vec::new(), is_leaving: false, created, updated }
    }

    pub(crate) fn of_row(row: StoredEndpoint, seal: &RecordSeal) -> Result<Self, RecordError> {
        let unreadable = || RecordError::Unreadable { endpoint: row.name.clone() };
        let mut document = row.settings.get("endpoint").cloned().ok_or_else(unreadable)?;
        let mut previous = Vec::new();
        if let Some(sealed) = &row.sealed {
            let plain = seal.keys.open(&seal.slot, &row.name, sealed)?;
            let sealed: Json = serde_json::from_slice(&plain).map_err(|_| unreadable())?;
            let secrets = sealed.get("secrets").cloned().unwrap_or_default();
            let secrets: SecretFiles = serde_json::from_value(secrets).map_err(|_| unreadable())?;
            api_document::put_secrets(&mut document, &secrets);
            for item in sealed.get("previous").and_then(Json::as_array).into_iter().flatten() {
                let secret = item.get("secret").and_then(Json::as_str).ok_or_else(unreadable)?;
                let until = item.get("until").and_then(Json::as_i64).ok_or_else(unreadable)?;
                let until = Timestamp::from_micros(until);
                previous.push(PreviousSecret { secret: secret.to_owned(), until });
            }
        }
        Ok(Self {
            document,
            message: row.settings.get("message").filter(|message| !message.is_null()).cloned(),
            previous,
            is_leaving: row.settings.get("is_leaving") == Some(&Json::Bool(true)),
            created: (row.created_at, row.created_by),
            updated: (row.updated_at, row.updated_by),
        })
    }

    /// The row to write. `who` changed it.
    ///
    /// # Errors
    /// There are secrets, and no key to seal them with.
    pub(crate) fn row(&self, who: &str, seal: &RecordSeal) -> Result<StoredEndpoint, SealError> {
        let name = self.name();
        let mut shown = self.document.clone();
        let secrets = api_document::take_secrets(&mut shown);
        let previous = self
            .previous
            .iter()
            .map(|previous| json!({ "secret": previous.secret, "until": previous.until.micros() }));
        let previous: Vec<Json> = previous.collect();
        let sealed = match secrets.is_empty() && previous.is_empty() {
            true => None,
            false => {
                let plain = json!({ "secrets": secrets, "previous": previous }).to_string();
                Some(seal.keys.seal(&seal.slot, &name, plain.as_bytes())?)
            }
        };
        Ok(StoredEndpoint {
            settings: json!({
                "endpoint": shown, "message": self.message, "is_leaving": self.is_leaving,
            }),
            sealed,
            enabled: self.is_enabled(),
            created_at: self.created.0,
            created_by: self.created.1.clone(),
            updated_at: self.updated.0,
            updated_by: who.to_owned(),
            name,
        })
    }

    /// The endpoint that it describes at the moment.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn endpoint(
        &self,
        settings: &Settings,
        now: Timestamp,
        event_types: NamedEventTypes,
    ) -> Result<Endpoint, ConfigProblems> {
        let made = &settings.run_time;
        let defaults = match (&self.message, &made.webhook_api) {
            (Some(_), Some(api)) => &api.defaults,
            _ => &made.defaults,
        };
        let mut document = self.document.clone();
        let previous = self.previous.iter().filter(|previous| previous.until > now);
        let previous: Vec<Json> = previous.map(|p| Json::from(p.secret.as_str())).collect();
        if !previous.is_empty() {
            let mut secrets = self.secrets();
            secrets.extend(previous);
            set(&mut document, "secret", Json::Array(secrets));
        }
        let known = match event_types {
            NamedEventTypes::MustExist => Some(settings.events.as_slice()),
            NamedEventTypes::MayBeGone => None,
        };
        api_document::read(&document, defaults, known)
    }

    /// Another secret takes the place of those that it has, which sign on until `until`; those that
    /// have expired by `now` are forgotten.
    pub(crate) fn rotate(&mut self, secret: &str, now: Timestamp, until: Option<Timestamp>) {
        self.forget_expired(now);
        if let Some(until) = until {
            let before = self.secrets();
            let before = before.iter().filter_map(Json::as_str);
            let mut previous: Vec<PreviousSecret> = before
                .map(|secret| PreviousSecret { secret: secret.to_owned(), until })
                .chain(self.previous.drain(..))
                .collect();
            previous.truncate(PREVIOUS_MAX);
            self.previous = previous;
        } else {
            self.previous.clear();
        }
        set(&mut self.document, "secret", Json::from(secret));
    }

    pub(crate) fn forget_expired(&mut self, now: Timestamp) {
        self.previous.retain(|previous| previous.until > now);
    }

    pub(crate) fn switch(&mut self, enabled: bool) {
        set(&mut self.document, "enabled", Json::Bool(enabled));
    }

    pub(crate) fn name(&self) -> String {
        self.document.get("name").and_then(Json::as_str).unwrap_or_default().to_owned()
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.document.get("enabled").and_then(Json::as_bool).unwrap_or(true)
    }

    /// The document as it may be seen.
    pub(crate) fn masked(&self) -> Json {
        api_document::masked(&self.document)
    }

    /// Puts the record's secrets in the place of masks: a client that gives back what was shown
    /// changes none of them.
    pub(crate) fn unmask(&self, document: &mut Json) {
        api_document::unmask(document, &self.document);
    }

    fn secrets(&self) -> Vec<Json> {
        match self.document.get("secret") {
            Some(Json::Array(secrets)) => secrets.clone(),
            Some(secret) => vec![secret.clone()],
            None => Vec::new(),
        }
    }
}

pub(crate) fn set(document: &mut Json, name: &str, value: Json) {
    if let Json::Object(members) = document {
        members.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    fn seal(key: u8) -> RecordSeal {
        RecordSeal { keys: SealingKeys::new(&[Secret::new([key; 32])]), slot: "s".to_owned() }
    }

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn signing(record: &EndpointRecord, now: i64) -> Vec<&str> {
        let own = record.document["secret"].as_str();
        let previous = record.previous.iter().filter(|p| p.until > seconds(now));
        own.into_iter().chain(previous.map(|p| p.secret.as_str())).collect()
    }

    #[test]
    fn a_row_holds_no_secret_in_the_clear_and_reads_back() {
        let document =
            json!({ "name": "crm", "url": "https://h/", "secret": "hunter2hunter2hunter2" });
        let mut record = EndpointRecord::new(document, Some(json!({ "IncludeSelfMessage": true })));
        record.rotate("opensesameopensesame", seconds(0), Some(seconds(9)));
        let row = record.row("me", &seal(1)).unwrap();
        let text = format!("{}{:?}", row.settings, row.sealed);
        assert!(!text.contains("hunter2") && !text.contains("opensesame"), "{text}");
        let read = EndpointRecord::of_row(row.clone(), &seal(1)).unwrap();
        assert_eq!(read.document, record.document);
        assert_eq!(read.message, record.message);
        assert_eq!(signing(&read, 0), ["opensesameopensesame", "hunter2hunter2hunter2"]);
        let error = EndpointRecord::of_row(row, &seal(2)).err().unwrap().to_string();
        assert!(error.contains("endpoint crm"), "{error}");
    }

    #[test]
    fn a_second_rotation_within_the_overlap_sends_no_expired_secret() {
        let mut record = EndpointRecord::new(json!({ "name": "crm", "secret": "first" }), None);
        record.rotate("second", seconds(0), Some(seconds(10)));
        assert_eq!(signing(&record, 5), ["second", "first"]);
        record.rotate("third", seconds(6), Some(seconds(16)));
        assert_eq!(signing(&record, 7), ["third", "second", "first"]);
        assert_eq!(signing(&record, 12), ["third", "second"], "the first has kept its own end");
        record.rotate("fourth", seconds(12), Some(seconds(22)));
        assert_eq!(record.previous.len(), 2, "the first is forgotten");
        record.rotate("fifth", seconds(13), None);
        assert_eq!(signing(&record, 13), ["fifth"]);
        for n in 0..9 {
            record.rotate(&format!("more{n}"), seconds(14), Some(seconds(90)));
        }
        assert_eq!(signing(&record, 15).len(), 1 + PREVIOUS_MAX);
    }
}
