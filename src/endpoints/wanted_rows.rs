//! The endpoints that the rows of a table are to be. Pure.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::sections::endpoints_from::EndpointsFrom;
use crate::config::settings::Endpoint;
use crate::preflight::endpoint_rows::KeyedRow;
use crate::preflight::endpoint_rows::Row;

/// What a reading of the table asks for: endpoints by name, and what is wrong with rows.
#[derive(Default)]
pub(super) struct WantedEndpoint {
    pub(super) endpoints: BTreeMap<Arc<str>, (Endpoint, Row)>,
    pub(super) problems: Vec<(String, String)>,
    /// The names of the endpoints by their rows' keys, where these were asked for.
    pub(super) keys: Vec<(Arc<str>, Arc<str>)>,
}

/// The endpoints that the rows are to be, whose names must not be among `taken`.
pub(super) fn wanted(
    from: &EndpointsFrom,
    rows: Vec<KeyedRow>,
    taken: &BTreeSet<Arc<str>>,
) -> WantedEndpoint {
    let mut wanted = WantedEndpoint::default();
    for KeyedRow { key, row } in rows {
        let read = from.endpoint(&row);
        let is_taken = read.as_ref().is_ok_and(|endpoint| {
            taken.contains(&endpoint.name) || wanted.endpoints.contains_key(&endpoint.name)
        });
        let (endpoint, problem) = match read {
            Ok(endpoint) if is_taken => {
                let why = "there is an endpoint of this name already: make them differ";
                let problem = (endpoint.name.to_string(), why.to_owned());
                (from.unusable(&row, true, why), Some(problem))
            }
            Ok(endpoint) => (Some(endpoint), None),
            Err((name, why)) => {
                let mut unusable = from.unusable(&row, false, &why);
                let is_taken = |endpoint: &Endpoint| {
                    taken.contains(&endpoint.name) || wanted.endpoints.contains_key(&endpoint.name)
                };
                if unusable.as_ref().is_some_and(is_taken) {
                    unusable = from.unusable(&row, true, &why);
                }
                (unusable, Some((name, why)))
            }
        };
        wanted.problems.extend(problem);
        wanted.keys.extend(key.zip(endpoint.as_ref().map(|endpoint| Arc::clone(&endpoint.name))));
        wanted.endpoints.extend(endpoint.map(|e| (Arc::clone(&e.name), (e, row))));
    }
    wanted
}
