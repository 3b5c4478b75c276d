//! The Helm chart: helm itself lints and renders it, its manifests are what Kubernetes takes, and walhook
//! runs with what stands in them.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]
#![expect(clippy::print_stdout, reason = "a skipped test must not look like a passed one")]

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::broker::Broker;
use crate::support::postgres::Database;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::schema::differences;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::http_address;
use crate::support::service::slot;
use crate::support::yaml;

/// The kinds of the chart, as Kubernetes describes them.
const SCHEMAS: &str = include_str!("data/kubernetes.json");

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/walhook")
}

/// `.ci/tools helm` fetches one.
fn helm(test: &str, args: &[&str]) -> Option<(bool, String)> {
    let named = std::env::var_os("WALHOOK_HELM").filter(|path| !path.is_empty());
    let mut command = Command::new(named.unwrap_or_else(|| "helm".into()));
    // Nothing of whoever runs the tests, no cluster.
    let home = tempfile::tempdir().unwrap();
    command.env("HOME", home.path()).env("KUBECONFIG", "/dev/null").args(args);
    let Ok(output) = command.output() else {
        println!("SKIP {test}: needs helm");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Some((output.status.success(), said + &String::from_utf8_lossy(&output.stderr)))
}

fn rendered(test: &str, args: &[&str]) -> Option<Vec<Value>> {
    let chart = chart().display().to_string();
    let fixed = ["template", "example", &chart, "--namespace", "data", "--kube-version", "1.31.0"];
    let (went_well, said) = helm(test, &[&fixed[..], args].concat())?;
    assert!(went_well, "{said}");
    Some(yaml::documents(&said))
}

fn everything() -> String {
    chart().join("ci/everything-values.yaml").display().to_string()
}

fn roles() -> String {
    chart().join("ci/roles-values.yaml").display().to_string()
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    manifests.iter().find(|manifest| manifest["kind"] == kind).unwrap()
}

fn named<'a>(manifests: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut of_kind = manifests.iter().filter(|manifest| manifest["kind"] == kind);
    of_kind.find(|manifest| manifest["metadata"]["name"] == name).unwrap()
}

fn container(manifests: &[Value]) -> &Value {
    &of_kind(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn helm_has_nothing_against_the_chart() {
    let chart = chart().display().to_string();
    for values in [&[][..], &["-f", &everything()], &["-f", &roles()]] {
        let lint = [&["lint", "--strict", &chart], values].concat();
        let Some((went_well, said)) = helm("the chart's lint", &lint) else { return };
        assert!(went_well && !said.contains("[WARNING]"), "{said}");
    }
    // A slip in a value's name must not be taken for a default.
    let slip = ["template", "x", &chart, "--kube-version", "1.31.0", "--set", "replicas=3"];
    let (went_well, said) = helm("the chart's schema", &slip).unwrap();
    assert!(!went_well && said.contains("replicas"), "{said}");
}

#[test]
fn each_manifest_is_what_kubernetes_takes() {
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap();
    let (everything, roles) = (everything(), roles());
    let mut kinds = BTreeSet::new();
    for values in [&[][..], &["-f", &everything], &["-f", &roles]] {
        let Some(manifests) = rendered("the chart's manifests", values) else { return };
        let mut names = BTreeSet::new();
        for manifest in &manifests {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let kind = format!("{}/{}", text(&manifest["apiVersion"]), text(&manifest["kind"]));
            let schema = &schemas["kinds"][&kind];
            assert!(!schema.is_null(), "{kind} has no schema");
            let found = differences(&schemas, schema, manifest);
            assert!(found.is_empty(), "{kind}: {found:#?}");
            assert!(names.insert((kind.clone(), text(&manifest["metadata"]["name"]))), "{kind}");
            kinds.insert(kind);
        }
    }
    assert_eq!(kinds.len(), 10, "everything that there is was rendered: {kinds:?}");
}

#[test]
fn a_rollout_waits_for_a_standby_and_nothing_runs_with_more_than_it_needs() {
    let Some(manifests) = rendered("the chart's deployment", &[]) else { return };
    let deployment = of_kind(&manifests, "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let walhook = container(&manifests);
    assert_eq!(walhook["readinessProbe"]["httpGet"]["path"], "/ready?standby=ok");
    for probe in ["livenessProbe", "startupProbe"] {
        assert_eq!(walhook[probe]["httpGet"]["path"], "/health", "{probe}");
    }
    let rights = &walhook["securityContext"];
    assert_eq!(rights["readOnlyRootFilesystem"], true);
    assert_eq!(rights["allowPrivilegeEscalation"], false);
    assert_eq!(rights["capabilities"]["drop"][0], "ALL");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(walhook["envFrom"][0]["secretRef"]["name"], "walhook");
    // Two of one release find each other's selector, and no other does.
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let selector = &deployment["spec"]["selector"]["matchLabels"];
    for (name, value) in selector.as_object().unwrap() {
        assert_eq!(&labels[name], value, "{name}");
    }
    let budget = of_kind(&manifests, "PodDisruptionBudget");
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], selector);

    let checksum = |manifests: &[Value]| {
        let template = &of_kind(manifests, "Deployment")["spec"]["template"];
        template["metadata"]["annotations"]["checksum/config"].as_str().unwrap().to_owned()
    };
    let other = rendered("", &["--set", "config=[postgres]"]).unwrap();
    assert_ne!(
        checksum(&manifests),
        checksum(&other),
        "a change of the configuration is a rollout"
    );
    let single = rendered("", &["--set", "replicaCount=1"]).unwrap();
    assert!(!single.iter().any(|manifest| manifest["kind"] == "PodDisruptionBudget"));
}

/// The words of a container's command line.
fn args(container: &Value) -> Vec<&str> {
    container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn with_roles_a_tail_and_workers_have_one_configuration_and_pods_of_their_own() {
    let roles = roles();
    let Some(manifests) = rendered("the chart's roles", &["-f", &roles]) else { return };
    let deployments = manifests.iter().filter(|manifest| manifest["kind"] == "Deployment");
    assert_eq!(deployments.count(), 2, "nothing runs without a role");
    let cases = [
        ("tail", 2, &["run", "--role", "tail", "--take-over-after", "60"][..], "/ready?standby=ok"),
        ("deliver", 5, &["run", "--role", "deliver"][..], "/ready"),
    ];
    for (role, replicas, command, probe) in cases {
        let name = format!("example-walhook-{role}");
        let deployment = named(&manifests, "Deployment", &name);
        assert_eq!(deployment["spec"]["replicas"], replicas, "{role}");
        let pod = &deployment["spec"]["template"];
        let walhook = &pod["spec"]["containers"][0];
        assert_eq!(args(walhook), command);
        assert_eq!(walhook["readinessProbe"]["httpGet"]["path"], probe);
        // Of this role and no other: a rollout or a drain of one must not count the pods of the other.
        let selector = &deployment["spec"]["selector"]["matchLabels"];
        assert_eq!(selector["app.kubernetes.io/component"], role);
        for (label, value) in selector.as_object().unwrap() {
            assert_eq!(&pod["metadata"]["labels"][label], value, "{role}: {label}");
        }
        let budget = named(&manifests, "PodDisruptionBudget", &name);
        assert_eq!(&budget["spec"]["selector"]["matchLabels"], selector);
        let spread = &pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"];
        assert_eq!(spread, selector);
        assert_eq!(pod["spec"]["volumes"][0]["configMap"]["name"], "example-walhook");
        let cpu = if role == "tail" { "200m" } else { "100m" };
        assert_eq!(walhook["resources"]["requests"]["cpu"], cpu, "{role}");
    }
    let budget = |role: &str| {
        &named(&manifests, "PodDisruptionBudget", &format!("example-walhook-{role}"))["spec"]
    };
    assert_eq!(budget("tail")["minAvailable"], 1);
    assert_eq!(budget("deliver")["maxUnavailable"], 1);
    // Everybody shows metrics and status; callbacks are the tail's.
    let component = "app.kubernetes.io/component";
    let api = named(&manifests, "Service", "example-walhook");
    assert!(api["spec"]["selector"][component].is_null(), "{api}");
    let inbound = named(&manifests, "Service", "example-walhook-inbound");
    assert_eq!(inbound["spec"]["selector"][component], "tail");
    let config = named(&manifests, "ConfigMap", "example-walhook");
    let toml: toml::Table = config["data"]["walhook.toml"].as_str().unwrap().parse().unwrap();
    let expected = "url = ['${NATS_URL}']\npartitions = 10\nreplicas = 3\nstream_size = '256MiB'\n\
                    patience = '30s'\ncredentials = { env = 'NATS_CREDENTIALS' }\n";
    assert_eq!(toml["relay"].as_table().unwrap(), &expected.parse::<toml::Table>().unwrap());
    assert!(toml.contains_key("endpoint"), "{toml}");
}

#[test]
fn roles_without_a_broker_or_with_two_are_refused() {
    let chart = chart().display().to_string();
    let own = "config=[relay]\nurl = \"nats://nats:4222\"";
    let broker = "relay.url={nats://nats:4222}";
    let cases = [
        (&["roles.enabled=true"][..], Some("roles.enabled needs a broker")),
        (&["roles.enabled=true", own, broker][..], Some("the broker is named twice")),
        (&["roles.enabled=true", broker, "roles.tail.replicas=3"][..], Some("replicas")),
        (&["roles.enabled=true", own][..], None),
        (&["roles.enabled=true", broker][..], None),
    ];
    for (values, refusal) in cases {
        let values = values.iter().flat_map(|value| ["--set", value]);
        let fixed = ["template", "x", &chart, "--kube-version", "1.31.0"];
        let call: Vec<&str> = fixed.into_iter().chain(values).collect();
        let Some((went_well, said)) = helm("the chart's refusals", &call) else { return };
        assert_eq!(went_well, refusal.is_none(), "{said}");
        assert!(said.contains(refusal.unwrap_or_default()), "{said}");
    }
}

/// A tail and a worker deliver, as their Deployments start them.
#[tokio::test]
async fn walhook_runs_with_the_manifests_of_roles() {
    let test = "walhook_runs_with_the_manifests_of_roles";
    let Some(broker) = Broker::start(test).await else { return };
    let url = format!("relay.url={{{}}}", broker.url());
    let values = ["--set", "roles.enabled=true", "--set", &url, "--set", "relay.replicas=1"];
    let Some(manifests) = rendered(test, &values) else { return };
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, item text)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = configuration(&manifests, &database, &receiver);
    let start = async |role: &str| {
        let deployment = named(&manifests, "Deployment", &format!("example-walhook-{role}"));
        let walhook = &deployment["spec"]["template"]["spec"]["containers"][0];
        let service = start(&args(walhook), &toml, &database).await;
        let probe = walhook["readinessProbe"]["httpGet"]["path"].as_str().unwrap().to_owned();
        service.wait_for_status(&probe, 200).await;
        service
    };
    let mut tail = start("tail").await;
    let mut worker = start("deliver").await;
    sql.batch_execute("INSERT INTO orders VALUES (1, 'tea')").await.unwrap();
    assert_eq!(receiver.wait_for(1, AMPLE).await[0].json()["data"]["id"], 1);
    worker.stop().await;
    tail.stop().await;
}

/// The chart's configuration with what is other here than in a cluster.
fn configuration(manifests: &[Value], database: &Database, receiver: &Receiver) -> String {
    let toml = of_kind(manifests, "ConfigMap")["data"]["walhook.toml"].as_str().unwrap();
    let (listen, endpoint) = ("\"0.0.0.0:9464\"", "http://receiver.default.svc/");
    assert!(toml.contains(listen) && toml.contains(endpoint), "{toml}");
    let toml = toml.replace(listen, "\"127.0.0.1:0\"").replace(endpoint, &receiver.url());
    // Other tests share the server.
    let slot = format!("[postgres]\nslot = \"{}\"", slot(database));
    toml.replace("[postgres]", &slot)
}

/// Starts walhook with the Secret that the chart asks for, and waits for its HTTP surface.
async fn start(args: &[&str], toml: &str, database: &Database) -> Service {
    let url = database.url();
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("WALHOOK_TOKEN", "a-token-that-is-long-enough"),
        ("WALHOOK_SECRET", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ];
    let mut program = Program::start(args, toml, &env);
    let line = program.wait_for_line("the HTTP surface is up", AMPLE).await;
    Service { http: http_address(&line), program }
}

/// One replaces the other as the Deployment says, with its arguments, its configuration and its probe.
#[tokio::test]
async fn walhook_runs_with_the_manifests_and_a_rollout_ends() {
    let Some(manifests) = rendered("the chart's rollout", &[]) else { return };
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, item text)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = configuration(&manifests, &database, &receiver);
    let walhook = container(&manifests);
    let start = async || start(&args(walhook), &toml, &database).await;
    let probe = walhook["readinessProbe"]["httpGet"]["path"].as_str().unwrap();
    let mut old = start().await;
    old.wait_for_status("/ready", 200).await;
    let mut new = start().await;
    // Kubernetes ends the old one only after this.
    let ready = new.wait_for_status(probe, 200).await;
    assert_eq!(ready.json()["status"], "standby");
    sql.batch_execute("INSERT INTO orders VALUES (1, 'tea')").await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    old.stop().await;
    new.wait_for_status("/ready", 200).await;
    sql.batch_execute("INSERT INTO orders VALUES (2, 'rice')").await.unwrap();
    let requests = receiver.wait_for(2, AMPLE).await;
    assert_eq!(requests[1].json()["data"]["id"], 2);
    new.stop().await;
    assert_eq!(receiver.count(), 2, "each once");
}
