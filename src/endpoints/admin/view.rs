//! How endpoints are shown, and the calls of `wechat-messages`, which show them in another way.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde_json::Value as Json;
use serde_json::json;
use tokio::time::Instant;
use url::Url;

use crate::api::answers::admin_answer::AdminAnswer;
use crate::api::answers::endpoint_answers::DocumentOrSummary;
use crate::api::answers::endpoint_answers::EndpointList;
use crate::api::answers::endpoint_answers::EndpointSummary;
use crate::api::answers::endpoint_answers::ShownEndpoint;
use crate::api::answers::endpoint_answers::TestReport;
use crate::api::answers::endpoint_answers::WaitingEvents;
use crate::api::answers::endpoint_answers::WebhookReport;
use crate::api::answers::endpoint_answers::WebhookReports;
use crate::api::requests::endpoint_calls::AdminOutcome;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::api::requests::endpoint_pages::EndpointPage;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::surface::EndpointView;
use crate::config::api_document;
use crate::config::sections::run_time_endpoints::WebhookApi;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::record::EndpointRecord;
use crate::endpoints::admin::record::NamedEventTypes;
use crate::endpoints::admin::refusals::PROBES_MAX;
use crate::endpoints::admin::refusals::room_for;
use crate::endpoints::admin::refusals::unknown;
use crate::endpoints::admin::webhook_api;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::snapshot::ListedEndpoint;

/// Within this each webhook has its answer, when all are tested: the API waits for 40 s.
const TESTS_MAX: Duration = Duration::from_secs(32);

impl EndpointAdmin {
    pub(super) fn list(&self, orders: &RegistryHandle, page: &EndpointPage) -> EndpointList {
        let snapshot = orders.snapshot();
        let meant =
            || snapshot.listed.iter().filter(|listed| page.shown.has(&listed.endpoint.name));
        let rest = meant().filter(|listed| page.after.is_none_or(|after| listed.index > after));
        let mut rest = rest.peekable();
        let listed: Vec<&ListedEndpoint> = rest.by_ref().take(page.shown.limit).collect();
        let last = listed.last().filter(|_| rest.peek().is_some());
        EndpointList {
            total: meant().count(),
            next_cursor: last.map(|last| EndpointPage::cursor(last.index)),
            endpoints: listed.into_iter().map(|listed| self.shown(listed)).collect(),
        }
    }

    pub(super) fn show(&self, orders: &RegistryHandle, name: &str) -> AdminOutcome {
        let snapshot = orders.snapshot();
        let shown = snapshot.find(name).map(|shown| self.shown(shown));
        let shown = shown.ok_or_else(|| unknown(name))?;
        Ok(AdminAnswer::Endpoint(Box::new(shown)))
    }

    fn shown(&self, shown: &ListedEndpoint) -> ShownEndpoint {
        // The registry of its partition knows more of it, where it is served here.
        let served = self.shared.as_ref().map(|shared| shared.partitions().served());
        let served = served.unwrap_or_default();
        let found = served.iter().find_map(|snapshot| snapshot.find(&shown.endpoint.name));
        let (known, shown) = (shown.view(), found.unwrap_or(shown));
        // What is written down is known here first.
        let view = match shown.view() {
            view if matches!(view.state, "gone" | "refused") => view,
            view => EndpointView { state: known.state, paused: known.paused, ..view },
        };
        let counts = shown.lane.counts();
        let record = self.records.get(&*view.name);
        let endpoint = match record {
            Some(record) => DocumentOrSummary::Document(record.masked()),
            None => DocumentOrSummary::Summary(summary(shown)),
        };
        let (paused_since, paused_by) = view.paused.unzip();
        let until = |record: &EndpointRecord| {
            record.previous.iter().map(|previous| IsoTime(previous.until)).collect()
        };
        ShownEndpoint {
            name: view.name.to_string(),
            source: view.source,
            state: view.state,
            url: view.url,
            endpoint,
            waiting: WaitingEvents {
                memory: shown.lane.in_memory(),
                backlog: shown.lane.in_backlog(),
            },
            in_flight: counts.in_flight,
            paused_since: paused_since.map(IsoTime),
            paused_by,
            created_at: record.map(|record| IsoTime(record.created.0)),
            created_by: record.map(|record| record.created.1.clone()),
            updated_at: record.map(|record| IsoTime(record.updated.0)),
            updated_by: record.map(|record| record.updated.1.clone()),
            previous_secrets_until: record.map(until),
        }
    }

    pub(super) fn test_body(&self, name: &str) -> Option<String> {
        self.records.get(name)?.message.as_ref()?;
        self.settings.run_time.webhook_api.as_ref()?.test.clone()
    }

    pub(super) async fn webhook_config(
        &mut self,
        orders: &RegistryHandle,
        document: &Json,
        who: &str,
    ) -> AdminOutcome {
        let record = webhook_api::record(document, self.webhook_api()?)?;
        let name = record.name();
        if let Some(known) = self.webhook_of_url(&record)? {
            if document.get("Name").is_some_and(|told| !told.is_null()) && name != known {
                let detail = format!(
                    "webhook {known} has this URL: leave Name out to change it, or give another URL"
                );
                return Err(AdminRefusal::new(409, detail));
            }
            return self.webhook_changed(orders, &known, document, who).await;
        }
        self.add(orders, record, who).await?;
        self.webhook_shown(orders, &name)
    }

    /// The webhook that has the URL of this one already.
    fn webhook_of_url(&self, wanted: &EndpointRecord) -> Result<Option<String>, AdminRefusal> {
        let url = |record: &EndpointRecord| {
            let text = record.document.get("url").and_then(Json::as_str).unwrap_or_default();
            Url::parse(text.trim()).map_err(|_| text.to_owned())
        };
        let wanted = url(wanted);
        let mut same = self.webhooks().filter(|(_, record)| url(record) == wanted);
        match (same.next(), same.next()) {
            (Some((one, _)), Some((other, _))) => {
                let detail = format!(
                    "several webhooks have this URL, {one} and {other} for two: change the one that is \
                     meant by its Name, with PUT /v1/webhook/Update"
                );
                Err(AdminRefusal::new(409, detail))
            }
            (first, _) => Ok(first.map(|(name, _)| name.clone())),
        }
    }

    fn webhooks(&self) -> impl Iterator<Item = (&String, &EndpointRecord)> {
        self.records.iter().filter(|(_, record)| record.message.is_some() && !record.is_leaving)
    }

    /// What is not said stays as it is.
    pub(super) async fn webhook_update(
        &mut self,
        orders: &RegistryHandle,
        document: &Json,
        who: &str,
    ) -> AdminOutcome {
        let told = |name: &str| document.get(name).and_then(Json::as_str);
        let name = match told("Name") {
            Some(name) => self.webhook_named(Some(name)),
            // A URL that is not known is the new one of the only webhook.
            None => self
                .webhook_named(told("URL"))
                .or_else(|refused| self.webhook_named(None).map_err(|_| refused)),
        }?;
        self.webhook_changed(orders, &name, document, who).await
    }

    async fn webhook_changed(
        &mut self,
        orders: &RegistryHandle,
        name: &str,
        document: &Json,
        who: &str,
    ) -> AdminOutcome {
        let before = self.own(orders, name)?.clone();
        let now = self.now();
        let shown = before.endpoint(&self.settings, now, NamedEventTypes::MayBeGone).ok();
        let shown = shown.and_then(|endpoint| webhook_api::shown(&before, &endpoint));
        let mut shown =
            shown.and_then(|shown| serde_json::to_value(shown).ok()).unwrap_or_default();
        if let Json::Object(members) = &mut shown {
            // What [webhook_api.endpoint] says goes on saying it, and may be what no webhook can.
            for (field, key) in [("Timeout", "timeout"), ("RetryCount", "retry")] {
                if before.document.get(key).is_none() {
                    members.remove(field);
                }
            }
        }
        let mut merged = webhook_api::merged(&shown, document);
        if let Json::Object(members) = &mut merged {
            members.insert("Name".to_owned(), json!(name));
        }
        let record = webhook_api::record(&merged, self.webhook_api()?)?;
        let EndpointRecord { mut document, message, .. } = record;
        before.unmask(&mut document);
        self.change(orders, EndpointRecord { document, message, ..before }, who).await?;
        tracing::info!(endpoint = name, who, "endpoint is changed");
        self.webhook_shown(orders, name)
    }

    pub(super) fn webhook_list(&self, orders: &RegistryHandle) -> AdminOutcome {
        self.webhook_api()?;
        let snapshot = orders.snapshot();
        let present = snapshot.listed.iter().filter(|shown| !shown.is_leaving);
        let shown = present.filter_map(|shown| {
            webhook_api::shown(self.records.get(&*shown.endpoint.name)?, &shown.endpoint)
        });
        Ok(AdminAnswer::Webhooks(shown.collect()))
    }

    /// The name of a webhook by its URL or its name; without either, of the only one.
    pub(super) fn webhook_named(&self, which: Option<&str>) -> Result<String, AdminRefusal> {
        self.webhook_api()?;
        let is_meant = |name: &str, record: &EndpointRecord| match which {
            Some(which) => {
                let url = record.document.get("url").and_then(Json::as_str);
                let is_of = |url: &str| which == url || which == api_document::masked_url(url);
                which == name || url.is_some_and(is_of)
            }
            None => true,
        };
        let mut meant = self.webhooks().filter(|(name, record)| is_meant(name, record));
        match (meant.next(), meant.next()) {
            (Some((name, _)), None) => Ok(name.clone()),
            (Some(_), Some(_)) => Err(AdminRefusal::new(
                422,
                "there are several webhooks: say which, by its URL or Name",
            )),
            (None, _) => {
                Err(AdminRefusal::new(404, "there is no such webhook: see /v1/webhook/List"))
            }
        }
    }

    /// Tests the webhook that is meant, or all; what comes back names each.
    pub(super) fn webhook_test(
        &self,
        orders: &RegistryHandle,
        which: Option<&str>,
        probes: usize,
    ) -> Result<BoxFuture<'static, AdminAnswer>, AdminRefusal> {
        self.webhook_api()?;
        room_for(probes)?;
        if let Some(which) = which {
            let test = self.webhook_probe(orders, &self.webhook_named(Some(which))?)?;
            return Ok(Box::pin(async move {
                AdminAnswer::WebhookReports(WebhookReports::One(test.await))
            }));
        }
        let names: Vec<&String> = self.webhooks().map(|(name, _)| name).collect();
        let tests: Vec<_> =
            names.iter().filter_map(|name| self.webhook_probe(orders, name).ok()).collect();
        Ok(Box::pin(async move {
            let tests = futures_util::stream::iter(tests).buffered(PROBES_MAX);
            AdminAnswer::WebhookReports(WebhookReports::All(tests.collect().await))
        }))
    }

    fn webhook_probe(
        &self,
        orders: &RegistryHandle,
        name: &str,
    ) -> Result<BoxFuture<'static, WebhookReport>, AdminRefusal> {
        let probe = self.probe(orders, name)?;
        let url = self.records.get(name).map(EndpointRecord::masked);
        let url = url.and_then(|shown| shown.get("url").and_then(Json::as_str).map(str::to_owned));
        let (name, deadline) = (name.to_owned(), Instant::now() + TESTS_MAX);
        Ok(Box::pin(async move {
            let late = |_late| {
                let detail = "the tests before it took too long: test it by itself, with ?Name=";
                TestReport::late(detail.to_owned(), 0)
            };
            let report = tokio::time::timeout_at(deadline, probe).await.unwrap_or_else(late);
            WebhookReport { report, name, url }
        }))
    }

    fn webhook_shown(&self, orders: &RegistryHandle, name: &str) -> AdminOutcome {
        let snapshot = orders.snapshot();
        let shown = snapshot.find(name).zip(self.records.get(name));
        let shown = shown.and_then(|(shown, record)| webhook_api::shown(record, &shown.endpoint));
        // It was made or changed a moment ago.
        shown.map(|shown| AdminAnswer::Webhook(Box::new(shown))).ok_or_else(|| unknown(name))
    }

    fn webhook_api(&self) -> Result<&WebhookApi, AdminRefusal> {
        let api = self.settings.run_time.webhook_api.as_ref();
        api.ok_or_else(|| {
            AdminRefusal::new(
                404,
                "these calls are not wanted here: put [webhook_api] into the file",
            )
        })
    }
}

/// What is told of an endpoint of the file, whose text is not ours to show.
fn summary(shown: &ListedEndpoint) -> EndpointSummary {
    let endpoint = &shown.endpoint;
    EndpointSummary {
        name: endpoint.name.to_string(),
        enabled: endpoint.enabled,
        events: endpoint.events.iter().map(|glob| glob.as_str().to_owned()).collect(),
        when: endpoint.filter.as_ref().map(|filter| filter.source().to_owned()),
        concurrency: endpoint.concurrency.get(),
        timeout_seconds: endpoint.timeout.as_secs_f64(),
    }
}

/// A JSON merge patch (RFC 7396): null takes a member away. As deep as serde_json's parser goes.
pub(super) fn merge(target: &mut Json, patch: &Json) {
    let Json::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Json::Object(members) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Json::Null), value);
        }
    }
}
