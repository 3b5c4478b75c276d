//! What PostgreSQL's catalog says about one replication slot.
//!
//! The wire asks when a slot cannot be used, to name the reason by catalog fields and not by the
//! text of an error; the catalog's check asks in any case. Pure but for the SQL text.

use crate::flow::lsn::Lsn;
use crate::flow::quote;
use crate::replication::diagnostic::SetupDiagnostic;

/// One row of `pg_replication_slots`, seen from the current database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlotStream {
    pub name: String,
    /// Empty for a physical slot.
    pub plugin: String,
    pub database: String,
    /// Whether `database` is the one that we are connected to.
    pub here: bool,
    pub active_pid: Option<i32>,
    /// What the holder of the slot calls itself.
    pub active_name: Option<String>,
    pub wal_status: String,
    /// PostgreSQL 17 and later.
    pub invalidation_reason: Option<String>,
    pub restart: Option<Lsn>,
    pub confirmed: Option<Lsn>,
    /// Bytes of WAL that this slot keeps on the server.
    pub retained_bytes: Option<u64>,
    /// Bytes of WAL that can be written before the slot may be lost; `None` without a limit.
    pub safe_bytes: Option<u64>,
    /// Transactions that the server has decoded for readers of the slot, as far as its statistics
    /// go back.
    pub decoded: u64,
    /// Standbys are to keep it (PostgreSQL 17).
    pub failover: bool,
}

/// A query with [`SlotStream::from_row`]'s columns, for the simple query protocol.
pub(crate) fn query(slot: &str) -> String {
    // `to_jsonb(s) ->>` reads columns that only newer versions have.
    format!(
        "SELECT s.plugin, s.database, s.database = current_database(), s.active_pid, \
         a.application_name, s.wal_status, to_jsonb(s) ->> 'invalidation_reason', s.restart_lsn, \
         s.confirmed_flush_lsn, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() \
         THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, s.restart_lsn)::bigint, \
         s.safe_wal_size, (SELECT r.total_txns FROM pg_catalog.pg_stat_replication_slots r \
         WHERE r.slot_name = s.slot_name), to_jsonb(s) ->> 'failover' \
         FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid \
         WHERE s.slot_name = {}",
        quote::literal(slot)
    )
}

impl SlotStream {
    /// Reads a row of [`query`] as text columns.
    pub fn from_row<'a>(name: &str, column: impl Fn(usize) -> Option<&'a str>) -> Self {
        let text = |index| column(index).unwrap_or_default().to_owned();
        let lsn = |index| column(index).and_then(|text| text.parse().ok());
        Self {
            name: name.to_owned(),
            plugin: text(0),
            database: text(1),
            here: column(2) == Some("t"),
            active_pid: column(3).and_then(|pid| pid.parse().ok()),
            active_name: column(4).map(ToOwned::to_owned),
            wal_status: text(5),
            invalidation_reason: column(6).map(ToOwned::to_owned),
            restart: lsn(7),
            confirmed: lsn(8),
            retained_bytes: column(9).and_then(|bytes| bytes.parse().ok()),
            // Negative when the limit is passed already.
            safe_bytes: column(10)
                .and_then(|bytes| bytes.parse().ok())
                .map(|bytes: i64| u64::try_from(bytes).unwrap_or(0)),
            decoded: column(11).and_then(|count| count.parse().ok()).unwrap_or(0),
            failover: column(12) == Some("true"),
        }
    }

    /// Whether it is read, or was read from. Statistics are lost in a crash of the server: then
    /// it cannot be told.
    pub fn was_read(&self) -> bool {
        self.active_pid.is_some() || self.decoded > 0
    }

    /// Whether more WAL is kept than can still be written before the slot may be lost.
    pub fn is_in_danger(&self) -> bool {
        self.safe_bytes.is_some_and(|safe| safe <= self.retained_bytes.unwrap_or(0))
    }

    /// Why changes cannot be read from this slot by anybody; its being in use is not looked at.
    pub fn defect(&self) -> Option<SetupDiagnostic> {
        let slot = self.name.clone();
        if self.plugin != "pgoutput" {
            let plugin = if self.plugin.is_empty() {
                "physical replication".to_owned()
            } else {
                format!("the plugin {}", self.plugin)
            };
            return Some(SetupDiagnostic::WrongPlugin { slot, plugin });
        }
        if !self.here {
            return Some(SetupDiagnostic::SlotElsewhere { slot, database: self.database.clone() });
        }
        let lost = (self.wal_status == "lost").then_some("wal_removed");
        let reason = self.invalidation_reason.as_deref().or(lost)?;
        let confirmed = self.confirmed.unwrap_or_default();
        Some(SetupDiagnostic::SlotLost { slot, confirmed, since: None, reason: reason.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(columns: [Option<&str>; 13]) -> SlotStream {
        SlotStream::from_row("walhook", |index| columns[index])
    }

    #[test]
    fn a_slot_is_judged_by_its_catalog_row() {
        let sound = [
            Some("pgoutput"),
            Some("app"),
            Some("t"),
            Some("77"),
            Some("walhook"),
            Some("extended"),
            None,
            Some("0/10"),
            Some("0/20"),
            Some("4096"),
            Some("8192"),
            Some("7"),
            Some("true"),
        ];
        assert_eq!(slot(sound).defect(), None);
        assert_eq!(slot(sound).active_pid, Some(77));
        assert_eq!(slot(sound).retained_bytes, Some(4096));
        assert!(slot(sound).failover);
        assert_eq!((slot(sound).decoded, slot(sound).is_in_danger()), (7, false));
        let safe = |safe| {
            let mut columns = sound;
            columns[10] = safe;
            slot(columns).is_in_danger()
        };
        assert_eq!([safe(None), safe(Some("4096")), safe(Some("-1"))], [false, true, true]);
        let with = |index: usize, value| {
            let mut columns = sound;
            columns[index] = value;
            slot(columns).defect().map(|refusal| refusal.to_string()).unwrap_or_default()
        };
        assert!(with(0, Some("test_decoding")).contains("test_decoding"));
        assert!(with(0, None).contains("physical replication"));
        assert!(with(2, Some("f")).contains("database app"));
        assert!(with(5, Some("lost")).contains("(wal_removed) and so are the changes after 0/20"));
        assert!(with(6, Some("idle_timeout")).contains("(idle_timeout)"));
    }
}
