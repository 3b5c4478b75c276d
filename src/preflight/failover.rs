//! What primary and standbys need so that the slot outlives a promotion, for `walhook check` and the log
//! of a start: PostgreSQL copies the slot to standbys that ask for it, and says nothing where a setting is missing.
//!
//! ```text
//! primary  synchronized_standby_slots ─▶ physical slot ◀─ primary_slot_name  standby
//!          slot with failover ──────── sync_replication_slots, dbname ─────▶ slot, synced
//! ```

use tokio_postgres::Client;

use crate::config::configuration::Settings;
use crate::flow::quote;
use crate::replication::catalog::CheckFinding;
use crate::store;
use crate::store::error::StoreError;

/// Names of settings of the standby. Those that only members of `pg_read_all_settings` may see are missing for
/// others.
const SETTINGS: &str = "
    SELECT name::text, setting::text FROM pg_catalog.pg_settings
     WHERE name IN ('sync_replication_slots', 'hot_standby_feedback', 'primary_conninfo',
                    'primary_slot_name', 'synchronized_standby_slots', 'wal_level')";

const IN_RECOVERY: &str = "SELECT pg_catalog.pg_is_in_recovery()";

const SLOTS: &str = "
    SELECT slot_name::text, slot_type::text, active, temporary,
           coalesce((pg_catalog.to_jsonb(s) ->> 'failover')::boolean, false),
           coalesce((pg_catalog.to_jsonb(s) ->> 'synced')::boolean, false),
           coalesce(pg_catalog.to_jsonb(s) ->> 'invalidation_reason',
                    CASE WHEN wal_status = 'lost' THEN 'wal_removed' END)
      FROM pg_catalog.pg_replication_slots s";

/// What one server says of itself.
#[derive(Clone, Debug, Default)]
struct ServerSide {
    /// How it is shown: host and port.
    at: String,
    standby: bool,
    settings: Vec<(String, String)>,
    slots: Vec<SlotSide>,
}

#[derive(Clone, Debug, Default)]
struct SlotSide {
    name: String,
    physical: bool,
    active: bool,
    temporary: bool,
    failover: bool,
    synced: bool,
    invalidated: Option<String>,
}

impl ServerSide {
    /// `None` where the role may not see it, or the server does not know it.
    fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.trim())
    }

    /// Whether it is a primary that knows of failover slots.
    fn may_be_followed(&self) -> bool {
        !self.standby && self.setting("synchronized_standby_slots").is_some()
    }

    fn slot(&self, name: &str) -> Option<&SlotSide> {
        self.slots.iter().find(|slot| slot.name == name)
    }
}

/// What is missing on the servers that the URL names; nothing if `[postgres] failover` is not set.
///
/// # Errors
/// The primary cannot be asked. A standby that does not answer is a finding.
pub(crate) async fn findings(
    settings: &Settings,
    client: &Client,
) -> Result<Vec<CheckFinding>, StoreError> {
    let postgres = &settings.postgres;
    if !postgres.failover {
        return Ok(Vec::new());
    }
    let primary = ask(client, String::from("the primary")).await?;
    if !primary.may_be_followed() {
        return Ok(Vec::new()); // that has been said
    }
    let mut found = judge_primary(&primary);
    let hosts = postgres.server.each_host();
    if hosts.len() < 2 {
        found.push(CheckFinding::warning(
            String::from("failover: [postgres] url names one host, so walhook follows no promotion by itself"),
            String::from(
                "name all hosts, as in postgres://walhook@one,two/app?target_session_attrs=read-write; \
                 where an address moves to the new primary, that does it, too",
            ),
        ));
        return Ok(found);
    }
    for (at, host) in hosts {
        match store::connect_within(&host, store::ANSWER_SOON).await {
            Ok(session) => {
                let side = ask(&session.client, at).await?;
                if side.standby {
                    found.extend(judge_standby(&side, &postgres.slot, &primary));
                }
            }
            Err(error) => found.push(CheckFinding::warning(
                format!("failover: {at} cannot be asked: {error}"),
                String::from("start it, or take it out of [postgres] url"),
            )),
        }
    }
    Ok(found)
}

/// The part of it that is the primary's, for a start: standbys are not looked for.
///
/// # Errors
/// The primary cannot be asked.
pub(crate) async fn of_primary(
    settings: &Settings,
    client: &Client,
) -> Result<Vec<CheckFinding>, StoreError> {
    if !settings.postgres.failover {
        return Ok(Vec::new());
    }
    let primary = ask(client, String::from("the primary")).await?;
    Ok(if primary.may_be_followed() { judge_primary(&primary) } else { Vec::new() })
}

async fn ask(client: &Client, at: String) -> Result<ServerSide, StoreError> {
    let standby = client.query_one(IN_RECOVERY, &[]).await?.try_get(0)?;
    let mut side = ServerSide { at, standby, ..ServerSide::default() };
    for row in client.query(SETTINGS, &[]).await? {
        let value: Option<String> = row.try_get(1)?;
        side.settings.push((row.try_get(0)?, value.unwrap_or_default()));
    }
    for row in client.query(SLOTS, &[]).await? {
        side.slots.push(SlotSide {
            name: row.try_get(0)?,
            physical: row.try_get::<_, &str>(1)? == "physical",
            active: row.try_get(2)?,
            temporary: row.try_get(3)?,
            failover: row.try_get(4)?,
            synced: row.try_get(5)?,
            invalidated: row.try_get(6)?,
        });
    }
    Ok(side)
}

/// The names in a setting that is a list of them.
pub(crate) fn listed(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty())
}

fn judge_primary(primary: &ServerSide) -> Vec<CheckFinding> {
    let list = primary.setting("synchronized_standby_slots").unwrap_or_default();
    let names: Vec<&str> = listed(list).collect();
    if names.is_empty() {
        return vec![CheckFinding::warning(
            String::from(
                "failover: synchronized_standby_slots is empty on the primary, so walhook gets changes that \
                 no standby has yet: a promotion may go back behind them",
            ),
            String::from(
                "run `ALTER SYSTEM SET synchronized_standby_slots = '...';` on the primary, with the \
                 physical slot of each standby that may be promoted, and `SELECT pg_reload_conf();`",
            ),
        )];
    }
    let mut found = Vec::new();
    for name in names {
        let warning = |what: &str, fix: &str| {
            CheckFinding::warning(
                format!(
                    "failover: synchronized_standby_slots names {name}, {what}: walhook gets no change while \
                     it is so"
                ),
                fix.to_owned(),
            )
        };
        let stale = "take the name out of synchronized_standby_slots, or make the slot again: \
                     `SELECT pg_create_physical_replication_slot('...');`";
        match primary.slot(name) {
            None => found.push(warning("which does not exist on the primary", stale)),
            Some(slot) if !slot.physical => {
                found.push(warning("which is no physical slot", stale));
            }
            Some(SlotSide { invalidated: Some(reason), .. }) => {
                found.push(warning(&format!("which is lost ({reason})"), stale));
            }
            Some(slot) if !slot.active => found.push(warning(
                "which no standby reads at the moment",
                "start the standby, or take the name out of synchronized_standby_slots",
            )),
            Some(_) => found.push(CheckFinding::ok(format!(
                "failover: the primary waits for standby slot {name}"
            ))),
        }
    }
    found
}

fn judge_standby(standby: &ServerSide, slot: &str, primary: &ServerSide) -> Vec<CheckFinding> {
    let at = &standby.at;
    let mut found = Vec::new();
    let mut warn = |what: String, fix: &str| {
        found
            .push(CheckFinding::warning(format!("failover: standby {at}: {what}"), fix.to_owned()));
    };
    let reload = "on it, and `SELECT pg_reload_conf();`";
    let is_on = |name: &str| standby.setting(name) == Some("on");
    for name in ["sync_replication_slots", "hot_standby_feedback"] {
        if !is_on(name) {
            warn(
                format!("{name} is not on, so it keeps no slots"),
                &format!("run `ALTER SYSTEM SET {name} = on;` {reload}"),
            );
        }
    }
    if let Some(level) = standby.setting("wal_level").filter(|level| *level != "logical") {
        warn(
            format!("wal_level is {level}, not logical"),
            "run `ALTER SYSTEM SET wal_level = logical;` on it, and restart it",
        );
    }
    if let Some(conninfo) = standby.setting("primary_conninfo")
        && !names_database(conninfo)
    {
        warn(
            String::from("primary_conninfo names no dbname, so it keeps no slots"),
            &format!("add dbname=postgres to primary_conninfo {reload}"),
        );
    }
    match standby.setting("primary_slot_name") {
        Some("") => warn(
            String::from("primary_slot_name is empty, so it keeps no slots"),
            &format!(
                "make a physical slot on the primary, and name it: `ALTER SYSTEM SET primary_slot_name = \
                 '...';` {reload}"
            ),
        ),
        Some(name) => {
            let list = primary.setting("synchronized_standby_slots").unwrap_or_default();
            if !list.is_empty() && !listed(list).any(|listed| listed == name) {
                warn(
                    format!("its slot {name} is not in synchronized_standby_slots of the primary"),
                    "add it there, if this standby may be promoted",
                );
            }
        }
        None => {}
    }
    if let Some((what, fix)) = judge_copy(standby.slot(slot), slot) {
        warn(what, &fix);
    }
    if found.is_empty() {
        let what = format!("failover: standby {at} keeps slot {slot}, and can be promoted");
        found.push(CheckFinding::ok(what));
    }
    found
}

/// What is wrong with the standby's copy of the slot, and what mends it.
fn judge_copy(copy: Option<&SlotSide>, slot: &str) -> Option<(String, String)> {
    let said = |what: String, fix: &str| Some((what, fix.to_owned()));
    match copy {
        None => said(
            format!("it does not have slot {slot} yet"),
            "mend what stands above; then it comes within 30 s of walhook's next confirmation",
        ),
        Some(own) if !own.synced => Some((
            format!("it has a slot {slot} of its own"),
            format!(
                "run `SELECT pg_drop_replication_slot({});` on it: a slot of its own keeps the \
                 primary's from being copied",
                quote::literal(slot)
            ),
        )),
        Some(SlotSide { invalidated: Some(reason), .. }) => said(
            format!("its copy of slot {slot} is lost ({reason})"),
            "the standby makes it again by itself; if the reason is wal_removed, raise \
             max_slot_wal_keep_size on it",
        ),
        Some(own) if own.temporary => said(
            format!(
                "its copy of slot {slot} is not complete yet (temporary), and a promotion would drop it"
            ),
            "wait for the standby to catch up with the slot; a change of the database hurries it on",
        ),
        Some(own) if !own.failover => said(
            format!("its copy of slot {slot} is not marked for failover"),
            "start walhook once",
        ),
        Some(_) => None,
    }
}

/// Whether a connection string says which database. Its text may hold a password and is shown nowhere.
fn names_database(conninfo: &str) -> bool {
    if let Some((_, rest)) = conninfo.split_once("://") {
        let path = rest.split('?').next().unwrap_or_default();
        let has_path = path.split_once('/').is_some_and(|(_, database)| !database.is_empty());
        return has_path || rest.contains("dbname=");
    }
    let mut words = conninfo.split(|c: char| c.is_whitespace() || c == '=');
    words.any(|word| word == "dbname")
}

#[cfg(test)]
mod tests;
