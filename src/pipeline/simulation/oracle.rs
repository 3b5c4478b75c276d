//! What every endpoint is owed, worked out from the WAL and the rules alone, and what must hold of it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::event::IdOrigin;
use crate::flow::lease::Lease;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::verdict::AttemptVerdict;
use crate::pipeline::simulation::delivery::ModelDelivery;
use crate::pipeline::simulation::delivery::raises;
use crate::pipeline::simulation::delivery::takes;
use crate::pipeline::simulation::model_state::ModelState;
use crate::pipeline::simulation::scenario::OrderPromise;
use crate::pipeline::simulation::scenario::Scenario;
use crate::pipeline::simulation::wal::ModelWal;

/// The database system that the WAL is of.
pub(super) const SYSTEM: u64 = 7;

/// So long what was answered may wait for its flush while the state is well: the gathering of two
/// flushes and what they take.
const FLUSHED_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct DeliveryOracle {
    scenario: Arc<Scenario>,
    pub(super) deliveries: Vec<ModelDelivery>,
    places: HashMap<(usize, Position, usize), usize>,
    by_id: HashMap<(usize, EventId), usize>,
    origins: Vec<IdOrigin>,
    /// By endpoint: what is not known to be taken and may not have been given up, in order.
    unsettled: Vec<BTreeMap<(Position, usize), usize>>,
    /// Not final yet.
    open: BTreeSet<usize>,
    /// By endpoint: in flight in this run.
    in_flight: Vec<BTreeSet<usize>>,
    /// By endpoint, what was sent in this run.
    sent: Vec<BTreeSet<usize>>,
    /// By endpoint, the run that may send.
    senders: Vec<usize>,
    /// Everything before it was looked at when it was confirmed.
    confirmed: Lsn,
    /// Endpoints that are no more.
    removed: BTreeSet<usize>,
}

impl DeliveryOracle {
    pub(super) fn new(scenario: &Arc<Scenario>, wal: &ModelWal) -> Self {
        let mut deliveries = Vec::new();
        for (number, endpoint) in scenario.endpoints.iter().enumerate() {
            for (entry, transaction) in wal.entries.iter().enumerate() {
                for change in &transaction.changes {
                    for (rule, settings) in scenario.rules.iter().enumerate() {
                        if !raises(settings, change) || !takes(endpoint.taste, settings, change) {
                            continue;
                        }
                        let label = format!("#{entry}.{}/{rule}@{number}", change.position.ordinal);
                        deliveries.push(ModelDelivery {
                            endpoint: number,
                            position: change.position,
                            rule,
                            label,
                            table: change.table,
                            keys: change.keys(scenario.orders_by_group),
                            version: change.version,
                            expires: settings.expiry.map(|expiry| change.at + expiry),
                            accepted: 0,
                            answered: None,
                            is_excused: false,
                            is_required: endpoint.added.is_none(),
                            is_final: false,
                        });
                    }
                }
            }
        }
        let origins: Vec<IdOrigin> =
            scenario.rules.iter().map(|rule| IdOrigin::new(SYSTEM, rule.event_type)).collect();
        let mut unsettled = vec![BTreeMap::new(); scenario.endpoints.len()];
        let (mut places, mut by_id) = (HashMap::new(), HashMap::new());
        for (at, one) in deliveries.iter().enumerate() {
            places.insert((one.endpoint, one.position, one.rule), at);
            by_id.insert((one.endpoint, EventId::new(one.position, origins[one.rule])), at);
            if one.is_required {
                unsettled[one.endpoint].insert(one.order(), at);
            }
        }
        let nobody = vec![BTreeSet::new(); scenario.endpoints.len()];
        Self {
            open: (0..deliveries.len()).collect(),
            scenario: Arc::clone(scenario),
            deliveries,
            places,
            by_id,
            origins,
            unsettled,
            senders: vec![0; nobody.len()],
            in_flight: nobody.clone(),
            sent: nobody,
            confirmed: Lsn::ZERO,
            removed: BTreeSet::new(),
        }
    }

    /// The delivery of an event, which has to be as the WAL has it.
    pub(super) fn find(&self, endpoint: usize, event: &Event) -> Result<usize, String> {
        let rules = &self.scenario.rules;
        let rule = rules.iter().position(|rule| *rule.event_type == *event.event_type);
        let place = rule.and_then(|rule| self.places.get(&(endpoint, event.position, rule)));
        let Some(&at) = place else {
            return Err(format!("forged: {} at {:?} for e{endpoint}", event.id, event.position));
        };
        let one = &self.deliveries[at];
        if self.by_id.get(&(endpoint, event.id)) != Some(&at) {
            return Err(format!("{} has another id: {}", one.label, event.id));
        }
        Ok(at)
    }

    pub(super) fn id(&self, one: &ModelDelivery) -> EventId {
        EventId::new(one.position, self.origins[one.rule])
    }

    /// A request is about to go out.
    pub(super) fn begin(
        &mut self,
        endpoint: usize,
        lease: &Lease,
        (run, now): (usize, Duration),
    ) -> Result<Vec<usize>, String> {
        let mut members = Vec::new();
        let sender = self.senders[endpoint];
        if sender != run {
            return Err(format!("run {run} sends to e{endpoint}, which run {sender} has"));
        }
        for event in &lease.events {
            let at = self.find(endpoint, event)?;
            let body = event.body.complete(event.committed);
            let version = format!("\"v\":{}", self.deliveries[at].version);
            let is_whole = String::from_utf8_lossy(&body).contains(&version);
            if !is_whole && self.deliveries[at].version > 0 && event.facts.find("id").is_some() {
                return Err(format!("{} has another row", self.deliveries[at].label));
            }
            self.is_alone(at)?;
            if !lease.replay {
                self.may_begin(at, &members, run, now)?;
            }
            members.push(at);
        }
        self.in_flight[endpoint].extend(&members);
        if !lease.replay {
            self.sent[endpoint].extend(&members);
        }
        Ok(members)
    }

    /// Nothing with one of its keys is in flight.
    fn is_alone(&self, at: usize) -> Result<(), String> {
        let one = &self.deliveries[at];
        let promise = self.terms(one.endpoint).promise;
        let mut flying = self.in_flight[one.endpoint].iter();
        let meets = |other: &usize| one.concerns(&self.deliveries[*other], promise);
        match flying.find(|other| meets(other) || **other == at) {
            Some(&other) => {
                let other = &self.deliveries[other].label;
                Err(format!("{} is sent while {other} is in flight", one.label))
            }
            None => Ok(()),
        }
    }

    fn may_begin(
        &mut self,
        at: usize,
        together: &[usize],
        run: usize,
        now: Duration,
    ) -> Result<(), String> {
        let one = &self.deliveries[at];
        let (endpoint, label) = (one.endpoint, &one.label);
        if one.is_final {
            return Err(format!("{label} is sent again after it was settled for good"));
        }
        if one.answered.is_some_and(|(by, _)| by == run) {
            return Err(format!("{label} is sent twice by one run"));
        }
        let ModelEndpointTerms { promise, may_drop } = self.terms(endpoint);
        let meets = |other: &usize| one.concerns(&self.deliveries[*other], promise);
        let newer =
            |other: &&usize| self.deliveries[**other].position > one.position && meets(other);
        let is_again = self.sent[endpoint].contains(&at);
        let mut gathered = self.sent[endpoint].iter().chain(together).filter(newer);
        if let Some(&other) = gathered.next().filter(|_| !is_again) {
            let other = &self.deliveries[other].label;
            return Err(format!("{label} is sent after {other}, which is newer"));
        }
        let excused =
            |other: usize| self.deliveries[other].may_be_old(now) || together.contains(&other);
        let before = self.unsettled[endpoint].range(..(one.position, 0)).map(|(_, &other)| other);
        let mut before = before.filter(|other| meets(other) && !excused(*other));
        match before.next() {
            Some(other) if !may_drop => {
                let ModelDelivery { label: other, expires, .. } = &self.deliveries[other];
                Err(format!(
                    "{label} is sent before {other}, which is older, is settled (expires: {expires:?}, it is {now:?})"
                ))
            }
            _ => Ok(()),
        }
    }

    fn terms(&self, endpoint: usize) -> ModelEndpointTerms {
        let endpoint = &self.scenario.endpoints[endpoint];
        ModelEndpointTerms { promise: endpoint.order, may_drop: endpoint.may_drop }
    }

    /// The receiver has taken it.
    pub(super) fn accept(&mut self, members: &[usize]) {
        members.iter().for_each(|&at| self.deliveries[at].accepted += 1);
    }

    /// The answer is known.
    pub(super) fn end(
        &mut self,
        members: &[usize],
        verdict: &AttemptVerdict,
        lease: &Lease,
        (run, now): (usize, Duration),
    ) {
        for &at in members {
            let one = &mut self.deliveries[at];
            self.in_flight[one.endpoint].remove(&at);
            if lease.replay {
                continue;
            }
            match verdict {
                AttemptVerdict::Delivered => one.answered = Some((run, now)),
                AttemptVerdict::Dead | AttemptVerdict::Gone => one.is_excused = true,
                AttemptVerdict::Retry { .. } => {
                    one.is_excused |=
                        lease.attempt >= self.scenario.endpoints[one.endpoint].attempts_max;
                }
            }
            if one.is_excused || *verdict == AttemptVerdict::Delivered {
                let (endpoint, order) = (one.endpoint, one.order());
                self.unsettled[endpoint].remove(&order);
            }
        }
    }

    /// From here on the endpoint gets what comes after this position.
    pub(super) fn added(&mut self, endpoint: usize, after: Option<Position>) {
        for (at, one) in self.deliveries.iter_mut().enumerate() {
            if one.endpoint == endpoint && after.is_none_or(|after| one.position > after) {
                one.is_required = true;
                if one.accepted == 0 && !one.is_excused {
                    self.unsettled[endpoint].insert(one.order(), at);
                }
            }
        }
    }

    /// It gets nothing more, and what waits is given up.
    pub(super) fn removed(&mut self, endpoint: usize) {
        self.removed.insert(endpoint);
        self.unsettled[endpoint].clear();
        for one in self.deliveries.iter_mut().filter(|one| one.endpoint == endpoint) {
            (one.is_excused, one.is_required) = (true, false);
        }
    }

    /// A run has ended: what it had in memory is gone.
    pub(super) fn run_ended(
        &mut self,
        (run, endpoints): (usize, &[usize]),
        now: Duration,
        well_since: Duration,
        is_clean: bool,
    ) -> Result<(), String> {
        self.forget_sent(endpoints);
        for &at in &self.open {
            let one = &self.deliveries[at];
            let Some((by, since)) = one.answered.filter(|_| !self.removed.contains(&one.endpoint))
            else {
                continue;
            };
            let is_late = since.max(well_since) + FLUSHED_WITHIN < now;
            if by == run && (is_late || is_clean) {
                let how = if is_clean { "a clean end" } else { "two flushes" };
                return Err(format!(
                    "{} was answered before {how}, and will be repeated",
                    one.label
                ));
            }
        }
        Ok(())
    }

    /// Another run sends to these endpoints from here on: whatever was taken may come again, and need not come
    /// before what is newer.
    fn forget_sent(&mut self, endpoints: &[usize]) {
        for &endpoint in endpoints {
            self.in_flight[endpoint].clear();
            self.sent[endpoint].clear();
            self.unsettled[endpoint].retain(|_, at| self.deliveries[*at].accepted == 0);
        }
    }

    /// Whether this run may send to the endpoint.
    pub(super) fn is_sender(&self, endpoint: usize, run: usize) -> bool {
        self.senders[endpoint] == run
    }

    /// From here on this run alone may send to these endpoints.
    pub(super) fn given_to(&mut self, run: usize, endpoints: &[usize]) {
        self.forget_sent(endpoints);
        for &endpoint in endpoints {
            self.senders[endpoint] = run;
        }
    }

    /// A flush was committed: whatever the state does not owe any more has to be where it belongs.
    pub(super) fn committed(&mut self, state: &ModelState, now: Duration) -> Result<(), String> {
        let mut closed = Vec::new();
        for &at in &self.open {
            let one = &self.deliveries[at];
            let name = &self.scenario.endpoints[one.endpoint].name;
            if !state.is_done(name, self.id(one), one.position) {
                continue;
            }
            closed.push(at);
            self.is_accounted(one, state, now)
                .map_err(|what| format!("{} counts as settled: {what}", one.label))?;
        }
        for at in closed {
            self.deliveries[at].is_final = true;
            self.open.remove(&at);
        }
        Ok(())
    }

    /// What is owed no more was taken, or is a dead letter, or was too old.
    fn is_accounted(
        &self,
        one: &ModelDelivery,
        state: &ModelState,
        now: Duration,
    ) -> Result<(), String> {
        let name = &self.scenario.endpoints[one.endpoint].name;
        let is_old = one.may_be_old(now);
        match one.accepted > 0 || is_old || !one.is_required || state.has_died(name, self.id(one)) {
            true => Ok(()),
            false => Err(String::from("nobody has taken it, and it waits nowhere")),
        }
    }

    /// The server was told that it may remove the WAL before this.
    pub(super) fn confirmed(
        &mut self,
        confirmed: Lsn,
        state: &ModelState,
        now: Duration,
    ) -> Result<(), String> {
        let looked = self.confirmed;
        if confirmed <= looked {
            return Ok(());
        }
        self.confirmed = confirmed;
        for &at in &self.open {
            let one = &self.deliveries[at];
            let name = &self.scenario.endpoints[one.endpoint].name;
            let is_told = one.position.commit >= looked && one.position.commit < confirmed;
            if is_told && !state.waits(name, self.id(one)) {
                self.is_accounted(one, state, now)
                    .map_err(|what| format!("{} was confirmed: {what}", one.label))?;
            }
        }
        Ok(())
    }

    pub(super) fn labels(&self, members: &[usize]) -> String {
        let labels: Vec<&str> =
            members.iter().map(|&at| self.deliveries[at].label.as_str()).collect();
        labels.join(" ")
    }

    /// What is still owed, if anything.
    pub(super) fn first_open(&self) -> Option<&ModelDelivery> {
        let mut open = self.open.iter().map(|&at| &self.deliveries[at]);
        open.find(|one| one.is_required)
    }
}

struct ModelEndpointTerms {
    promise: OrderPromise,
    may_drop: bool,
}
