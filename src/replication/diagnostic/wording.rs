//! The words of each diagnostic: what is wrong, and the way out.

use crate::flow::quote::identifier;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::gap::dated;

impl SetupDiagnostic {
    /// What is wrong, without the way out.
    #[expect(clippy::too_many_lines, reason = "one arm per refusal, nothing else")]
    pub fn what(&self) -> String {
        match self {
            Self::ServerTooOld { version } => format!("PostgreSQL {version} is too old"),
            Self::Standby { version } => {
                format!("the server is a standby, and PostgreSQL {version} cannot decode there")
            }
            Self::NoFailover { standby: true, .. } => {
                "the server is a standby, where no slot can be made that other standbys keep \
                 ([postgres] failover)"
                    .to_owned()
            }
            Self::NoFailover { version, .. } => format!(
                "PostgreSQL {version} has no slots that standbys keep ([postgres] failover): they came \
                 with 17"
            ),
            Self::WalLevel { level, .. } => format!("wal_level is {level}, not logical"),
            Self::NoReplicationRight { role, .. } => format!("role {role} may not replicate"),
            Self::NoFreeWalSender { max: Some(max) } => {
                format!("all {max} walsenders are in use (max_wal_senders)")
            }
            Self::NoFreeWalSender { max: None } => {
                "PostgreSQL has no free walsender or connection".to_owned()
            }
            Self::NoFreeSlot { max } => {
                format!("all {max} replication slots are in use (max_replication_slots)")
            }
            Self::NoUsage { schema, role } => format!("role {role} may not use schema {schema}"),
            Self::NoSelect { table, role } => format!("role {role} may not read table {table}"),
            Self::MissingTable { table, .. } => format!("table {table} does not exist"),
            Self::NotATable { table, kind } => format!("{table} is {kind}, not a table"),
            Self::NotLogged { table, temporary } => {
                let kind = if *temporary { "temporary" } else { "unlogged" };
                format!("table {table} is {kind}: its changes are not in the WAL")
            }
            Self::MissingColumn { table, column, .. } => {
                format!("table {table} has no column {column}")
            }
            Self::NoIdentity { table } => format!(
                "table {table} has no replica identity: publishing its updates and deletes would \
                 make them fail"
            ),
            Self::Schema(fault) => fault.what(),
            Self::NoPublication { publication, role, .. } => {
                format!("publication {publication} does not exist and role {role} may not make it")
            }
            Self::NotPrepared { publication, .. } => {
                format!("publication {publication} is missing or does not publish all tables")
            }
            Self::NeedsOldRow { event, key, table, .. } => format!(
                "`{key}` of event {event} needs values of the old row that are not sent of {table}"
            ),
            Self::EndpointLacks { whose, key, what, .. } => format!("`{key}` of {whose} {what}"),
            Self::EndpointsTable { table, what, .. } => {
                format!("the endpoints in {table} cannot be read: {what}")
            }
            Self::CallbackTable { source, what, .. } => {
                format!("callbacks of source {source} cannot be kept: {what}")
            }
            Self::Backfill { whose, what, .. } => {
                format!("rows for a backfill of {whose} cannot be read: {what}")
            }
            Self::WriteBack { event, what, .. } => {
                format!("the write-back of event {event} would be refused: {what}")
            }
            Self::RowSecurity { whose, what, role } => {
                format!("row-level security hides rows of {whose} from role {role}: {what}")
            }
            Self::NoState { role, .. } => {
                format!("role {role} may not make walhook's own tables (schema walhook)")
            }
            Self::PublicationLacks { publication, lacks, .. } => {
                format!("publication {publication} lacks {lacks}")
            }
            Self::PublicationGone { publication, slot, from, since, .. } => {
                let after = from
                    .map(|from| format!(": changes after {} cannot be read", dated(from, *since)));
                format!(
                    "publication {publication} does not exist where slot {slot} stands in the \
                     WAL{}",
                    after.unwrap_or_default()
                )
            }
            Self::WrongPlugin { slot, plugin } => {
                format!("slot {slot} uses {plugin}, not the plugin pgoutput")
            }
            Self::SlotElsewhere { slot, database } => {
                format!("slot {slot} belongs to database {database}")
            }
            Self::SlotInUse { slot, pid } => match pid {
                Some(pid) => format!("slot {slot} is in use by the server process {pid}"),
                None => format!("slot {slot} is in use"),
            },
            Self::SlotBlocked { slot } => {
                format!("slot {slot} cannot be made while older transactions are running")
            }
            Self::SlotLost { slot, confirmed, since, reason } => {
                let after = dated(*confirmed, *since);
                format!("slot {slot} is lost ({reason}) and so are the changes after {after}")
            }
            Self::SlotMissing { slot } => format!("slot {slot} does not exist"),
            Self::Gap(gap) => gap.what(),
            Self::SlotOfOther { slot, theirs, ours, holder } => format!(
                "slot {slot} belongs to another system: it is read for {theirs} ({holder}), and \
                 this configuration has {ours}"
            ),
            Self::PublicationOfOther { publication, slot, theirs } => format!(
                "publication {publication} belongs to another system, which reads it through slot \
                 {slot}{theirs}, and it lacks what this configuration needs"
            ),
            Self::OtherPublication { publication, slot, known } => format!(
                "slot {slot} was read through publication {known}, which is still there, and the \
                 configuration names {publication}: nothing is lost"
            ),
            Self::OtherSystem { expected, found, from, to } => {
                let after = from.map(|from| format!(": its changes after {from} may be lost"));
                let here = to.map(|to| format!("; the slot of this one stands at {to}"));
                format!(
                    "the server is another database system ({found}) than the one before \
                     ({expected}){}{}",
                    after.unwrap_or_default(),
                    here.unwrap_or_default()
                )
            }
        }
    }

    /// What to do: a setting, or SQL.
    #[expect(clippy::too_many_lines, reason = "one arm per refusal, nothing else")]
    pub fn fix(&self) -> String {
        match self {
            Self::ServerTooOld { .. } => "upgrade to PostgreSQL 14 or later".to_owned(),
            Self::Standby { .. } => {
                "connect to the primary (several hosts and target_session_attrs=read-write find it)"
                    .to_owned()
            }
            Self::NoFailover { standby: true, .. } => {
                "connect to the primary: name all hosts in [postgres] url, with \
                 target_session_attrs=read-write"
                    .to_owned()
            }
            Self::NoFailover { .. } => {
                "set failover = false, and expect a gap after a promotion, or upgrade to PostgreSQL \
                 17 or later"
                    .to_owned()
            }
            Self::WalLevel { service: Some(service), .. } => {
                format!("on {}: {}", service.name(), service.logical_decoding())
            }
            Self::WalLevel { .. } => {
                "run `ALTER SYSTEM SET wal_level = logical;` and restart PostgreSQL (RDS, Aurora: \
                 rds.logical_replication = 1 in the parameter group; Cloud SQL: flag \
                 cloudsql.logical_decoding; AlloyDB: alloydb.logical_decoding; Azure: server \
                 parameter wal_level)"
                    .to_owned()
            }
            Self::NoReplicationRight { role, service: Some(service) } => {
                format!("on {}: {}", service.name(), service.replication_right(role))
            }
            Self::NoReplicationRight { role, .. } => format!(
                "run `ALTER ROLE {} REPLICATION;` as a superuser (on RDS: `GRANT rds_replication \
                 TO {};`)",
                identifier(role),
                identifier(role)
            ),
            Self::NoFreeWalSender { max: Some(max) } => format!(
                "end one, or run `ALTER SYSTEM SET max_wal_senders = {};` and restart PostgreSQL",
                max.saturating_add(5)
            ),
            Self::NoFreeWalSender { max: None } => {
                "end some, or raise max_wal_senders or max_connections and restart PostgreSQL"
                    .to_owned()
            }
            Self::NoFreeSlot { max } => format!(
                "drop one that nobody uses (see pg_replication_slots), or run `ALTER SYSTEM SET \
                 max_replication_slots = {};` and restart PostgreSQL",
                max.saturating_add(5)
            ),
            Self::NoUsage { schema, role } => {
                format!(
                    "run `GRANT USAGE ON SCHEMA {} TO {};`",
                    identifier(schema),
                    identifier(role)
                )
            }
            Self::NoSelect { table, role } => {
                format!("run `GRANT SELECT ON {} TO {};`", table.quoted(), identifier(role))
            }
            Self::MissingTable { nearest, named_in, .. } => match nearest {
                Some(nearest) => format!("did you mean {nearest}? {named_in} names it"),
                None => format!("create it, or correct {named_in}, which names it"),
            },
            Self::NotATable { .. } => "name an ordinary or a partitioned table".to_owned(),
            Self::NotLogged { table, temporary: false } => {
                format!("run `ALTER TABLE {} SET LOGGED;`", table.quoted())
            }
            Self::NotLogged { temporary: true, .. } => "name a permanent table".to_owned(),
            Self::MissingColumn { nearest, named_in, .. } => match nearest {
                Some(nearest) => format!("did you mean {nearest}? {named_in} names it"),
                None => format!("add it, or correct {named_in}, which names it"),
            },
            Self::NoIdentity { table } => format!(
                "give it a primary key, or run `ALTER TABLE {} REPLICA IDENTITY FULL;`",
                table.quoted()
            ),
            Self::Schema(fault) => fault.fix(),
            Self::NoPublication { sql, .. } | Self::PublicationLacks { sql, .. } => {
                format!("run `{sql}` as a superuser or as the owner")
            }
            Self::NotPrepared { sql, .. } => {
                format!("start `walhook run` once, which mends it, or run `{sql}`")
            }
            Self::NeedsOldRow { sql, .. } => format!("run `{sql}` as the owner of the table"),
            Self::EndpointLacks { fix, .. } => fix.clone(),
            Self::EndpointsTable { fix, .. }
            | Self::WriteBack { fix, .. }
            | Self::CallbackTable { fix, .. }
            | Self::Backfill { fix, .. } => fix.clone(),
            Self::RowSecurity { role, .. } => format!(
                "run `ALTER ROLE {} BYPASSRLS;` as a superuser, or log in as the owner of the table, \
                 where that is not under FORCE ROW LEVEL SECURITY",
                identifier(role)
            ),
            Self::NoState { sql, .. } => {
                format!("run `{sql}` as an administrator, in the database of [state] url")
            }
            Self::PublicationGone { nearest: Some(nearest), .. } => {
                format!("did you mean {nearest}? Correct [postgres] publication")
            }
            Self::PublicationGone { .. } => String::from(
                "`walhook run --accept-gap` makes the slot again; what it had not delivered yet is \
                 lost, and has to be sent from the tables: `walhook backfill TABLE`",
            ),
            Self::WrongPlugin { .. } | Self::SlotElsewhere { .. } => {
                "choose another slot name in [postgres] slot".to_owned()
            }
            Self::SlotInUse { pid, .. } => match pid {
                Some(pid) => format!(
                    "stop the other walhook or choose another slot name; \
                     `SELECT pg_terminate_backend({pid});` ends a holder that hangs"
                ),
                None => "stop the other walhook or choose another slot name".to_owned(),
            },
            Self::SlotBlocked { .. } => {
                "wait for them, or end them: `SELECT pid, xact_start, query FROM pg_stat_activity \
                 WHERE backend_xid IS NOT NULL OR backend_xmin IS NOT NULL ORDER BY xact_start;`"
                    .to_owned()
            }
            Self::SlotLost { reason, .. } if reason == "idle_timeout" => String::from(
                "`walhook run --accept-gap` makes the slot again; `walhook backfill TABLE` sends what \
                 the tables hold; a larger idle_replication_slot_timeout, or 0, prevents it",
            ),
            Self::SlotLost { .. } => String::from(
                "`walhook run --accept-gap` makes the slot again; `walhook backfill TABLE` sends what \
                 the tables hold; a larger max_slot_wal_keep_size prevents it",
            ),
            Self::SlotMissing { .. } => {
                "start walhook, which makes it; what changed since it vanished is lost".to_owned()
            }
            Self::Gap(gap) => gap.fix(),
            Self::SlotOfOther { .. } => String::from(
                "give each system a slot and a publication of its own: [postgres] slot and \
                 publication; if this is the same system with other tables, `walhook run \
                 --take-slot` takes the slot over",
            ),
            Self::PublicationOfOther { .. } => {
                String::from("give this configuration one of its own: [postgres] publication")
            }
            Self::OtherPublication { known, .. } => format!(
                "set [postgres] publication = {known:?}; another publication on purpose goes with \
                 another [postgres] slot"
            ),
            Self::OtherSystem { .. } => {
                "correct [postgres] url, or follow the new one with `walhook run --accept-gap`"
                    .to_owned()
            }
        }
    }
}
