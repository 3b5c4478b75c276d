//! Refusals of the endpoints' API: which calls get 4xx, and why.

use serde_json::Value as Json;

use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::config::api_document;
use crate::endpoints::admin::record::EndpointRecord;
use crate::endpoints::registry::change::RegistryError;

/// Test events under way.
pub(super) const PROBES_MAX: usize = 8;

/// Nothing can be sent to the endpoint at the moment.
pub(super) fn no_client(error: anyhow::Error) -> AdminRefusal {
    AdminRefusal::new(503, format!("{error:#}"))
}

pub(super) fn room_for(probes: usize) -> Result<(), AdminRefusal> {
    if probes < PROBES_MAX {
        return Ok(());
    }
    Err(busy())
}

pub(super) fn busy() -> AdminRefusal {
    let detail = format!("{PROBES_MAX} tests are under way: try again in a moment");
    AdminRefusal::new(503, detail)
}

pub(super) fn unknown(name: &str) -> AdminRefusal {
    AdminRefusal::new(
        404,
        format!(
            "there is no endpoint {name}: `walhook endpoints list` and /api/v1/endpoints show those that there are"
        ),
    )
}

/// Credentials of one host are not sent to another because a client has corrected a URL.
pub(super) fn refuse_carrying_off(
    document: &Json,
    before: &EndpointRecord,
) -> Result<(), AdminRefusal> {
    let kept = api_document::carried_off(document, &before.document);
    if kept.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "the URL leads to another host, and {} would be sent there: give each anew, or take it away with \
         null; what signs (secret) is kept",
        kept.join(", ")
    );
    let what = "is kept for another host: give it anew, or null";
    let errors = kept.into_iter().map(|key| (key, what.to_owned())).collect();
    Err(AdminRefusal { errors, ..AdminRefusal::new(422, detail) })
}

pub(super) fn require_object(document: &Json) -> Result<(), AdminRefusal> {
    match document {
        Json::Object(_) => Ok(()),
        _ => Err(AdminRefusal::new(
            400,
            "the body must be an object with the keys of an [[endpoint]]",
        )),
    }
}

pub(super) fn refused(error: RegistryError) -> AdminRefusal {
    let status = match &error {
        RegistryError::NameTaken { .. }
        | RegistryError::VersionConflict
        | RegistryError::NotRenamed { .. }
        | RegistryError::Leaving { .. }
        | RegistryError::TooMany { .. } => 409,
        RegistryError::Unknown { .. } => 404,
        RegistryError::Unusable(_) => 422,
        RegistryError::Unsaved(_) | RegistryError::NotShared(_) | RegistryError::Stopping => 503,
    };
    let text = format!("{:#}", anyhow::Error::new(error));
    AdminRefusal::new(status, text)
}
