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

/// `.ci/tools helm` builds one where there is Go.
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

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    manifests.iter().find(|manifest| manifest["kind"] == kind).unwrap()
}

fn container(manifests: &[Value]) -> &Value {
    &of_kind(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn helm_has_nothing_against_the_chart() {
    let chart = chart().display().to_string();
    for values in [&[][..], &["-f", &everything()]] {
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
    let everything = everything();
    let mut kinds = BTreeSet::new();
    for values in [&[][..], &["-f", &everything]] {
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

/// One replaces the other as the Deployment says, with its arguments, its configuration and its probe.
#[tokio::test]
async fn walhook_runs_with_the_manifests_and_a_rollout_ends() {
    let Some(manifests) = rendered("the chart's rollout", &[]) else { return };
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, item text)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = of_kind(&manifests, "ConfigMap")["data"]["walhook.toml"].as_str().unwrap();
    let (listen, endpoint) = ("\"0.0.0.0:9464\"", "http://receiver.default.svc/");
    assert!(toml.contains(listen) && toml.contains(endpoint), "{toml}");
    let toml = toml.replace(listen, "\"127.0.0.1:0\"").replace(endpoint, &receiver.url());
    // Other tests share the server.
    let slot = format!("[postgres]\nslot = \"{}\"", slot(&database));
    let toml = toml.replace("[postgres]", &slot);
    let walhook = container(&manifests);
    let args: Vec<&str> =
        walhook["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let url = database.url();
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("WALHOOK_TOKEN", "a-token-that-is-long-enough"),
        ("WALHOOK_SECRET", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ];
    let start = async || {
        let mut program = Program::start(&args, &toml, &env);
        let line = program.wait_for_line("the HTTP surface is up", AMPLE).await;
        Service { http: http_address(&line), program }
    };
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
