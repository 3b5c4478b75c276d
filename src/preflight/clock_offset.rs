//! How far the database's clock is from this host's: a line of `walhook check`, and of the log when it
//! changes.
//!
//! Ages and expiry follow the database's clock, signatures and `webhook-timestamp` this host's. Both
//! are right only if the clocks are.

use tokio_postgres::Client;

use crate::clock::host_now;
use crate::flow::time::Timestamp;
use crate::replication::catalog::CheckFinding;
use crate::store::error::StoreError;

/// Receivers of Standard Webhooks allow five minutes, and some less.
const OFFSET_MAX_SECONDS: f64 = 10.0;

const FIX: &str = "have both follow an NTP server: ages and expiry go by the database's clock, \
                   signatures and webhook-timestamp by this host's";

/// Asks for the time, once.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn finding(client: &Client) -> Result<CheckFinding, StoreError> {
    let question = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint";
    let asked = host_now();
    let row = client.query_one(question, &[]).await?;
    let answered = host_now();
    let server = Timestamp::from_micros(row.try_get(0)?);
    let middle = Timestamp::from_micros(asked.micros().midpoint(answered.micros()));
    let ahead = server.since(middle).as_secs_f64() - middle.since(server).as_secs_f64();
    Ok(judge(ahead))
}

fn judge(ahead_seconds: f64) -> CheckFinding {
    if is_far(ahead_seconds) {
        CheckFinding::warning(what(ahead_seconds), String::from(FIX))
    } else {
        CheckFinding::ok(format!(
            "the database's clock agrees with this host's within {:.1} s",
            ahead_seconds.abs().max(0.1)
        ))
    }
}

fn is_far(ahead_seconds: f64) -> bool {
    ahead_seconds.abs() > OFFSET_MAX_SECONDS
}

fn what(ahead_seconds: f64) -> String {
    let side = if ahead_seconds < 0.0 { "behind" } else { "ahead of" };
    format!("the database's clock is {:.0} s {side} this host's", ahead_seconds.abs())
}

/// Says in the log when the clocks come apart, and when they are together again.
#[derive(Debug, Default)]
pub(crate) struct OffsetWatch {
    is_far: bool,
}

impl OffsetWatch {
    /// Looks at an offset that was measured.
    pub(crate) fn look(&mut self, ahead_seconds: f64) {
        let was_far = std::mem::replace(&mut self.is_far, is_far(ahead_seconds));
        match (was_far, self.is_far) {
            (false, true) => tracing::warn!(fix = FIX, "{}", what(ahead_seconds)),
            (true, false) => tracing::info!("the database's clock agrees with this host's again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::catalog::FindingLevel;

    #[test]
    fn clocks_that_are_apart_are_a_warning_with_the_direction() {
        for (ahead, level, text) in [
            (0.003, FindingLevel::Ok, "within 0.1 s"),
            (-9.0, FindingLevel::Ok, "within 9.0 s"),
            (1200.0, FindingLevel::Warning, "1200 s ahead of this host's"),
            (-1200.4, FindingLevel::Warning, "1200 s behind this host's"),
        ] {
            let finding = judge(ahead);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.what.contains(text), "{finding:?}");
            assert_eq!(finding.fix.is_some(), level == FindingLevel::Warning);
        }
    }
}
