//! What `init` has to know of a database: asked in four queries, changed in nothing.

use tokio_postgres::Client;
use tokio_postgres::Row;

use crate::flow::quote::identifier;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::TableName;
use crate::replication::managed_service::ManagedService;

/// The state of a database, as far as walhook's set-up depends on it.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseSurvey {
    pub database: String,
    pub wal_level: String,
    /// `server_version_num`.
    pub version: i64,
    pub role: SurveyedRole,
    /// `None` if there is no publication of the name asked for.
    pub publication: Option<SurveyedPublication>,
    /// `None` for a server of one's own.
    pub service: Option<ManagedService>,
    /// The role of the service whose members may replicate, if there is one.
    pub replication_group: Option<String>,
    pub state: StateSchema,
    /// Every table that could be captured, by name.
    pub tables: Vec<SurveyedTable>,
    /// What has rows, and cannot be captured.
    pub others: Vec<OtherRelation>,
}

/// Schema `walhook`, where walhook keeps its own tables.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum StateSchema {
    Missing,
    There {
        /// Another role whose tables are in it, and which this role is not a member of.
        tables_of: Option<String>,
    },
}

/// A relation that is not captured.
#[derive(Clone, Debug)]
pub(crate) struct OtherRelation {
    pub name: TableName,
    pub kind: RelationKind,
}

/// What such a relation is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum RelationKind {
    View,
    MaterializedView,
    ForeignTable,
    /// PostgreSQL writes no WAL for it.
    Unlogged,
    /// Of this table, which is captured as a whole.
    Partition(TableName),
}

/// The role that walhook is to connect as.
#[derive(Clone, Debug, Default)]
pub(crate) struct SurveyedRole {
    pub name: String,
    pub exists: bool,
    pub superuser: bool,
    pub login: bool,
    /// By itself, or as a member of the service's role for it.
    pub replication: bool,
    /// May connect to this database.
    pub connect: bool,
    /// May create objects in this database; publications and schemas are such.
    pub create: bool,
    /// May make tables in schema `walhook`, which is there.
    pub keeps_state: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct SurveyedPublication {
    pub all_tables: bool,
}

/// An ordinary or partitioned table.
#[derive(Clone, Debug)]
pub(crate) struct SurveyedTable {
    pub name: TableName,
    /// The primary key's columns in order; empty if there is none.
    pub key: Vec<String>,
    pub identity: ReplicaIdentity,
    /// The server can name a row of it that is updated or deleted; of a partitioned table, it is a
    /// matter of the partitions alone.
    pub identified: bool,
    pub partitioned: bool,
    /// Other tables inherit from it.
    pub inherited: bool,
    /// Has columns that are generated: stored, virtual.
    pub generated: (bool, bool),
    /// Partitions whose rows PostgreSQL cannot name when they are updated or deleted: it is they
    /// that count, and not the table.
    pub unidentified: Vec<TableName>,
    /// Rows as the planner estimates them; `None` before the first ANALYZE.
    pub rows: Option<f64>,
    pub published: bool,
    /// The role owns it, itself or as a member of the owner.
    pub owned: bool,
    pub selectable: bool,
    pub schema_usable: bool,
}

impl OtherRelation {
    /// Why it is not captured.
    pub(crate) fn why(&self) -> String {
        match &self.kind {
            kind @ RelationKind::Partition(_) => {
                format!("is {kind}, which is captured as a whole: give that")
            }
            kind => format!("is {kind}, which has no changes in the WAL"),
        }
    }

    /// As [`SurveyedTable::is_called`].
    pub(crate) fn is_called(&self, name: &str) -> bool {
        is_called(&self.name, name)
    }
}

impl std::fmt::Display for RelationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::View => f.write_str("a view"),
            Self::MaterializedView => f.write_str("a materialized view"),
            Self::ForeignTable => f.write_str("a foreign table"),
            Self::Unlogged => f.write_str("unlogged"),
            Self::Partition(of) => write!(f, "a partition of {of}"),
        }
    }
}

impl SurveyedTable {
    /// Whether a command line means this table by `name`: as the configuration writes it, as SQL
    /// does, or without any quotes; a table in `public` without its schema, too.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        is_called(&self.name, name)
    }

    /// The name as the configuration writes it: `schema.table`, and a part with other characters
    /// than letters, digits, `_`, `$` and `-` in double quotes.
    pub(crate) fn written(&self) -> String {
        let TableName { schema, name } = &self.name;
        format!("{}.{}", written(schema), written(name))
    }
}

const SERVER: &str = "
SELECT current_database()::text, current_setting('wal_level'), current_user::text,
       current_setting('server_version_num')::int8";

const ROLE: &str = "
SELECT r.rolname IS NOT NULL, coalesce(r.rolsuper, false), coalesce(r.rolreplication, false),
       coalesce(has_database_privilege(r.oid, current_database(), 'CONNECT'), false),
       coalesce(has_database_privilege(r.oid, current_database(), 'CREATE'), false),
       p.puballtables,
       coalesce(has_schema_privilege(r.oid, to_regnamespace('walhook'), 'CREATE'), false),
       coalesce(r.rolcanlogin, false), g.rolname::text,
       coalesce(pg_has_role(r.oid, g.oid, 'MEMBER'), false), to_regnamespace('walhook') IS NOT NULL,
       (SELECT pg_get_userbyid(min(c.relowner::bigint)::oid)::text FROM pg_class c
         WHERE c.relnamespace = to_regnamespace('walhook') AND c.relkind IN ('r', 'p')
           AND (r.oid IS NULL OR NOT pg_has_role(r.oid, c.relowner, 'USAGE')))
FROM (VALUES (1)) AS one
LEFT JOIN pg_roles g ON g.rolname = 'rds_replication'
LEFT JOIN pg_roles r ON r.rolname = $1::text
LEFT JOIN pg_publication p ON p.pubname = $2::text";

/// Whether relation `OF` has an identity that the server names rows by, as in `replication::catalog`, and
/// that it sends: generated columns since PostgreSQL 18.
const IDENTIFIED: &str = "(OF.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i
    WHERE i.indrelid = OF.oid AND i.indislive AND i.indisunique AND i.indimmediate AND i.indpred IS NULL
      AND (i.indisvalid OR OF.relkind = 'p')
      AND (current_setting('server_version_num')::int >= 180000 OR NOT EXISTS (SELECT FROM pg_attribute a
           WHERE a.attrelid = OF.oid AND a.attnum = ANY (i.indkey::int2[]) AND a.attgenerated <> ''))
      AND CASE OF.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END))";

/// Partitions are left out: they are captured through their table. `[c]` is [`IDENTIFIED`] of `c`.
const TABLES: &str = "
SELECT n.nspname::text, c.relname::text, c.relkind = 'p', c.relreplident::text, c.reltuples::float8,
       ARRAY(SELECT a.attname::text
             FROM pg_index i
             CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
             WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts
             ORDER BY k.place),
       EXISTS (SELECT FROM pg_publication_rel pr JOIN pg_publication p ON p.oid = pr.prpubid
               WHERE pr.prrelid = c.oid AND p.pubname = $2::text),
       coalesce(pg_has_role(r.oid, c.relowner, 'USAGE'), false),
       coalesce(has_table_privilege(r.oid, c.oid, 'SELECT'), false),
       coalesce(has_schema_privilege(r.oid, n.oid, 'USAGE'), false),
       ARRAY(SELECT unnest(ARRAY[pn.nspname::text, p.relname::text])
             FROM pg_partition_tree(c.oid) t
             JOIN pg_class p ON p.oid = t.relid
             JOIN pg_namespace pn ON pn.oid = p.relnamespace
             WHERE c.relkind = 'p' AND t.isleaf AND p.relkind = 'r' AND NOT [p]
             ORDER BY pn.nspname, p.relname)::text[],
       [c],
       c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid),
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
               AND a.attgenerated = 's'),
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
               AND a.attgenerated = 'v')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_roles r ON r.rolname = $1::text
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
  AND n.nspname NOT IN ('information_schema', 'walhook') AND n.nspname !~ '^pg_'
ORDER BY 1, 2";

const OTHERS: &str = "
SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence = 'u',
       pn.nspname::text, p.relname::text
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class p ON c.relispartition AND p.oid = pg_partition_root(c.oid)
LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE (c.relkind IN ('v', 'm', 'f')
       OR c.relkind IN ('r', 'p') AND (c.relispartition OR c.relpersistence = 'u'))
  AND n.nspname NOT IN ('information_schema', 'walhook') AND n.nspname !~ '^pg_'
ORDER BY 1, 2";

impl DatabaseSurvey {
    /// Asks for `role`, or for the connected one if `None`, and for `publication`.
    ///
    /// # Errors
    /// As the connection: these catalogs may be read by every role.
    pub(crate) async fn take(
        client: &Client,
        role: Option<&str>,
        publication: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        let server = client.query_one(SERVER, &[]).await?;
        let name = match role {
            Some(role) => role.to_owned(),
            None => server.try_get(2)?,
        };
        let row = client.query_one(ROLE, &[&name, &publication]).await?;
        let identified = |query: String, of: &str| {
            query.replace(&format!("[{of}]"), &IDENTIFIED.replace("OF.", &format!("{of}.")))
        };
        let query = identified(identified(TABLES.to_owned(), "c"), "p");
        let tables = client.query(&query, &[&name, &publication]).await?;
        let others = client.query(OTHERS, &[]).await?;
        let service = ManagedService::ask(client).await?;
        let all_tables: Option<bool> = row.try_get(5)?;
        let (replicates, is_member): (bool, bool) = (row.try_get(2)?, row.try_get(9)?);
        let state = match row.try_get(10)? {
            true => StateSchema::There { tables_of: row.try_get(11)? },
            false => StateSchema::Missing,
        };
        Ok(Self {
            database: server.try_get(0)?,
            wal_level: server.try_get(1)?,
            version: server.try_get(3)?,
            role: SurveyedRole {
                name,
                exists: row.try_get(0)?,
                superuser: row.try_get(1)?,
                login: row.try_get(7)?,
                replication: replicates || is_member,
                connect: row.try_get(3)?,
                create: row.try_get(4)?,
                keeps_state: row.try_get(6)?,
            },
            service,
            replication_group: row.try_get(8)?,
            state,
            publication: all_tables.map(|all_tables| SurveyedPublication { all_tables }),
            tables: tables.iter().map(table).collect::<Result<_, _>>()?,
            others: others.iter().map(other).collect::<Result<_, _>>()?,
        })
    }
}

fn written(part: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-');
    if part.chars().all(is_plain) { part.to_owned() } else { identifier(part) }
}

fn is_called(of: &TableName, given: &str) -> bool {
    let TableName { schema, name } = of;
    let in_public = schema == "public"
        && [name.clone(), written(name), identifier(name)].iter().any(|short| short == given);
    in_public || of.quoted() == given || format!("{schema}.{name}") == given
}

/// Names from schemas and tables in turn.
fn pairs(parts: Vec<String>) -> Vec<TableName> {
    let mut parts = parts.into_iter();
    std::iter::from_fn(|| Some(TableName::new(parts.next()?, parts.next()?))).collect()
}

fn other(row: &Row) -> Result<OtherRelation, tokio_postgres::Error> {
    let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let (kind, unlogged): (String, bool) = (row.try_get(2)?, row.try_get(3)?);
    let of: (Option<String>, Option<String>) = (row.try_get(4)?, row.try_get(5)?);
    let kind = match (kind.as_str(), of) {
        ("v", _) => RelationKind::View,
        ("m", _) => RelationKind::MaterializedView,
        ("r" | "p", (Some(schema), Some(table))) if !unlogged => {
            RelationKind::Partition(TableName::new(schema, table))
        }
        ("r" | "p", _) => RelationKind::Unlogged,
        (_, _) => RelationKind::ForeignTable,
    };
    Ok(OtherRelation { name: TableName::new(schema, name), kind })
}

fn table(row: &Row) -> Result<SurveyedTable, tokio_postgres::Error> {
    let schema: String = row.try_get(0)?;
    let name: String = row.try_get(1)?;
    let identity: String = row.try_get(3)?;
    let rows: f64 = row.try_get(4)?;
    Ok(SurveyedTable {
        name: TableName::new(schema, name),
        partitioned: row.try_get(2)?,
        unidentified: pairs(row.try_get(10)?),
        identified: row.try_get(11)?,
        inherited: row.try_get(12)?,
        generated: (row.try_get(13)?, row.try_get(14)?),
        identity: match identity.as_str() {
            "f" => ReplicaIdentity::Full,
            "i" => ReplicaIdentity::Index,
            "n" => ReplicaIdentity::Nothing,
            _ => ReplicaIdentity::Default,
        },
        rows: (rows >= 0.0).then_some(rows), // -1, and 0 before version 14, mean "never counted"
        key: row.try_get(5)?,
        published: row.try_get(6)?,
        owned: row.try_get(7)?,
        selectable: row.try_get(8)?,
        schema_usable: row.try_get(9)?,
    })
}
