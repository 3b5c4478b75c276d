//! What of a configuration that was read again can hold without a restart. Pure.
//!
//! ```text
//! running, read ─▶ [reload] ─▶ changes of endpoints and events ─▶ the administration, which has them made
//!                         └──▶ what waits for a restart
//! ```

use std::sync::Arc;

use crate::config::configuration::Settings;
use crate::config::sections::run_time_endpoints::RunTimeSettings;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;

/// What differs, and what is done about it.
#[derive(Debug)]
pub(crate) struct ReloadPlan {
    /// What is to run: what was read, as far as it needs no restart.
    pub settings: Settings,
    pub added: Vec<Endpoint>,
    /// Other settings under the same name.
    pub changed: Vec<Endpoint>,
    pub removed: Vec<Arc<str>>,
    /// Another name, and maybe other settings, with the name that it had.
    pub renamed: Vec<(Arc<str>, Endpoint)>,
    /// Whether filters, ages or payloads of events are others.
    pub has_other_events: bool,
    /// Tables and keys of the file that need a restart.
    pub waiting: Vec<&'static str>,
}

/// Compares what runs with what was read.
pub(crate) fn compare(running: &Settings, read: Settings) -> ReloadPlan {
    let find = |endpoints: &[Endpoint], name: &str| {
        endpoints.iter().find(|endpoint| &*endpoint.name == name).cloned()
    };
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for endpoint in &read.endpoints {
        match find(&running.endpoints, &endpoint.name) {
            None => added.push(endpoint.clone()),
            Some(before) if before != *endpoint => changed.push(endpoint.clone()),
            Some(_) => {}
        }
    }
    let gone = |endpoint: &&Endpoint| find(&read.endpoints, &endpoint.name).is_none();
    let names = running.endpoints.iter().filter(gone).map(|endpoint| Arc::clone(&endpoint.name));
    let mut removed: Vec<Arc<str>> = names.collect();
    let mut renamed = Vec::new();
    added.retain(|endpoint: &Endpoint| {
        let had = endpoint.renamed_from.as_ref();
        let Some(place) = removed.iter().position(|name| Some(name) == had) else { return true };
        renamed.push((removed.remove(place), endpoint.clone()));
        false
    });
    let waiting = waiting(running, &read);
    let has_other_events =
        read.events != running.events && are_alike(&running.events, &read.events);
    let settings = Settings {
        events: if has_other_events { read.events } else { running.events.clone() },
        endpoints: read.endpoints,
        run_time: RunTimeSettings { keys: running.run_time.keys.clone(), ..read.run_time },
        ..running.clone()
    };
    ReloadPlan { settings, added, changed, removed, renamed, has_other_events, waiting }
}

/// What the file says otherwise of things that are made once.
fn waiting(running: &Settings, read: &Settings) -> Vec<&'static str> {
    let differs = [
        ("[postgres]", running.postgres != read.postgres),
        ("[state]", running.state != read.state || running.run_time.keys != read.run_time.keys),
        ("[backfill]", running.backfill_standby != read.backfill_standby),
        ("[push_log]", running.push_log != read.push_log),
        ("[dead_letters]", running.dead_letters != read.dead_letters),
        ("[http]", running.http != read.http),
        ("[webhook] enabled", running.enabled != read.enabled),
        ("[[event]]", !are_alike(&running.events, &read.events)),
        ("[endpoints_from]", running.endpoints_from != read.endpoints_from),
        ("[memory]", running.memory != read.memory),
        ("[metrics]", running.metrics != read.metrics),
        ("[log]", running.log != read.log),
        ("[telemetry]", running.telemetry != read.telemetry),
        ("[messages]", running.messages != read.messages),
        ("[inbound]", running.inbound != read.inbound),
        ("[relay]", running.relay != read.relay),
        ("[shutdown]", running.grace != read.grace),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// What was read says otherwise than what runs, each by its name: for those of whom none may change alone.
pub(crate) fn differences(running: &Settings, read: &Settings) -> Vec<String> {
    let ReloadPlan { added, changed, removed, renamed, has_other_events, waiting, .. } =
        compare(running, read.clone());
    let endpoint = |name: &str, what: &str| format!("endpoint {name} is {what}");
    let mut found: Vec<String> = added.iter().map(|one| endpoint(&one.name, "added")).collect();
    found.extend(changed.iter().map(|one| endpoint(&one.name, "changed")));
    found.extend(removed.iter().map(|name| endpoint(name, "removed")));
    let renamed =
        renamed.iter().map(|(from, to)| endpoint(from, &format!("renamed to {}", to.name)));
    found.extend(renamed);
    if has_other_events {
        found.push("filters, payloads or ages of [[event]] are changed".to_owned());
    }
    let keys = running.run_time.keys.clone();
    if (RunTimeSettings { keys, ..read.run_time.clone() }) != running.run_time {
        let what = "what [webhook], [endpoints] or [webhook_api] give endpoints is changed";
        found.push(what.to_owned());
    }
    found.extend(waiting.iter().map(|key| format!("{key} is changed")));
    found
}

/// Whether events differ in filter, age and payload at most. Keys order what is in memory already;
/// types and tables stand in books, metrics and publication.
fn are_alike(running: &[EventRule], read: &[EventRule]) -> bool {
    let is_alike = |(running, read): (&EventRule, &EventRule)| {
        let EventRule { event_type, table, on, order_by, write_back, dedupe, .. } = running;
        (event_type, table, on) == (&read.event_type, &read.table, &read.on)
            && (order_by, write_back, dedupe) == (&read.order_by, &read.write_back, &read.dedupe)
    };
    running.len() == read.len() && running.iter().zip(read).all(is_alike)
}

/// Why an endpoint cannot be served while these are the events, if so. A file is checked against its
/// own events, which may have to wait.
pub(crate) fn clash(endpoint: &Endpoint, rules: &[EventRule]) -> Option<String> {
    let taken = rules.iter().filter(|rule| endpoint.takes(rule));
    let mut shapes = taken.map(|rule| (rule, endpoint.payload.as_ref().unwrap_or(&rule.payload)));
    let (rule, what) = shapes.find_map(|(rule, shape)| Some((rule, shape.unbatchable()?)))?;
    (endpoint.batch.size.get() > 1).then(|| {
        format!(
            "endpoint {}: `batch` cannot hold {}, whose body is {what} and does not fit into a \
             JSON array: restart walhook, or send one event per request",
            endpoint.name, rule.event_type
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const BEFORE: &str = r#"
        postgres.url = "postgres://u@h/d"
        [[event]]
        type = "order"
        table = "public.orders"
        [[event]]
        type = "alert"
        table = "public.alerts"
        [[endpoint]]
        name = "crm"
        url = "https://h/"
        events = ["order"]
        secret = { env = "SECRET" }
        [[endpoint]]
        name = "erp"
        url = "https://h/"
        tls = { ca = { env = "CA" } }
    "#;

    /// Two authorities of nobody.
    fn authority(number: usize) -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let name = format!("ca-{number}.example");
        rcgen::CertificateParams::new(vec![name])
            .expect("a name")
            .self_signed(&key)
            .expect("a certificate")
            .pem()
    }

    struct ReloadBench {
        authorities: [String; 2],
    }

    impl ReloadBench {
        fn new() -> Self {
            Self { authorities: [authority(1), authority(2)] }
        }

        /// `changes` are made to the text, or to the environment where it begins with `$`.
        fn read(&self, changes: &[(&str, &str)]) -> Settings {
            let mut text = BEFORE.to_owned();
            for (from, to) in changes.iter().filter(|(from, _)| !from.starts_with('$')) {
                assert!(text.contains(from), "{from}");
                text = text.replace(from, to);
            }
            let env = |name: &str| match name {
                "CA" if changes.iter().any(|(from, _)| *from == "$CA") => {
                    Some(self.authorities[1].clone())
                }
                "CA" => Some(self.authorities[0].clone()),
                "SECRET" if changes.iter().any(|(from, _)| *from == "$SECRET") => {
                    Some("another secret 2".to_owned())
                }
                "SECRET" => Some("one secret of 16".to_owned()),
                _ => None,
            };
            config::parse(&text, "walhook.toml", &env)
                .unwrap_or_else(|problems| panic!("{problems}"))
        }

        fn compared(&self, changes: &[(&str, &str)]) -> ReloadPlan {
            compare(&self.read(&[]), self.read(changes))
        }
    }

    type Changes<'a> = &'a [(&'a str, &'a str)];

    fn names(endpoints: &[Endpoint]) -> Vec<&str> {
        endpoints.iter().map(|endpoint| &*endpoint.name).collect()
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let reload = ReloadBench::new().compared(&[]);
        assert_eq!((names(&reload.added), names(&reload.changed)), (vec![], vec![]));
        assert!(reload.removed.is_empty() && !reload.has_other_events);
        assert_eq!(reload.waiting, Vec::<&str>::new());
    }

    #[test]
    fn endpoints_are_added_changed_and_removed_by_name() {
        let bench = ReloadBench::new();
        let reload = bench.compared(&[("name = \"erp\"", "name = \"wms\"")]);
        assert_eq!((names(&reload.added), names(&reload.changed)), (vec!["wms"], vec![]));
        assert_eq!(reload.removed, ["erp".into()]);
        let cases: [(Changes<'_>, &[&str]); 6] = [
            (&[("events = [\"order\"]", "events = [\"alert\"]")], &["crm"]),
            (&[("events = [\"order\"]", "when = \"id > 7\"")], &["crm"]),
            (&[("name = \"crm\"", "name = \"crm\"\nrate_limit = 7")], &["crm"]),
            (&[("$SECRET", "")], &["crm"]),
            (&[("$CA", "")], &["erp"]),
            (
                &[(
                    "[[endpoint]]\n        name = \"crm\"",
                    "[webhook]\ntimeout = \"1s\"\n[[endpoint]]\nname = \"crm\"",
                )],
                &["crm", "erp"],
            ),
        ];
        for (changes, expected) in cases {
            let reload = bench.compared(changes);
            assert_eq!(names(&reload.changed), expected, "case: {changes:?}");
            assert!(
                reload.added.is_empty() && reload.removed.is_empty() && reload.waiting.is_empty()
            );
            assert_eq!(reload.settings.endpoints, bench.read(changes).endpoints);
        }
    }

    #[test]
    fn filters_ages_and_payloads_of_events_hold_at_once_and_what_they_are_waits() {
        let bench = ReloadBench::new();
        let table = "table = \"public.orders\"";
        for more in ["when = \"id > 7\"", "expiry = \"1h\"", "payload = \"debezium\""] {
            let reload = bench.compared(&[(table, &format!("{table}\n{more}"))]);
            assert!(reload.has_other_events && reload.waiting.is_empty(), "case: {more}");
        }
        for more in ["order_by = [\"a\"]", "on = [\"insert\"]"] {
            let reload = bench.compared(&[(table, &format!("{table}\n{more}\nwhen = \"id > 7\""))]);
            assert_eq!(reload.waiting, ["[[event]]"], "case: {more}");
            assert!(!reload.has_other_events && reload.settings.events == bench.read(&[]).events);
        }
        assert_eq!(bench.compared(&[(table, "table = \"public.other\"")]).waiting, ["[[event]]"]);
    }

    #[test]
    fn what_is_made_once_waits_for_a_restart_and_is_named_each_time() {
        let bench = ReloadBench::new();
        let tables = [
            ("[postgres]", "postgres.slot = \"other\""),
            ("[state]", "state.url = \"postgres://u@h/other\""),
            ("[state]", "state.key = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\""),
            ("[push_log]", "push_log.bodies = \"all\""),
            ("[dead_letters]", "dead_letters.resend_rate = 7"),
            ("[http]", "http.listen = \"127.0.0.1:1\""),
            ("[webhook] enabled", "webhook.enabled = false"),
            ("[memory]", "memory.queued = \"1MiB\""),
            ("[metrics]", "metrics.endpoints = 7"),
            ("[log]", "log.filter = \"debug\""),
            ("[telemetry]", "telemetry.endpoint = \"http://127.0.0.1:4318\"\ntelemetry.sample = 1"),
            ("[messages]", "messages.table = \"public.sent\""),
            ("[relay]", "relay.url = \"nats://h\""),
            (
                "[inbound]",
                "inbound.listen = \"127.0.0.1:1\"\n\
                 inbound.source = [{ name = \"a\", kind = \"standard-webhooks\", path = \"/a\", \
                 table = \"public.callbacks\", \
                 secret = \"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\" }]",
            ),
            ("[shutdown]", "shutdown.grace = \"1s\""),
        ];
        let url = "postgres.url = \"postgres://u@h/d\"";
        for (expected, line) in tables {
            let changes: &[(&str, &str)] = &[(url, &format!("{url}\n{line}"))];
            let reload = bench.compared(changes);
            assert_eq!(reload.waiting, [expected], "case: {line}");
            let again = compare(&reload.settings, bench.read(changes));
            assert_eq!(again.waiting, [expected], "case: {line}, again");
            assert!(again.changed.is_empty());
        }
    }

    #[test]
    fn each_difference_is_named() {
        let bench = ReloadBench::new();
        let cases: [(Changes<'_>, &[&str]); 6] = [
            (&[], &[]),
            (
                &[("name = \"erp\"", "name = \"wms\"")],
                &["endpoint wms is added", "endpoint erp is removed"],
            ),
            (
                &[("name = \"erp\"", "name = \"wms\"\nrenamed_from = \"erp\"")],
                &["endpoint erp is renamed to wms"],
            ),
            (&[("$SECRET", "")], &["endpoint crm is changed"]),
            (
                &[("table = \"public.orders\"", "table = \"public.orders\"\nexpiry = \"1h\"")],
                &["filters, payloads or ages of [[event]] are changed"],
            ),
            (
                &[(
                    "[[event]]\n        type = \"order\"",
                    "http.token = \"0123456789abcdef\"\nwebhook.timeout = \"7s\"\n[[event]]\ntype = \"order\"",
                )],
                &[
                    "endpoint crm is changed",
                    "endpoint erp is changed",
                    "what [webhook], [endpoints] or [webhook_api] give endpoints is changed",
                    "[http] is changed",
                ],
            ),
        ];
        for (changes, expected) in cases {
            let found = differences(&bench.read(&[]), &bench.read(changes));
            assert_eq!(found, expected, "case: {changes:?}");
        }
    }

    #[test]
    fn a_batch_that_needs_events_that_wait_is_refused() {
        let bench = ReloadBench::new();
        let text =
            ("table = \"public.alerts\"", "table = \"public.alerts\"\npayload = \"a {{ id }}\"");
        let running = bench.read(&[text]);
        let read = bench.read(&[
            ("table = \"public.orders\"", "table = \"public.others\""),
            ("name = \"erp\"", "name = \"erp\"\nbatch = { size = 9 }"),
        ]);
        let reload = compare(&running, read);
        let clashes: Vec<String> =
            reload.changed.iter().filter_map(|e| clash(e, &reload.settings.events)).collect();
        assert_eq!(clashes.len(), 1);
        assert!(clashes[0].starts_with("endpoint erp: `batch` cannot hold alert"), "{clashes:?}");
    }
}
