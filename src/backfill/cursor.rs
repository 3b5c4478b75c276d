//! Where a backfill reads on, as `walhook.backfills` keeps it.

use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

/// Up to here everything was read, and is settled or parked.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct BackfillCursor {
    /// Leaves that are done, by OID.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<u32>,
    /// The leaf that is being read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf: Option<LeafCursor>,
}

/// A place in a table that has rows of its own.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct LeafCursor {
    pub oid: u32,
    /// Its file, which another one replaces when its rows move. By key it does not matter.
    pub filenode: u32,
    /// How often it was begun from the start: rows have other ids each time.
    #[serde(default)]
    pub pass: u32,
    pub at: LeafPlace,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LeafPlace {
    Start,
    /// The key of the last row that was read, as texts in the order of the index; or where it lies, such as
    /// `(7,3)`.
    After(Vec<String>),
}

impl BackfillCursor {
    /// Of text that [`BackfillCursor::text`] has made; anything else is the start.
    pub(crate) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> Arc<str> {
        // Numbers and strings: it cannot fail.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        let at = [
            LeafPlace::Start,
            LeafPlace::After(vec!["a'b".to_owned(), String::new()]),
            LeafPlace::After(vec!["(7,65535)".to_owned()]),
        ];
        for at in at {
            let leaf = Some(LeafCursor { oid: 3, filenode: 4, pass: 1, at });
            let cursor = BackfillCursor { done: vec![1, 2], leaf };
            assert_eq!(BackfillCursor::parse(&cursor.text()), cursor);
        }
        assert_eq!(BackfillCursor::parse("{}"), BackfillCursor::default());
    }
}
