//! Reads the catalog: what is, without any opinion.
//!
//! Columns that only newer versions have are read through `to_jsonb`, so that one query serves all.

pub(crate) mod coverage;

use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;

use crate::config::settings::Operations;
use crate::flow::relation::TableName;
use crate::replication::catalog::facts::coverage::CoverageRows;
use crate::replication::catalog::facts::coverage::CoveredRelation;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::managed_service::ManagedService;
use crate::replication::slot;
use crate::replication::slot::SlotStream;
use crate::store::error::StoreError;

/// How many tables are looked through for the nearest name to one that does not exist.
const NEIGHBOURS_MAX: i64 = 10_000;

/// What is known of the wanted tables that exist.
const TABLES: &str = "
    SELECT w.place, c.relkind::text AS kind, c.relpersistence::text AS persistence,
        c.relreplident::text AS identity, k.columns AS identity_columns,
        pg_has_role(c.relowner, 'USAGE') AS owned,
        has_schema_privilege(n.oid, 'USAGE') AS schema_usable,
        has_table_privilege(c.oid, 'SELECT') AS readable,
        ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid
            AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
        ARRAY(SELECT unnest(ARRAY[a.attname::text, a.attgenerated::text,
                coalesce(pg_get_expr(d.adbin, d.adrelid), '')])
            FROM pg_attribute a
            LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated <> '' ORDER BY a.attnum) AS generated,
        ARRAY(SELECT a.attname::text FROM pg_index i
            CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place)
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
            WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts
            ORDER BY k.place) AS key,
        ARRAY(WITH RECURSIVE down (oid) AS (
                SELECT i.inhrelid FROM pg_inherits i
                    WHERE i.inhparent = c.oid AND c.relkind <> 'p'
                UNION SELECT i.inhrelid FROM down
                    JOIN pg_inherits i ON i.inhparent = down.oid)
            SELECT unnest(ARRAY[s.nspname::text, t.relname::text]) FROM down
            JOIN pg_class t ON t.oid = down.oid JOIN pg_namespace s ON s.oid = t.relnamespace
            ORDER BY s.nspname, t.relname) AS children,
        ARRAY(WITH RECURSIVE up (oid, level) AS (
                SELECT i.inhparent, 1 FROM pg_inherits i
                    WHERE i.inhrelid = c.oid AND c.relispartition
                UNION SELECT i.inhparent, up.level + 1 FROM up
                    JOIN pg_class p ON p.oid = up.oid AND p.relispartition
                    JOIN pg_inherits i ON i.inhrelid = up.oid)
            SELECT unnest(ARRAY[s.nspname::text, t.relname::text]) FROM up
            JOIN pg_class t ON t.oid = up.oid JOIN pg_namespace s ON s.oid = t.relnamespace
            ORDER BY up.level) AS ancestors
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w (schema, name, place)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
[identity]";

/// Everything that a judgement needs.
#[derive(Clone, Debug)]
pub(crate) struct CatalogFacts {
    pub server: ServerFacts,
    /// In the order of the wanted tables; `None` for one that does not exist.
    pub tables: Vec<Option<TableFacts>>,
    /// Names of other tables, if a wanted one does not exist.
    pub neighbours: Vec<TableName>,
    pub publication: Option<PublicationFacts>,
    /// Names of other publications, if the wanted one does not exist.
    pub publications: Vec<String>,
    pub slot: Option<SlotStream>,
}

#[derive(Clone, Debug)]
pub(crate) struct ServerFacts {
    /// `server_version_num`.
    pub version: u32,
    /// `server_version`.
    pub version_text: String,
    pub standby: bool,
    pub wal_level: String,
    /// What it comes to, where slots raise it (PostgreSQL 19).
    pub effective_wal_level: Option<String>,
    /// After how long a slot that nobody reads is lost, in PostgreSQL's words (18); `None` if never.
    pub idle_slot_timeout: Option<String>,
    pub walsenders: u32,
    pub walsenders_max: u32,
    pub slots: u32,
    pub slots_max: u32,
    pub role: String,
    pub may_replicate: bool,
    /// May create publications in this database.
    pub may_create: bool,
    /// `None` for a server of one's own.
    pub service: Option<ManagedService>,
}

#[derive(Clone, Debug)]
pub(crate) struct TableFacts {
    /// `relkind`, `relpersistence` and `relreplident` of `pg_class`.
    pub kind: char,
    pub persistence: char,
    pub identity: char,
    /// The columns of the index that identifies rows; `None` if the server takes none.
    pub identity_columns: Option<Vec<String>>,
    pub owned: bool,
    pub schema_usable: bool,
    pub readable: bool,
    pub columns: Vec<String>,
    pub generated: Vec<GeneratedColumns>,
    /// Columns of the primary key.
    pub key: Vec<String>,
    /// Where its rows are: itself, or its partitions of any level.
    pub rows: Vec<CoverageRows>,
    /// Tables that inherit from it and are no partitions.
    pub children: Vec<TableName>,
    /// Tables that it is a partition of, the next one first.
    pub ancestors: Vec<TableName>,
}

/// A column that PostgreSQL computes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct GeneratedColumns {
    pub name: String,
    /// Its value is in the row; else it is virtual.
    pub stored: bool,
    /// What it is computed from, as SQL.
    pub expression: String,
}

#[derive(Clone, Debug)]
pub(crate) struct PublicationFacts {
    pub owned: bool,
    pub all_tables: bool,
    pub operations: Operations,
    pub via_root: bool,
    /// Stored generated columns are published (PostgreSQL 18).
    pub generated: bool,
    /// Tables that were added by name.
    pub members: Vec<TableName>,
    /// Tables that are published, for whatever reason.
    pub published: Vec<PublishedTable>,
    /// Tables whose updates or deletes fail, or would fail, because they are published.
    pub covered: Vec<CoveredRelation>,
}

#[derive(Clone, Debug)]
pub(crate) struct PublishedTable {
    pub table: TableName,
    /// `None` before PostgreSQL 15, which has no column lists.
    pub columns: Option<Vec<String>>,
    /// The row filter's text.
    pub filter: Option<String>,
}

/// Asks what is true of the server as a whole. Works on servers that are too old, too.
pub(crate) async fn server(client: &Client) -> Result<ServerFacts, StoreError> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int8 AS version,
                current_setting('server_version') AS version_text,
                pg_is_in_recovery() AS standby,
                current_setting('wal_level') AS wal_level,
                current_setting('effective_wal_level', true) AS effective_wal_level,
                nullif(current_setting('idle_replication_slot_timeout', true), '0')
                    AS idle_slot_timeout,
                (SELECT count(*) FROM pg_stat_replication) AS walsenders,
                current_setting('max_wal_senders')::int8 AS walsenders_max,
                (SELECT count(*) FROM pg_replication_slots) AS slots,
                current_setting('max_replication_slots')::int8 AS slots_max,
                current_user::text AS role,
                r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_roles g
                    WHERE g.rolname = 'rds_replication' AND pg_has_role(g.oid, 'MEMBER'))
                    AS may_replicate,
                has_database_privilege(current_database(), 'CREATE') AS may_create
            FROM pg_roles r WHERE r.rolname = current_user",
            &[],
        )
        .await?;
    let number = |column: &str| -> Result<u32, StoreError> {
        Ok(u32::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default())
    };
    Ok(ServerFacts {
        version: number("version")?,
        version_text: row.try_get("version_text")?,
        standby: row.try_get("standby")?,
        wal_level: row.try_get("wal_level")?,
        effective_wal_level: row.try_get("effective_wal_level")?,
        idle_slot_timeout: row.try_get("idle_slot_timeout")?,
        walsenders: number("walsenders")?,
        walsenders_max: number("walsenders_max")?,
        slots: number("slots")?,
        slots_max: number("slots_max")?,
        role: row.try_get("role")?,
        may_replicate: row.try_get("may_replicate")?,
        may_create: row.try_get("may_create")?,
        service: ManagedService::ask(client).await?,
    })
}

/// Asks everything else.
pub(crate) async fn gather(
    client: &Client,
    server: ServerFacts,
    wanted: &WantedObjects,
) -> Result<CatalogFacts, StoreError> {
    let mut tables = tables(client, wanted).await?;
    for (index, rows) in coverage::rows(client, wanted).await? {
        if let Some(Some(table)) = tables.get_mut(index) {
            table.rows.push(rows);
        }
    }
    let neighbours =
        if tables.iter().any(Option::is_none) { neighbours(client).await? } else { Vec::new() };
    let publication = publication(client, &wanted.publication, server.version).await?;
    let publications = match &publication {
        Some(_) => Vec::new(),
        None => publications(client).await?,
    };
    Ok(CatalogFacts {
        server,
        tables,
        neighbours,
        publication,
        publications,
        slot: slot(client, &wanted.slot).await?,
    })
}

async fn tables(
    client: &Client,
    wanted: &WantedObjects,
) -> Result<Vec<Option<TableFacts>>, StoreError> {
    let schemas: Vec<&str> = wanted.tables.iter().map(|t| t.name.schema.as_str()).collect();
    let names: Vec<&str> = wanted.tables.iter().map(|t| t.name.name.as_str()).collect();
    let query = TABLES.replace("[identity]", coverage::IDENTITY);
    let rows = client.query(&query, &[&schemas, &names]).await?;
    let mut tables: Vec<Option<TableFacts>> = vec![None; wanted.tables.len()];
    for row in rows {
        let letter = |column: &str| -> Result<char, StoreError> {
            Ok(row.try_get::<_, &str>(column)?.chars().next().unwrap_or_default())
        };
        let facts = TableFacts {
            kind: letter("kind")?,
            persistence: letter("persistence")?,
            identity: letter("identity")?,
            identity_columns: row.try_get("identity_columns")?,
            owned: row.try_get("owned")?,
            schema_usable: row.try_get("schema_usable")?,
            readable: row.try_get("readable")?,
            columns: row.try_get("columns")?,
            generated: generated(row.try_get("generated")?),
            key: row.try_get("key")?,
            rows: Vec::new(),
            children: pairs(row.try_get("children")?),
            ancestors: pairs(row.try_get("ancestors")?),
        };
        let place = usize::try_from(row.try_get::<_, i64>("place")?).unwrap_or_default();
        if let Some(table) = place.checked_sub(1).and_then(|index| tables.get_mut(index)) {
            *table = Some(facts);
        }
    }
    Ok(tables)
}

async fn neighbours(client: &Client) -> Result<Vec<TableName>, StoreError> {
    let rows = client
        .query(
            "SELECT n.nspname::text, c.relname::text FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'
                AND n.nspname <> 'information_schema'
            ORDER BY 1, 2 LIMIT $1",
            &[&NEIGHBOURS_MAX],
        )
        .await?;
    rows.iter().map(table_name).collect()
}

async fn publication(
    client: &Client,
    name: &str,
    version: u32,
) -> Result<Option<PublicationFacts>, StoreError> {
    let found = client
        .query_opt(
            "SELECT pg_has_role(p.pubowner, 'USAGE') AS owned, p.puballtables, p.pubinsert,
                p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot,
                coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false) AS generated
            FROM pg_publication p WHERE p.pubname = $1",
            &[&name],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    let members = client
        .query(
            "SELECT n.nspname::text, c.relname::text FROM pg_publication p
            JOIN pg_publication_rel r ON r.prpubid = p.oid
            JOIN pg_class c ON c.oid = r.prrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE p.pubname = $1 ORDER BY 1, 2",
            &[&name],
        )
        .await?;
    // `attnames` and `rowfilter` are missing before PostgreSQL 15 and read as null then.
    let published = client
        .query(
            "SELECT t.schemaname::text, t.tablename::text,
                (SELECT array_agg(a) FROM jsonb_array_elements_text(CASE
                    WHEN jsonb_typeof(to_jsonb(t) -> 'attnames') = 'array'
                    THEN to_jsonb(t) -> 'attnames' END) a) AS columns,
                to_jsonb(t) ->> 'rowfilter' AS filter
            FROM pg_publication_tables t WHERE t.pubname = $1",
            &[&name],
        )
        .await?;
    let published = published.iter().map(|row| {
        Ok(PublishedTable {
            table: table_name(row)?,
            columns: row.try_get("columns")?,
            filter: row.try_get("filter")?,
        })
    });
    let covered = coverage::covered(client, name, version).await?;
    Ok(Some(PublicationFacts {
        covered,
        owned: row.try_get("owned")?,
        all_tables: row.try_get("puballtables")?,
        operations: Operations {
            insert: row.try_get("pubinsert")?,
            update: row.try_get("pubupdate")?,
            delete: row.try_get("pubdelete")?,
            truncate: row.try_get("pubtruncate")?,
            ..Operations::default()
        },
        via_root: row.try_get("pubviaroot")?,
        generated: row.try_get("generated")?,
        members: members.iter().map(table_name).collect::<Result<_, _>>()?,
        published: published.collect::<Result<_, StoreError>>()?,
    }))
}

async fn publications(client: &Client) -> Result<Vec<String>, StoreError> {
    let question = "SELECT pubname::text FROM pg_catalog.pg_publication ORDER BY 1 LIMIT $1";
    let rows = client.query(question, &[&NEIGHBOURS_MAX]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Names from schemas and tables in turn.
fn pairs(parts: Vec<String>) -> Vec<TableName> {
    let mut parts = parts.into_iter();
    std::iter::from_fn(|| Some(TableName::new(parts.next()?, parts.next()?))).collect()
}

/// From names, kinds and expressions in turn.
fn generated(parts: Vec<String>) -> Vec<GeneratedColumns> {
    let mut parts = parts.into_iter();
    let next = || {
        let (name, kind, expression) = (parts.next()?, parts.next()?, parts.next()?);
        Some(GeneratedColumns { name, stored: kind == "s", expression })
    };
    std::iter::from_fn(next).collect()
}

/// From the columns schema and name, in front.
fn table_name(row: &tokio_postgres::Row) -> Result<TableName, StoreError> {
    Ok(TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?))
}

/// What the catalog says about a slot; `None` if there is none of that name.
pub(crate) async fn slot(client: &Client, name: &str) -> Result<Option<SlotStream>, StoreError> {
    let answer = client.simple_query(&slot::query(name)).await?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(SlotStream::from_row(name, |index| row.get(index))),
        _ => None,
    }))
}
