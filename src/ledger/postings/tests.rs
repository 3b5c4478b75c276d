//! `ledger::postings`, by cases and properties.

use proptest::prelude::*;

use super::*;
use crate::flow::event::RuleIndex;

const ENDPOINTS: usize = 4;

/// What happens to the stream, each step for all that take part in it.
#[derive(Clone, Debug)]
enum Step {
    /// Other endpoints are there, by bit, and of those some take all events.
    Version {
        present: u8,
        everybody: u8,
    },
    Filtered,
    /// Chosen by those, by bit, of the endpoints that are there and do not take all.
    Raised {
        chosen: u8,
    },
    Expired {
        chosen: u8,
    },
    /// Everything so far is booked.
    Book,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bits = || 0..(1_u8 << ENDPOINTS);
    let step = prop_oneof![
        1 => (bits(), bits()).prop_map(|(present, everybody)| Step::Version { present, everybody }),
        2 => Just(Step::Filtered),
        4 => bits().prop_map(|chosen| Step::Raised { chosen }),
        2 => bits().prop_map(|chosen| Step::Expired { chosen }),
        2 => Just(Step::Book),
    ];
    prop::collection::vec(step, 0..60)
}

fn of_bits(bits: u8) -> Vec<EndpointIndex> {
    (0..ENDPOINTS).filter(|index| bits & (1 << index) != 0).map(EndpointIndex).collect()
}

fn table() -> Arc<TableName> {
    Arc::new(TableName::new("public", "t"))
}

/// The books that are kept by going through all endpoints for each note.
#[derive(Default)]
struct Model([BookCount; ENDPOINTS]);

impl Model {
    fn count(&mut self, endpoint: EndpointIndex, count: BookCount) {
        self.0[endpoint.0] += count;
    }
}

#[derive(Default)]
struct Booked {
    common: CommonBooks<EndpointIndex>,
    own: [BookCount; ENDPOINTS],
    postings: usize,
}

impl Booked {
    fn take(&mut self, posting: BookPosting<EndpointIndex>) {
        self.postings += 1;
        if let BookPosting::One(endpoint, _, count) = posting {
            self.own[endpoint.0] += count;
        }
    }

    fn book(&mut self, versions: &BTreeMap<EndpointsVersion, ServingEndpoints>, tally: EventTally) {
        for (endpoints_version, notes) in by_version(tally) {
            let mut common = std::mem::take(&mut self.common);
            let serving = &versions[&endpoints_version];
            if notes.keys().any(|note| note.opened_as == OpenedAs::Begun) {
                let present = serving.endpoints.iter().copied().collect();
                common.begin(present, |posting| self.take(posting));
            }
            common.post(serving, notes.into_iter(), Some, |posting| self.take(posting));
            self.common = common;
        }
    }

    fn of(&self, endpoint: EndpointIndex) -> BookCount {
        let mut count = self.own[endpoint.0];
        if self.common.members.contains(&endpoint) {
            self.common.counts.values().for_each(|common| count += *common);
        }
        count
    }
}

proptest! {
    #[test]
    fn each_endpoint_counts_what_going_through_all_of_them_would(
        steps in steps(),
        few in 0..=ENDPOINTS,
    ) {
        let (mut model, mut booked) = (Model::default(), Booked::default());
        booked.common.few = few;
        let mut versions = BTreeMap::from([(EndpointsVersion(0), ServingEndpoints::default())]);
        let (mut endpoints_version, mut tally) = (EndpointsVersion(0), EventTally::new());
        let filtered = BookCount { captured: 1, filtered: 1, ..BookCount::default() };
        let expired = BookCount { captured: 1, expired: 1, ..BookCount::default() };
        for step in steps {
            let mut note = |opened_as| {
                let note = FilteredNote { endpoints_version, rule: RuleIndex(0), opened_as };
                *tally.entry(note).or_default() += 1;
            };
            let ServingEndpoints { endpoints, rules } = versions[&endpoints_version].clone();
            let everybody = rules.into_iter().next().map(|(_, all)| all).unwrap_or_default();
            let choosing = |chosen: u8| {
                let all = of_bits(chosen).into_iter();
                let is_there = |e: &EndpointIndex| endpoints.contains(e) && !everybody.contains(e);
                all.filter(is_there).collect::<Vec<_>>()
            };
            match step {
                Step::Version { present, everybody } => {
                    let rules = vec![(table(), of_bits(present & everybody))];
                    endpoints_version = EndpointsVersion(endpoints_version.0 + 1);
                    versions.insert(endpoints_version, ServingEndpoints { endpoints: of_bits(present), rules });
                    let note = FilteredNote { endpoints_version, rule: RuleIndex(0), opened_as: OpenedAs::Begun };
                    tally.insert(note, 1);
                }
                Step::Filtered => {
                    note(OpenedAs::Filtered);
                    endpoints.iter().for_each(|&endpoint| model.count(endpoint, filtered));
                }
                Step::Raised { chosen } => {
                    note(OpenedAs::Raised);
                    let chosen = choosing(chosen);
                    chosen.iter().for_each(|&taker| note(OpenedAs::Chosen(taker)));
                    let takes = |e: &EndpointIndex| everybody.contains(e) || chosen.contains(e);
                    let others = endpoints.iter().filter(|endpoint| !takes(endpoint));
                    others.for_each(|&endpoint| model.count(endpoint, filtered));
                }
                Step::Expired { chosen } => {
                    note(OpenedAs::Expired);
                    let chosen = choosing(chosen);
                    chosen.iter().for_each(|&taker| note(OpenedAs::TooLate(taker)));
                    for &endpoint in &endpoints {
                        let takes = everybody.contains(&endpoint) || chosen.contains(&endpoint);
                        model.count(endpoint, if takes { expired } else { filtered });
                    }
                }
                Step::Book => booked.book(&versions, std::mem::take(&mut tally)),
            }
        }
        booked.book(&versions, tally);
        for endpoint in (0..ENDPOINTS).map(EndpointIndex) {
            prop_assert_eq!(booked.of(endpoint), model.0[endpoint.0], "{:?}", endpoint);
        }
    }
}

#[test]
fn what_an_event_costs_does_not_grow_with_the_endpoints_that_do_not_take_it() {
    let postings = |endpoints: usize| {
        let endpoints: Vec<_> = (0..endpoints).map(EndpointIndex).collect();
        let rules = vec![(table(), Vec::new())];
        let serving = ServingEndpoints { endpoints, rules };
        let mut common = CommonBooks::default();
        common.begin(serving.endpoints.iter().copied().collect(), |_| {});
        let note = |opened_as| FilteredNote {
            endpoints_version: EndpointsVersion(0),
            rule: RuleIndex(0),
            opened_as,
        };
        let notes = [(note(OpenedAs::Raised), 1), (note(OpenedAs::Chosen(EndpointIndex(1))), 1)];
        let mut postings = 0;
        common.post(&serving, notes.into_iter(), Some, |_| postings += 1);
        postings
    };
    assert_eq!((postings(20), postings(2000)), (2, 2));
}
