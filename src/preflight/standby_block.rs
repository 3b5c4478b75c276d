//! Notices that PostgreSQL holds changes back until a standby has them (`synchronized_standby_slots`), and says
//! which standby that is.

use tokio_postgres::Client;

use crate::flow::quote;
use crate::preflight::failover;
use crate::store::error::StoreError;

/// What the walsender of the slot waits for, and how far it has sent. Its wait is one for standbys since
/// PostgreSQL 17.
const WAIT: &str = "
    SELECT a.wait_event = 'WaitForStandbyConfirmation', r.sent_lsn::text
      FROM pg_catalog.pg_replication_slots s
      JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
      LEFT JOIN pg_catalog.pg_stat_replication r ON r.pid = s.active_pid
     WHERE s.slot_name = $1";

const LIST: &str =
    "SELECT coalesce(pg_catalog.current_setting('synchronized_standby_slots', true), '')";

/// The state of one slot of the list; nothing if there is none of that name.
const STANDBY: &str = "
    SELECT s.slot_type::text = 'physical',
           coalesce(pg_catalog.to_jsonb(s) ->> 'invalidation_reason',
                    CASE WHEN s.wal_status = 'lost' THEN 'wal_removed' END),
           s.active,
           greatest(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(),
                                               s.restart_lsn), 0)::bigint
      FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = ";

/// Two looks in a row at the same place tell a standby that is behind from one that only takes a moment.
#[derive(Debug, Default)]
pub(crate) struct StandbyBlock {
    waited_at: Option<String>,
}

impl StandbyBlock {
    /// Looks once. Returns who is waited for, if nothing has moved since the last look.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub(crate) async fn look(
        &mut self,
        client: &Client,
        slot: &str,
    ) -> Result<Option<String>, StoreError> {
        let row = client.query_opt(WAIT, &[&slot]).await?;
        let (waits, sent) = match row {
            Some(row) => (row.try_get::<_, Option<bool>>(0)?, row.try_get(1)?),
            None => (None, None),
        };
        let before = std::mem::take(&mut self.waited_at);
        if waits != Some(true) {
            return Ok(None);
        }
        let sent: String = sent.unwrap_or_default();
        let is_still = before.is_some_and(|before| before == sent);
        self.waited_at = Some(sent);
        if !is_still {
            return Ok(None);
        }
        let list: String = client.query_one(LIST, &[]).await?.try_get(0)?;
        let mut behind = Vec::new();
        for name in failover::listed(&list) {
            let question = format!("{STANDBY}{}", quote::literal(name));
            let why = match client.query_opt(&question, &[]).await? {
                None => Some(String::from("its slot does not exist")),
                Some(row) => {
                    let lost: Option<String> = row.try_get(1)?;
                    let (physical, active): (bool, bool) = (row.try_get(0)?, row.try_get(2)?);
                    let bytes: Option<i64> = row.try_get(3)?;
                    judge(physical, lost.as_deref(), active, bytes)
                }
            };
            behind.extend(why.map(|why| (name.to_owned(), why)));
        }
        Ok(Some(said(&behind)))
    }
}

/// Why a standby of the list is waited for; nothing if it has everything.
fn judge(physical: bool, lost: Option<&str>, active: bool, behind: Option<i64>) -> Option<String> {
    match (physical, lost, active, behind) {
        (false, ..) => Some(String::from("its slot is no physical one")),
        (_, Some(reason), ..) => Some(format!("its slot is lost ({reason})")),
        (_, _, false, _) => Some(String::from("no standby reads its slot")),
        (_, _, _, Some(0)) => None,
        (_, _, _, Some(bytes)) => Some(format!("it is {bytes} bytes of WAL behind")),
        (_, _, _, None) => Some(String::from("it has not said how far it is")),
    }
}

fn said(behind: &[(String, String)]) -> String {
    let each = behind.iter().map(|(name, why)| format!("{name} ({why})"));
    let each: Vec<String> = each.collect();
    match each.as_slice() {
        [] => String::from(
            "blocked by a standby: PostgreSQL holds changes back until each of synchronized_standby_slots has \
             them",
        ),
        each => format!(
            "blocked by standby {}: PostgreSQL holds changes back until it has them; start it, or take it \
             out of synchronized_standby_slots",
            each.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_named_with_the_reason_why_it_is_waited_for() {
        let cases = [
            (judge(true, None, true, Some(0)), None),
            (judge(true, None, true, Some(7)), Some("7 bytes")),
            (judge(true, None, true, None), Some("not said")),
            (judge(true, None, false, Some(0)), Some("no standby reads")),
            (judge(true, Some("wal_removed"), false, None), Some("lost (wal_removed)")),
            (judge(false, None, true, Some(0)), Some("no physical")),
        ];
        for (judged, expected) in cases {
            match expected {
                None => assert_eq!(judged, None),
                Some(part) => assert!(judged.clone().unwrap().contains(part), "{part}: {judged:?}"),
            }
        }
        let text = said(&[(String::from("two"), String::from("its slot does not exist"))]);
        assert!(text.starts_with("blocked by standby two (its slot does not exist)"), "{text}");
    }
}
