//! Where keys stand in a configuration file, for messages that come when the file was read long ago.

use std::fmt;
use std::sync::Arc;

/// Places such as `walhook.toml:7`, by key. Two of them are always equal: a key that has moved within the file
/// says the same as before.
#[derive(Clone, Default)]
pub struct SourcePlaces(Arc<[(&'static str, String)]>);

impl SourcePlaces {
    pub(crate) fn new(places: Vec<(&'static str, String)>) -> Self {
        Self(places.into())
    }

    /// ` (walhook.toml:7)`, or nothing where that is not known.
    pub fn shown(&self, key: &str) -> String {
        let place = self.0.iter().find(|(of, _)| *of == key);
        place.map(|(_, place)| format!(" ({place})")).unwrap_or_default()
    }
}

impl PartialEq for SourcePlaces {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for SourcePlaces {}

impl fmt::Debug for SourcePlaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourcePlaces")
    }
}
