//! Managed PostgreSQL: which service a server belongs to, and what its administrators do in place of
//! the usual statements, which they may not run.
//!
//! A service is recognised by the roles that it makes in each of its servers, or by its own settings.

use tokio_postgres::Client;

use crate::flow::quote::identifier;

/// Whose server it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ManagedService {
    Rds,
    AlloyDb,
    CloudSql,
    Azure,
    Supabase,
    Neon,
    Aiven,
    DigitalOcean,
    Timescale,
    PlanetScale,
}

const PLANET_SCALE: &str = "pscale_api_";

/// Roles that only this service makes. The first that is there counts.
const MARKS: [(&str, ManagedService); 11] = [
    ("rds_superuser", ManagedService::Rds),
    ("rdsadmin", ManagedService::Rds),
    // Before Cloud SQL, whose roles it may have as well.
    ("alloydbsuperuser", ManagedService::AlloyDb),
    ("cloudsqlsuperuser", ManagedService::CloudSql),
    ("azure_pg_admin", ManagedService::Azure),
    ("supabase_admin", ManagedService::Supabase),
    ("neon_superuser", ManagedService::Neon),
    ("tsdbadmin", ManagedService::Timescale),
    ("avnadmin", ManagedService::Aiven),
    ("doadmin", ManagedService::DigitalOcean),
    // The start of the names of the roles that are made in its console.
    (PLANET_SCALE, ManagedService::PlanetScale),
];

/// Settings that only this service's servers have. The first that is there counts.
const SETTINGS: [(&str, ManagedService); 6] = [
    ("rds.logical_replication", ManagedService::Rds),
    ("alloydb.logical_decoding", ManagedService::AlloyDb),
    ("cloudsql.logical_decoding", ManagedService::CloudSql),
    ("azure.extensions", ManagedService::Azure),
    ("supautils.reserved_roles", ManagedService::Supabase),
    ("neon.timeline_id", ManagedService::Neon),
];

/// Which service's marks there are: `$1` roles, `$2` settings.
pub(crate) const QUESTION: &str = "
    SELECT ARRAY(SELECT DISTINCT mark FROM unnest($1::text[]) m (mark)
                   JOIN pg_catalog.pg_roles r
                     ON r.rolname = mark OR mark LIKE '%\\_' AND starts_with(r.rolname, mark)),
           ARRAY(SELECT name FROM unnest($2::text[]) s (name)
                  WHERE pg_catalog.current_setting(name, true) IS NOT NULL)";

impl ManagedService {
    /// The names of all marks, to be looked for.
    pub fn marks() -> Vec<&'static str> {
        MARKS.iter().map(|(role, _)| *role).collect()
    }

    /// The names of all settings, to be looked for.
    pub fn settings() -> Vec<&'static str> {
        SETTINGS.iter().map(|(name, _)| *name).collect()
    }

    /// Of a server that has these roles and settings.
    pub fn of(roles: &[String], settings: &[String]) -> Option<Self> {
        let first = |marks: &[(&str, Self)], there: &[String]| {
            let mut marks = marks.iter();
            let found = marks.find(|(mark, _)| there.iter().any(|name| name == mark));
            found.map(|(_, service)| *service)
        };
        first(&MARKS, roles).or_else(|| first(&SETTINGS, settings))
    }

    /// Asks a server.
    ///
    /// # Errors
    /// As the connection: every role may ask this.
    pub async fn ask(client: &Client) -> Result<Option<Self>, tokio_postgres::Error> {
        let row = client.query_one(QUESTION, &[&Self::marks(), &Self::settings()]).await?;
        let (roles, settings): (Vec<String>, Vec<String>) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Self::of(&roles, &settings))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Rds => "Amazon RDS or Aurora",
            Self::AlloyDb => "AlloyDB",
            Self::CloudSql => "Cloud SQL",
            Self::Azure => "Azure Database",
            Self::Supabase => "Supabase",
            Self::Neon => "Neon",
            Self::Aiven => "Aiven",
            Self::DigitalOcean => "DigitalOcean",
            Self::Timescale => "Timescale",
            Self::PlanetScale => "PlanetScale",
        }
    }

    /// How its servers get `wal_level = logical`, which no SQL does there.
    pub fn logical_decoding(self) -> &'static str {
        match self {
            Self::Rds => {
                "set rds.logical_replication = 1 in the server's parameter group (of Aurora: in the \
                 cluster's), then reboot it"
            }
            Self::AlloyDb => {
                "set the flag alloydb.logical_decoding to on, then restart the instance"
            }
            Self::CloudSql => {
                "set the flag cloudsql.logical_decoding to on, then restart the instance"
            }
            Self::Azure => "set the server parameter wal_level to logical, then restart the server",
            Self::Neon => "switch on logical replication in the project's settings",
            Self::PlanetScale => {
                "set the cluster parameter wal_level to logical, which restarts the cluster"
            }
            Self::Supabase | Self::Aiven | Self::DigitalOcean | Self::Timescale => {
                "it is logical there by default: ask the service's support to set wal_level so"
            }
        }
    }

    /// How a role gets the right to replicate there, which no superuser of one's own can give.
    pub fn replication_right(self, role: &str) -> String {
        let role = identifier(role);
        match self {
            Self::Rds => format!("run `GRANT rds_replication TO {role};` as the master user"),
            Self::Neon => String::from(
                "make the role in Neon's console, CLI or API: a role that SQL makes may not replicate",
            ),
            Self::Supabase => format!("run `ALTER ROLE {role} REPLICATION;` as postgres"),
            Self::Aiven => format!("run `ALTER ROLE {role} REPLICATION;` as avnadmin"),
            Self::DigitalOcean => format!("run `ALTER ROLE {role} REPLICATION;` as doadmin"),
            Self::Timescale => format!("run `ALTER ROLE {role} REPLICATION;` as tsdbadmin"),
            Self::AlloyDb | Self::CloudSql | Self::Azure | Self::PlanetScale => {
                format!(
                    "run `ALTER ROLE {role} REPLICATION;` as the administrator that it gave you"
                )
            }
        }
    }

    /// What else has to be known there: addresses, poolers, slots that nobody reads.
    pub fn notes(self) -> &'static str {
        match self {
            Self::Rds => {
                "take the address of the instance or cluster, not of RDS Proxy, which carries no replication; \
                 a slot that nobody reads fills the storage: set max_slot_wal_keep_size"
            }
            Self::AlloyDb | Self::CloudSql => {
                "take the instance's address, not that of managed connection pooling; a slot that nobody reads \
                 fills the storage: set max_slot_wal_keep_size"
            }
            Self::Azure => {
                "take port 5432, not that of the built-in PgBouncer (6432); a server whose storage a slot has \
                 filled becomes read-only"
            }
            Self::Supabase => {
                "take the direct address (db.PROJECT.supabase.co), which is IPv6 unless you have the IPv4 add-on; \
                 the pooler carries no replication"
            }
            Self::Neon => {
                "take the address without -pooler; a slot that nobody reads is removed after about 40 hours, and a \
                 branch that is restored has none; a compute does not scale to zero while walhook reads"
            }
            Self::Aiven | Self::DigitalOcean | Self::Timescale => {
                "take the address of the service itself, not of a connection pool, which has a port of its own; a \
                 slot that nobody reads fills the storage"
            }
            Self::PlanetScale => {
                "set [postgres] failover = true, since switch-overs drop other slots; take port 5432, not that of \
                 PgBouncer (6432)"
            }
        }
    }

    /// Why a role cannot be made by SQL, if it cannot: what to do.
    pub fn role_by_hand(self) -> Option<&'static str> {
        match self {
            Self::Neon => Some(
                "make it in Neon's console, CLI or API: a role that SQL makes may not replicate",
            ),
            Self::Rds
            | Self::AlloyDb
            | Self::CloudSql
            | Self::Azure
            | Self::Supabase
            | Self::Aiven
            | Self::DigitalOcean
            | Self::Timescale
            | Self::PlanetScale => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_recognised_by_its_roles() {
        let of = |roles: &[&str]| {
            ManagedService::of(&roles.iter().map(ToString::to_string).collect::<Vec<_>>(), &[])
        };
        assert_eq!(of(&["cloudsqlsuperuser", "alloydbsuperuser"]), Some(ManagedService::AlloyDb));
        assert_eq!(of(&["rds_superuser"]), Some(ManagedService::Rds));
        assert_eq!(of(&["postgres"]), None);
        for (role, service) in MARKS {
            assert_eq!(of(&[role]), Some(service));
            assert!(!service.name().is_empty() && !service.logical_decoding().is_empty());
            assert!(!service.notes().is_empty());
            assert!(!service.replication_right("app").is_empty());
        }
        for (setting, service) in SETTINGS {
            assert_eq!(ManagedService::of(&[], &[setting.to_owned()]), Some(service));
        }
    }
}
