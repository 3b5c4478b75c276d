//! Managed PostgreSQL: which service a server belongs to, and what its administrators do in place of
//! the usual statements, which they may not run.
//!
//! A service is recognised by the roles that it makes in each of its servers.

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
}

/// Roles that only this service makes. The first that is there counts.
const MARKS: [(&str, ManagedService); 10] = [
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
];

impl ManagedService {
    /// The names of all marks, to be looked for.
    pub fn marks() -> Vec<&'static str> {
        MARKS.iter().map(|(role, _)| *role).collect()
    }

    /// Of a server that has these roles.
    pub fn of(roles: &[String]) -> Option<Self> {
        let is_there = |(role, _): &&(&str, Self)| roles.iter().any(|there| there == role);
        MARKS.iter().find(is_there).map(|(_, service)| *service)
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
            Self::Supabase | Self::Aiven | Self::DigitalOcean | Self::Timescale => {
                "it is logical there by default: ask the service's support to set wal_level so"
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
            | Self::Timescale => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_recognised_by_its_roles() {
        let of = |roles: &[&str]| {
            ManagedService::of(&roles.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(of(&["cloudsqlsuperuser", "alloydbsuperuser"]), Some(ManagedService::AlloyDb));
        assert_eq!(of(&["rds_superuser"]), Some(ManagedService::Rds));
        assert_eq!(of(&["postgres"]), None);
        for (role, service) in MARKS {
            assert_eq!(of(&[role]), Some(service));
            assert!(!service.name().is_empty() && !service.logical_decoding().is_empty());
        }
    }
}
