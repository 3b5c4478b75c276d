//! The headers of a message: who sent it, where it stands, and what it follows.
//!
//! ```text
//! Wh-Epoch   the epoch of the source's holder that sent it
//! Wh-Pos     the place of its last event
//! Wh-After   the place of the event before it: an owner that has not got that one lacks something
//! Wh-Id      its first event; `mark` where nothing more comes of what is before Wh-End for now
//! Wh-Piece   `2/3`: a part of a large event
//! ```

use async_nats::HeaderMap;

use crate::flow::event::EventId;
use crate::flow::lsn::Lsn;
use crate::relay::message::MessageError;
use crate::relay::place::MessagePlace;

const EPOCH: &str = "Wh-Epoch";
const PLACE: &str = "Wh-Pos";
const AFTER: &str = "Wh-After";
const ID: &str = "Wh-Id";
const END: &str = "Wh-End";
const PIECE: &str = "Wh-Piece";

/// Stands in the place of an event's id.
const MARK: &str = "mark";

/// Where a message stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MessageHead {
    pub(crate) epoch: i64,
    pub(crate) place: MessagePlace,
    pub(crate) after: MessagePlace,
    /// Of a mark: the stream holds nothing more before this.
    pub(crate) mark: Option<Lsn>,
    /// Which piece of how many.
    pub(crate) piece: (u32, u32),
}

impl MessageHead {
    /// As headers; `id` is that of the first event.
    pub(crate) fn headers(&self, id: Option<EventId>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(EPOCH, self.epoch.to_string());
        headers.insert(PLACE, self.place.to_string());
        headers.insert(AFTER, self.after.to_string());
        headers.insert(ID, id.map_or_else(|| MARK.to_owned(), |id| id.to_string()));
        if let Some(end) = self.mark {
            headers.insert(END, end.raw().to_string());
        }
        if self.piece.1 > 1 {
            headers.insert(PIECE, format!("{}/{}", self.piece.0, self.piece.1));
        }
        headers
    }

    /// Reads them.
    ///
    /// # Errors
    /// One is missing, or says what it cannot.
    pub(crate) fn read(headers: Option<&HeaderMap>) -> Result<Self, MessageError> {
        let text = |name: &'static str| {
            let value = headers.and_then(|headers| headers.get(name));
            value.map(|value| value.as_str()).ok_or(MessageError::Header { name })
        };
        let epoch = text(EPOCH)?.parse().map_err(|_| MessageError::Header { name: EPOCH })?;
        let place = text(PLACE)?.parse().map_err(|_| MessageError::Header { name: PLACE })?;
        let after = text(AFTER)?.parse().map_err(|_| MessageError::Header { name: AFTER })?;
        let mark = match text(ID)? {
            MARK => {
                let end = text(END)?.parse().map_err(|_| MessageError::Header { name: END })?;
                Some(Lsn::from_raw(end))
            }
            _ => None,
        };
        let piece = match text(PIECE) {
            Ok(text) => {
                let parts = text.split_once('/');
                let parts = parts.and_then(|(nth, of)| Some((nth.parse().ok()?, of.parse().ok()?)));
                parts.ok_or(MessageError::Header { name: PIECE })?
            }
            Err(_) => (1, 1),
        };
        Ok(Self { epoch, place, after, mark, piece })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::event::IdOrigin;
    use crate::flow::event::RuleIndex;
    use crate::flow::lsn::Position;

    #[test]
    fn a_head_reads_back_and_what_lacks_a_header_is_refused() {
        let at = |commit| Position { commit: Lsn::from_raw(commit), ordinal: 0 };
        let id = EventId::new(at(8), IdOrigin::new(7, "order"));
        let head = MessageHead {
            epoch: 4,
            place: MessagePlace::of(at(8), RuleIndex(0)),
            after: MessagePlace::after(at(7)),
            mark: None,
            piece: (2, 3),
        };
        assert_eq!(MessageHead::read(Some(&head.headers(Some(id)))).unwrap(), head);
        let mark = MessageHead { mark: Some(Lsn::from_raw(9)), piece: (1, 1), ..head };
        assert_eq!(MessageHead::read(Some(&mark.headers(None))).unwrap(), mark);
        for name in [EPOCH, PLACE, AFTER, ID] {
            let mut headers = head.headers(Some(id));
            headers.insert(name, "nonsense");
            let is_id = name == ID; // its text is for people
            assert_eq!(MessageHead::read(Some(&headers)).is_ok(), is_id, "case: {name}");
        }
        assert!(MessageHead::read(None).is_err());
    }
}
