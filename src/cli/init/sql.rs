//! What an administrator still has to run, as a script. Pure.

use std::collections::BTreeSet;
use std::fmt;

use crate::cli::init::survey::DatabaseSurvey;
use crate::cli::init::survey::StateSchema;
use crate::cli::init::survey::SurveyedTable;
use crate::cli::terminal::visible;
use crate::flow::quote::identifier;
use crate::flow::relation::TableName;
use crate::replication::managed_service::ManagedService;

/// The first version that publishes stored generated columns.
const GENERATED_SINCE: i64 = 180_000;

/// One statement and the reason for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AdminStatement {
    pub why: String,
    /// Without the semicolon; empty for a step that no SQL does.
    pub sql: String,
}

impl fmt::Display for AdminStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sql.is_empty() {
            return write!(f, "-- {}", visible(&self.why));
        }
        // A name that holds a line break would otherwise end the comment and be run.
        write!(f, "-- {}\n{};", visible(&self.why), self.sql)
    }
}

/// The statements that are missing for `tables`, in the order in which they have to run; none if
/// the role can do, or has, everything.
pub(crate) fn statements(
    survey: &DatabaseSurvey,
    tables: &[&SurveyedTable],
    publication: &str,
) -> Vec<AdminStatement> {
    let mut all = Vec::new();
    let mut add = |why: &str, sql: String| all.push(AdminStatement { why: why.to_owned(), sql });
    if survey.wal_level != "logical"
        && let Some(service) = survey.service
    {
        let what = format!("wal_level is {}: {}", survey.wal_level, service.logical_decoding());
        add(&what, String::new());
    } else if survey.wal_level != "logical" {
        add(
            "Logical decoding needs it. Then RESTART the server: it has no effect before",
            "ALTER SYSTEM SET wal_level = 'logical'".to_owned(),
        );
    }
    role(survey, &mut add);
    grants(survey, tables, &mut add);
    for name in tables.iter().filter(|table| may_be_full(survey, table)).flat_map(|t| bare(t)) {
        add(
            "Without a primary key that is valid, not deferrable and, before PostgreSQL 18, not generated, \
             updates and deletes of a published table are refused or do not say which row they are of, \
             unless the whole old row identifies it",
            format!("ALTER TABLE {} REPLICA IDENTITY FULL", name.quoted()),
        );
    }
    publish(survey, tables, publication, &mut add);
    all
}

/// Tables whose rows the server cannot name.
fn bare(table: &SurveyedTable) -> impl Iterator<Item = &TableName> {
    let itself = (!table.identified).then_some(&table.name);
    itself.into_iter().chain(&table.unidentified)
}

/// A virtual column can be in no replica identity of a published table.
fn may_be_full(survey: &DatabaseSurvey, table: &SurveyedTable) -> bool {
    let (_, is_virtual) = table.generated;
    !(is_virtual && survey.version >= GENERATED_SINCE)
}

fn role(survey: &DatabaseSurvey, add: &mut impl FnMut(&str, String)) {
    let role = &survey.role;
    let name = identifier(&role.name);
    let replicates = role.replication || role.superuser;
    let by_hand = survey.service.and_then(ManagedService::role_by_hand);
    // A role of the service stands for the attribute, which only its own superuser could give.
    let group = survey.replication_group.as_deref().map(identifier);
    if let Some(how) = by_hand.filter(|_| !role.exists || !replicates) {
        add(&format!("Role {} and its right to replicate: {how}", role.name), String::new());
        return;
    }
    if !role.exists {
        let attribute = if group.is_some() { "" } else { " REPLICATION" };
        add(
            "The role that walhook connects as. Give it a password with psql's \\password",
            format!("CREATE ROLE {name} LOGIN{attribute}"),
        );
    } else if !role.login {
        add("To log in", format!("ALTER ROLE {name} LOGIN"));
    }
    match group {
        Some(group) if !replicates => {
            add("To read the replication stream", format!("GRANT {group} TO {name}"));
        }
        None if role.exists && !replicates => {
            add("To read the replication stream", format!("ALTER ROLE {name} REPLICATION"));
        }
        _ => {}
    }
}

fn grants(survey: &DatabaseSurvey, tables: &[&SurveyedTable], add: &mut impl FnMut(&str, String)) {
    let role = &survey.role;
    let name = identifier(&role.name);
    if role.superuser {
        return;
    }
    if !role.connect {
        let database = identifier(&survey.database);
        add("To connect", format!("GRANT CONNECT ON DATABASE {database} TO {name}"));
    }
    let own = "For walhook's own tables: progress, what waits, dead letters, the push log";
    match &survey.state {
        StateSchema::Missing if role.create => {}
        // Who is no superuser may not make a schema for a role that he is not a member of.
        StateSchema::Missing if survey.service.is_some() => {
            add(own, "CREATE SCHEMA IF NOT EXISTS walhook".to_owned());
            add("To use it", format!("GRANT USAGE, CREATE ON SCHEMA walhook TO {name}"));
        }
        StateSchema::Missing => add(own, format!("CREATE SCHEMA walhook AUTHORIZATION {name}")),
        StateSchema::There { tables_of: Some(owner) } => add(
            "walhook's own tables are there, and another role's: they get partitions each day",
            format!("GRANT {} TO {name}", identifier(owner)),
        ),
        StateSchema::There { .. } if role.keeps_state => {}
        StateSchema::There { .. } => {
            add(own, format!("GRANT USAGE, CREATE ON SCHEMA walhook TO {name}"));
        }
    }
    let schemas: BTreeSet<String> = tables
        .iter()
        .filter(|table| !table.schema_usable)
        .map(|table| identifier(&table.name.schema))
        .collect();
    if !schemas.is_empty() {
        let schemas = Vec::from_iter(schemas).join(", ");
        add("To see the tables", format!("GRANT USAGE ON SCHEMA {schemas} TO {name}"));
    }
    let unreadable = list(tables.iter().filter(|table| !table.selectable));
    if !unreadable.is_empty() {
        add("To read the rows", format!("GRANT SELECT ON TABLE {unreadable} TO {name}"));
    }
}

fn publish(
    survey: &DatabaseSurvey,
    tables: &[&SurveyedTable],
    publication: &str,
    add: &mut impl FnMut(&str, String),
) {
    let role = &survey.role;
    let by_itself = role.superuser || (role.create && tables.iter().all(|table| table.owned));
    let name = identifier(publication);
    match &survey.publication {
        // walhook creates it when it starts.
        None if by_itself => {}
        None => {
            // Changes of a partition are then changes of the table that the configuration names.
            let mut options = Vec::new();
            if tables.iter().any(|table| table.partitioned) {
                options.push("publish_via_partition_root = true");
            }
            if survey.version >= GENERATED_SINCE {
                options.push("publish_generated_columns = stored");
            }
            // Updates that are not published need no identity.
            let mut fit = tables.iter().map(|t| may_be_full(survey, t) || bare(t).next().is_none());
            if !fit.all(|fit| fit) {
                options.push("publish = 'insert, truncate'");
            }
            let options = match options.as_slice() {
                [] => String::new(),
                options => format!(" WITH ({})", options.join(", ")),
            };
            let tables = published(tables.iter());
            add(
                "Only the owner of the tables can publish them",
                format!("CREATE PUBLICATION {name} FOR TABLE {tables}{options}"),
            );
        }
        Some(existing) if existing.all_tables => {}
        Some(_) => {
            let missing = published(tables.iter().filter(|table| !table.published));
            if !missing.is_empty() {
                add(
                    "The publication is there and lacks some tables",
                    format!("ALTER PUBLICATION {name} ADD TABLE {missing}"),
                );
            }
        }
    }
}

fn list<'a>(tables: impl Iterator<Item = &'a &'a SurveyedTable>) -> String {
    let names: Vec<String> = tables.map(|table| TableName::quoted(&table.name)).collect();
    names.join(", ")
}

/// As a publication names them: without the tables that inherit from them.
fn published<'a>(tables: impl Iterator<Item = &'a &'a SurveyedTable>) -> String {
    let one = |table: &&SurveyedTable| match table.inherited {
        true => format!("ONLY {}", table.name.quoted()),
        false => table.name.quoted(),
    };
    let names: Vec<String> = tables.map(one).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::survey::SurveyedPublication;
    use crate::cli::init::survey::SurveyedRole;
    use crate::flow::relation::ReplicaIdentity;

    fn table(name: &str) -> SurveyedTable {
        SurveyedTable {
            name: TableName::new("public", name),
            key: vec!["id".to_owned()],
            identity: ReplicaIdentity::Default,
            identified: true,
            partitioned: false,
            inherited: false,
            generated: (false, false),
            unidentified: Vec::new(),
            rows: None,
            published: false,
            owned: false,
            selectable: false,
            schema_usable: false,
        }
    }

    fn bare() -> DatabaseSurvey {
        DatabaseSurvey {
            database: "app".to_owned(),
            wal_level: "replica".to_owned(),
            version: 150_000,
            role: SurveyedRole { name: "walhook".to_owned(), ..SurveyedRole::default() },
            publication: None,
            service: None,
            replication_group: None,
            state: StateSchema::Missing,
            tables: Vec::new(),
            others: Vec::new(),
        }
    }

    fn sql(survey: &DatabaseSurvey, tables: &[&SurveyedTable]) -> Vec<String> {
        statements(survey, tables, "walhook").into_iter().map(|one| one.sql).collect()
    }

    #[test]
    fn a_bare_database_needs_everything_in_order() {
        let keyless = SurveyedTable { key: Vec::new(), identified: false, ..table("log") };
        assert_eq!(
            sql(&bare(), &[&table("orders"), &keyless]),
            [
                "ALTER SYSTEM SET wal_level = 'logical'",
                "CREATE ROLE \"walhook\" LOGIN REPLICATION",
                "GRANT CONNECT ON DATABASE \"app\" TO \"walhook\"",
                "CREATE SCHEMA walhook AUTHORIZATION \"walhook\"",
                "GRANT USAGE ON SCHEMA \"public\" TO \"walhook\"",
                "GRANT SELECT ON TABLE \"public\".\"orders\", \"public\".\"log\" TO \"walhook\"",
                "ALTER TABLE \"public\".\"log\" REPLICA IDENTITY FULL",
                "CREATE PUBLICATION \"walhook\" FOR TABLE \"public\".\"orders\", \"public\".\"log\"",
            ]
        );
    }

    #[test]
    fn what_is_there_already_is_not_asked_for() {
        let ready = SurveyedTable { selectable: true, schema_usable: true, ..table("orders") };
        let mut survey = bare();
        survey.wal_level = "logical".to_owned();
        survey.role = SurveyedRole {
            exists: true,
            login: true,
            replication: true,
            connect: true,
            keeps_state: true,
            ..survey.role.clone()
        };
        survey.state = StateSchema::There { tables_of: None };
        survey.publication = Some(SurveyedPublication { all_tables: false });
        assert_eq!(
            sql(&survey, &[&ready]),
            ["ALTER PUBLICATION \"walhook\" ADD TABLE \"public\".\"orders\"",]
        );
        survey.publication = Some(SurveyedPublication { all_tables: true });
        assert!(sql(&survey, &[&ready]).is_empty());
    }

    #[test]
    fn a_schema_that_is_there_is_not_made_again() {
        let mut survey = bare();
        survey.state = StateSchema::There { tables_of: None };
        let text = sql(&survey, &[]).join("\n");
        assert!(text.contains("GRANT USAGE, CREATE ON SCHEMA walhook TO \"walhook\""), "{text}");
        survey.state = StateSchema::There { tables_of: Some("old".to_owned()) };
        let text = sql(&survey, &[]).join("\n");
        assert!(
            text.contains("GRANT \"old\" TO \"walhook\"") && !text.contains("SCHEMA"),
            "{text}"
        );
    }

    #[test]
    fn a_service_has_steps_of_its_own() {
        let survey = DatabaseSurvey {
            service: Some(ManagedService::Rds),
            replication_group: Some("rds_replication".to_owned()),
            ..bare()
        };
        let all = statements(&survey, &[&table("orders")], "walhook");
        let text: Vec<String> = all.iter().map(ToString::to_string).collect();
        let text = text.join("\n");
        for part in [
            "-- wal_level is replica: set rds.logical_replication = 1",
            "CREATE ROLE \"walhook\" LOGIN;",
            "GRANT \"rds_replication\" TO \"walhook\";",
            "CREATE SCHEMA IF NOT EXISTS walhook;",
            "GRANT USAGE, CREATE ON SCHEMA walhook TO \"walhook\";",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("ALTER SYSTEM") && !text.contains("REPLICATION;"), "{text}");
        let neon = DatabaseSurvey { service: Some(ManagedService::Neon), ..bare() };
        let text = sql(&neon, &[]).join("\n");
        assert!(!text.contains("ROLE"), "{text}");
    }

    #[test]
    fn who_may_publish_is_left_to_do_so() {
        let mut survey = bare();
        survey.wal_level = "logical".to_owned();
        survey.role =
            SurveyedRole { exists: true, login: true, superuser: true, ..survey.role.clone() };
        assert!(sql(&survey, &[&table("orders")]).is_empty());
    }

    #[test]
    fn a_partitioned_table_is_published_under_its_own_name() {
        let parted = SurveyedTable { partitioned: true, ..table("orders") };
        let last = sql(&bare(), &[&parted]).pop().unwrap();
        assert!(last.ends_with("WITH (publish_via_partition_root = true)"), "{last}");
    }

    #[test]
    fn nothing_is_published_that_makes_writes_fail() {
        let inherited = SurveyedTable { inherited: true, ..table("orders") };
        let last = sql(&bare(), &[&inherited]).pop().unwrap();
        assert!(last.ends_with("FOR TABLE ONLY \"public\".\"orders\""), "{last}");
        let newer = DatabaseSurvey { version: 180_000, ..bare() };
        let stored = SurveyedTable { generated: (true, false), identified: false, ..table("log") };
        let [.., full, publish] = &sql(&newer, &[&stored])[..] else { panic!() };
        assert!(full.ends_with("\"log\" REPLICA IDENTITY FULL"), "{full}");
        assert!(publish.ends_with("WITH (publish_generated_columns = stored)"), "{publish}");
        let virtual_column = SurveyedTable { generated: (false, true), ..stored };
        let all = sql(&newer, &[&virtual_column]).join(";");
        assert!(!all.contains("FULL") && all.contains("publish = 'insert, truncate'"), "{all}");
    }

    #[test]
    fn a_hostile_name_stays_inside_its_quotes_and_comments() {
        let survey = DatabaseSurvey { database: "a\"; DROP TABLE x; --".to_owned(), ..bare() };
        let text = sql(&survey, &[]).join("\n");
        assert!(text.contains("DATABASE \"a\"\"; DROP TABLE x; --\" TO"), "{text}");
        let comment =
            AdminStatement { why: "a\nDROP TABLE x".to_owned(), sql: "SELECT 1".to_owned() };
        assert_eq!(comment.to_string().lines().count(), 2);
    }
}
