//! Which deliveries there are to be, which have come, and from whom.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use anyhow::Context;
use serde_json::Value;

use crate::cli::receive::server::ReceivedRequest;
use crate::cli::receive::signature::SignatureVerdict;

/// By this header a member says who it is.
pub(super) const MEMBER_HEADER: &str = "x-member";

/// The deliveries of the demo: each row that is to be pushed, at each endpoint.
pub(super) struct DeliveryCount {
    endpoints: &'static [&'static str],
    rows: BTreeSet<i64>,
    /// Endpoint and row, and how often it came.
    come: BTreeMap<(&'static str, i64), u32>,
    by_member: BTreeMap<String, u64>,
}

impl DeliveryCount {
    pub(super) fn new(endpoints: &'static [&'static str]) -> Self {
        Self { endpoints, rows: BTreeSet::new(), come: BTreeMap::new(), by_member: BTreeMap::new() }
    }

    /// A row was committed that every endpoint is to get.
    pub(super) fn inserted(&mut self, row: i64) {
        self.rows.insert(row);
    }

    /// Counts a request.
    ///
    /// # Errors
    /// It is none of the demo's deliveries, or its signature is wrong.
    pub(super) fn arrived(&mut self, received: &ReceivedRequest) -> anyhow::Result<()> {
        let path = received.path.trim_start_matches('/');
        let endpoint = self.endpoints.iter().find(|name| **name == path);
        let endpoint = *endpoint.with_context(|| format!("no endpoint has the path /{path}"))?;
        let member = received.headers.get(MEMBER_HEADER).and_then(|value| value.to_str().ok());
        let member = member.with_context(|| format!("a delivery has no header {MEMBER_HEADER}"))?;
        let body: Value = serde_json::from_slice(&received.body).context("the body is not JSON")?;
        let id = body.pointer("/data/id").and_then(Value::as_i64).context("the body has no id")?;
        let code = body.pointer("/data/wallet_code").and_then(Value::as_str);
        anyhow::ensure!(code.is_some(), "row {id} arrived although nothing was recognised in it");
        anyhow::ensure!(
            received.signature == SignatureVerdict::Ok,
            "a delivery came without a valid signature"
        );
        *self.come.entry((endpoint, id)).or_default() += 1;
        *self.by_member.entry(member.to_owned()).or_default() += 1;
        Ok(())
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// How many deliveries there are to be, of the rows that are known.
    pub(super) fn wanted(&self) -> usize {
        self.rows.len() * self.endpoints.len()
    }

    /// How many of them have come.
    pub(super) fn come(&self) -> usize {
        self.come.keys().filter(|(_, row)| self.rows.contains(row)).count()
    }

    /// How many came more than once.
    pub(super) fn repeated(&self) -> usize {
        self.come.values().filter(|times| **times > 1).count()
    }

    /// How many requests this member has made.
    pub(super) fn of_member(&self, name: &str) -> u64 {
        self.by_member.get(name).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::time::Timestamp;
    use bytes::Bytes;
    use http::HeaderMap;
    use http::HeaderValue;
    use http::Method;
    use http::StatusCode;

    fn request(path: &str, member: &'static str, body: &str) -> ReceivedRequest {
        let mut headers = HeaderMap::new();
        headers.insert(MEMBER_HEADER, HeaderValue::from_static(member));
        ReceivedRequest {
            at: Timestamp::from_seconds(1_700_000_000),
            method: Method::POST,
            path: path.to_owned(),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
            body_bytes: body.len() as u64,
            complete: true,
            signature: SignatureVerdict::Ok,
            status_answered: StatusCode::OK,
        }
    }

    fn body(id: i64) -> String {
        format!(r#"{{"data": {{"id": {id}, "wallet_code": "W"}}}}"#)
    }

    #[test]
    fn a_delivery_counts_once_whoever_makes_it_and_before_its_row_is_known() {
        let mut count = DeliveryCount::new(&["crm", "billing"]);
        count.arrived(&request("/crm", "worker 1", &body(7))).unwrap();
        assert_eq!((count.wanted(), count.come()), (0, 0), "its row is not known yet");
        count.inserted(7);
        assert_eq!((count.rows(), count.wanted(), count.come()), (1, 2, 1));
        count.arrived(&request("/crm", "worker 2", &body(7))).unwrap();
        assert_eq!((count.come(), count.repeated()), (1, 1));
        count.arrived(&request("/billing", "worker 2", &body(7))).unwrap();
        assert_eq!((count.wanted(), count.come()), (2, 2));
        assert_eq!((count.of_member("worker 1"), count.of_member("worker 2")), (1, 2));
        assert_eq!(count.of_member("tail"), 0);
    }

    #[test]
    fn what_must_not_come_is_an_error() {
        let wrong = SignatureVerdict::Missing;
        let cases = [
            (request("/other", "worker 1", &body(1)), "no endpoint has the path /other"),
            (request("/crm", "worker 1", "{}"), "no id"),
            (request("/crm", "worker 1", r#"{"data": {"id": 1}}"#), "nothing was recognised"),
            (
                ReceivedRequest { signature: wrong, ..request("/crm", "worker 1", &body(1)) },
                "signature",
            ),
            (
                ReceivedRequest {
                    headers: HeaderMap::new(),
                    ..request("/crm", "worker 1", &body(1))
                },
                "no header x-member",
            ),
        ];
        for (request, expected) in cases {
            let error = DeliveryCount::new(&["crm"]).arrived(&request).unwrap_err();
            assert!(error.to_string().contains(expected), "case: {expected}: {error}");
        }
    }
}
