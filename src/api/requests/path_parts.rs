//! Path parameters of the API: names and numbers in `/api/v1/.../{name}`.

use crate::api::requests::request::PathPart;

/// An endpoint, by its name.
pub(crate) struct EndpointPart;

impl PathPart for EndpointPart {
    const NAME: &'static str = "name";
    const KIND: &'static str = "string";
    const MEANING: &'static str = "Name of the endpoint";
}

/// A dead letter, by its number.
pub(crate) struct LetterPart;

impl PathPart for LetterPart {
    const NAME: &'static str = "id";
    const KIND: &'static str = "integer";
    const MEANING: &'static str = "Number of the dead letter";
}

/// A replay, by its number.
pub(crate) struct ReplayPart;

impl PathPart for ReplayPart {
    const NAME: &'static str = "id";
    const KIND: &'static str = "integer";
    const MEANING: &'static str = "Number of the replay";
}

/// A backfill, by its number.
pub(crate) struct BackfillPart;

impl PathPart for BackfillPart {
    const NAME: &'static str = "id";
    const KIND: &'static str = "integer";
    const MEANING: &'static str = "Number of the backfill";
}

/// An event, by its id.
pub(crate) struct EventPart;

impl PathPart for EventPart {
    const NAME: &'static str = "event_id";
    const KIND: &'static str = "string";
    const MEANING: &'static str = "Event id, evt_ and 40 hex digits";
}

/// A message, by its id.
pub(crate) struct MessagePart;

impl PathPart for MessagePart {
    const NAME: &'static str = "message_id";
    const KIND: &'static str = "string";
    const MEANING: &'static str = "The application's id of the message, or the receiver's (msgid)";
}

/// A file of the page, by its name.
pub(crate) struct FilePart;

impl PathPart for FilePart {
    const NAME: &'static str = "file";
    const KIND: &'static str = "string";
    const MEANING: &'static str = "Its name";
}
