//! Whether chat systems let their applications in, for `walhook check --channels`: a token is fetched, and
//! the application asked for with it. No message is sent.

use std::time::Duration;

use crate::clock::host_now;
use crate::config::settings::Endpoint;
use crate::delivery::connection::network::DeliveryNetwork;
use crate::delivery::http::EndpointClient;
use crate::flow::verdict::FailureClass;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::FindingLevel;

/// How long token and application may take together.
const PATIENCE: Duration = Duration::from_secs(10);

/// What helps, by WeCom's code ("全局错误码").
const FIXES: [(i64, &str); 12] = [
    (40001, "copy the Secret of this application from WeCom's administrator page to `corp_secret`"),
    (40091, "copy the Secret of this application from WeCom's administrator page to `corp_secret`"),
    (40013, "correct `corp_id`: the administrator page shows it as 企业ID (ww...)"),
    (41002, "give `corp_id`: the administrator page shows it as 企业ID (ww...)"),
    (41004, "give `corp_secret`: the Secret of this application on the administrator page"),
    (40056, "correct `agent_id`: it has to be the AgentId of the application whose secret this is"),
    (
        301_002,
        "correct `agent_id`: it has to be the AgentId of the application whose secret this is",
    ),
    (60011, "correct `agent_id`: it has to be the AgentId of the application whose secret this is"),
    (60020, "add this host's address to the application's trusted addresses (企业可信IP)"),
    (45009, "it was asked too often: try again in a minute"),
    (45033, "it was asked by too many at once: try again"),
    (-1, "WeCom is busy: try again"),
];

const OTHER_FIX: &str = "look the code up in WeCom's list of error codes (全局错误码)";

const UNREACHED_FIX: &str = "open the way to it, or correct `base_url`";

/// A finding for each endpoint that is a chat system.
pub(crate) async fn findings(endpoints: &[Endpoint]) -> Vec<CheckFinding> {
    let network = DeliveryNetwork::system();
    let mut findings = Vec::new();
    for endpoint in endpoints {
        findings.extend(finding(endpoint, &network).await);
    }
    findings
}

async fn finding(endpoint: &Endpoint, network: &DeliveryNetwork) -> Option<CheckFinding> {
    let channel = endpoint.channel.as_ref()?;
    let name = &endpoint.name;
    let Some(app) = &channel.app else {
        let kind = channel.preset.name;
        let what =
            format!("endpoint {name}: a {kind} can be tried by a message only, so it was not");
        return Some(CheckFinding::ok(what));
    };
    // What cannot be built is said of the endpoint itself.
    let client = EndpointClient::new(endpoint, network).ok()?;
    let (at, agent_id) = (endpoint.shown_url(), app.agent_id);
    Some(match client.try_access(PATIENCE, host_now()).await? {
        Ok(()) => CheckFinding::ok(format!(
            "endpoint {name}: {at} gives a token for application {agent_id}"
        )),
        Err((failure, code)) => {
            let known = code.and_then(|code| FIXES.iter().find(|(known, _)| *known == code));
            let fix = match (known, failure.class) {
                (Some((_, fix)), _) => fix,
                (None, FailureClass::Status) => OTHER_FIX,
                (None, _) => UNREACHED_FIX,
            };
            let what =
                format!("endpoint {name}: {at} does not let application {agent_id} in: {failure}");
            CheckFinding {
                level: FindingLevel::Problem,
                ..CheckFinding::warning(what, fix.to_owned())
            }
        }
    })
}
