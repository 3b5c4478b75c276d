//! What indexes of endpoints and versions of their set mean: names, and who took what.
//!
//! Endpoints come and go while walhook runs. Notes tell of the version of the endpoints that was
//! there when their change was read, and reach the books when everything before it is settled: so
//! earlier versions are kept until nothing of them can come any more.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::flow::event::RuleIndex;
use crate::flow::pump_report::EndpointsVersion;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;

/// Who was there in one version of the endpoints, and who took what.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServingEndpoints {
    pub endpoints: Vec<EndpointIndex>,
    /// Of each event rule: its table, and who takes all of its events. None where no notes come that would need them.
    pub rules: Vec<(Arc<TableName>, Vec<EndpointIndex>)>,
}

impl ServingEndpoints {
    /// A rule's table and takers.
    pub(crate) fn rule(&self, rule: RuleIndex) -> Option<&(Arc<TableName>, Vec<EndpointIndex>)> {
        self.rules.get(rule.0)
    }
}

/// Endpoints by their numbers, as long as something of them may be booked.
#[derive(Debug, Default)]
pub(crate) struct EndpointNames {
    /// By endpoint index; `None` for one that is retired.
    endpoints: Vec<Option<Arc<str>>>,
    /// In order.
    versions: VecDeque<(EndpointsVersion, Arc<ServingEndpoints>)>,
    /// Endpoints that are retired, but notes of versions before this one may name them.
    retired: Vec<(EndpointsVersion, EndpointIndex)>,
}

impl EndpointNames {
    pub(crate) fn endpoint(&self, index: EndpointIndex) -> Option<&Arc<str>> {
        self.endpoints.get(index.0)?.as_ref()
    }

    pub(crate) fn serving(
        &self,
        endpoints_version: EndpointsVersion,
    ) -> Option<&Arc<ServingEndpoints>> {
        let found = self.versions.iter().find(|(known, _)| *known == endpoints_version);
        found.map(|(_, serving)| serving)
    }

    pub(crate) fn enter(&mut self, index: EndpointIndex, name: Arc<str>) {
        if self.endpoints.len() <= index.0 {
            self.endpoints.resize(index.0 + 1, None);
        }
        if let Some(place) = self.endpoints.get_mut(index.0) {
            *place = Some(name);
        }
    }

    /// Nothing more comes of the endpoint but notes of versions that have ended.
    pub(crate) fn retire(&mut self, index: EndpointIndex) {
        match (self.versions.front(), self.versions.back()) {
            (Some((first, _)), Some((last, _))) if first < last => {
                self.retired.push((*last, index));
            }
            _ => self.forget(index),
        }
    }

    fn forget(&mut self, index: EndpointIndex) {
        if let Some(place) = self.endpoints.get_mut(index.0) {
            *place = None;
        }
    }

    /// Another version is about to begin.
    pub(crate) fn announce(
        &mut self,
        endpoints_version: EndpointsVersion,
        serving: ServingEndpoints,
    ) {
        self.versions.push_back((endpoints_version, Arc::new(serving)));
    }

    /// Nothing of the versions before this one comes any more.
    pub(crate) fn forget_before(&mut self, endpoints_version: EndpointsVersion) {
        self.versions.retain(|(known, _)| *known >= endpoints_version);
        let gone = self.retired.extract_if(.., |(until, _)| *until <= endpoints_version);
        for (_, index) in gone.collect::<Vec<_>>() {
            self.forget(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edition_is_known_until_a_later_one_has_passed() {
        let mut names = EndpointNames::default();
        names.announce(EndpointsVersion(1), ServingEndpoints::default());
        let endpoints = vec![EndpointIndex(3)];
        names.announce(
            EndpointsVersion(2),
            ServingEndpoints { endpoints, ..ServingEndpoints::default() },
        );
        assert!(names.serving(EndpointsVersion(1)).is_some());
        names.forget_before(EndpointsVersion(2));
        assert!(names.serving(EndpointsVersion(1)).is_none());
        assert_eq!(names.serving(EndpointsVersion(2)).unwrap().endpoints, [EndpointIndex(3)]);
    }

    #[test]
    fn a_retired_endpoint_has_its_name_while_notes_of_its_editions_may_come() {
        let mut names = EndpointNames::default();
        names.announce(EndpointsVersion(1), ServingEndpoints::default());
        names.enter(EndpointIndex(0), "crm".into());
        names.announce(EndpointsVersion(2), ServingEndpoints::default());
        names.retire(EndpointIndex(0));
        assert!(names.endpoint(EndpointIndex(0)).is_some());
        names.forget_before(EndpointsVersion(2));
        assert!(names.endpoint(EndpointIndex(0)).is_none());
    }

    #[test]
    fn an_index_has_its_name_until_it_is_retired() {
        let mut names = EndpointNames::default();
        names.enter(EndpointIndex(2), "crm".into());
        assert_eq!(names.endpoint(EndpointIndex(2)).map(|name| &**name), Some("crm"));
        assert_eq!(names.endpoint(EndpointIndex(1)), None);
        names.retire(EndpointIndex(2));
        assert_eq!(names.endpoint(EndpointIndex(2)), None);
    }
}
