//! Reads the catalog: what is, without any opinion.
//!
//! Columns that only newer versions have are read through `to_jsonb`, so that one query serves all.

use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;

use crate::config::settings::Operations;
use crate::flow::relation::TableName;
use crate::source::catalog::Wanted;
use crate::source::slot;
use crate::source::slot::Slot;
use crate::store::error::StoreError;

/// How many tables are looked through for the nearest name to one that does not exist.
const NEIGHBOURS_MAX: i64 = 10_000;

/// Everything that a judgement needs.
#[derive(Clone, Debug)]
pub struct Facts {
    pub server: ServerFacts,
    /// In the order of the wanted tables; `None` for one that does not exist.
    pub tables: Vec<Option<TableFacts>>,
    /// Names of other tables, if a wanted one does not exist.
    pub neighbours: Vec<TableName>,
    pub publication: Option<PublicationFacts>,
    /// Names of other publications, if the wanted one does not exist.
    pub publications: Vec<String>,
    pub slot: Option<Slot>,
}

#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// `server_version_num`.
    pub version: u32,
    /// `server_version`.
    pub version_text: String,
    pub standby: bool,
    pub wal_level: String,
    pub walsenders: u32,
    pub walsenders_max: u32,
    pub slots: u32,
    pub slots_max: u32,
    pub role: String,
    pub database: String,
    pub may_replicate: bool,
    /// May create publications in this database.
    pub may_create: bool,
}

#[derive(Clone, Debug)]
pub struct TableFacts {
    /// `relkind`, `relpersistence` and `relreplident` of `pg_class`.
    pub kind: char,
    pub persistence: char,
    pub identity: char,
    /// There is an index for replica identity `i`.
    pub identity_index: bool,
    pub owned: bool,
    pub schema_usable: bool,
    pub readable: bool,
    pub columns: Vec<String>,
    /// Columns of the primary key.
    pub key: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct PublicationFacts {
    pub owned: bool,
    pub all_tables: bool,
    pub operations: Operations,
    pub via_root: bool,
    /// Tables that were added by name.
    pub members: Vec<TableName>,
    /// Tables that are published, for whatever reason.
    pub published: Vec<Published>,
}

#[derive(Clone, Debug)]
pub struct Published {
    pub table: TableName,
    /// `None` before PostgreSQL 15, which has no column lists.
    pub columns: Option<Vec<String>>,
    pub filtered: bool,
}

/// Asks what is true of the server as a whole. Works on servers that are too old, too.
pub async fn server(client: &Client) -> Result<ServerFacts, StoreError> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int8 AS version,
                current_setting('server_version') AS version_text,
                pg_is_in_recovery() AS standby,
                current_setting('wal_level') AS wal_level,
                (SELECT count(*) FROM pg_stat_replication) AS walsenders,
                current_setting('max_wal_senders')::int8 AS walsenders_max,
                (SELECT count(*) FROM pg_replication_slots) AS slots,
                current_setting('max_replication_slots')::int8 AS slots_max,
                current_user::text AS role,
                current_database()::text AS database,
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
        walsenders: number("walsenders")?,
        walsenders_max: number("walsenders_max")?,
        slots: number("slots")?,
        slots_max: number("slots_max")?,
        role: row.try_get("role")?,
        database: row.try_get("database")?,
        may_replicate: row.try_get("may_replicate")?,
        may_create: row.try_get("may_create")?,
    })
}

/// Asks everything else.
pub async fn gather(
    client: &Client,
    server: ServerFacts,
    wanted: &Wanted,
) -> Result<Facts, StoreError> {
    let tables = tables(client, wanted).await?;
    let neighbours =
        if tables.iter().any(Option::is_none) { neighbours(client).await? } else { Vec::new() };
    let publication = publication(client, &wanted.publication).await?;
    let publications = match &publication {
        Some(_) => Vec::new(),
        None => publications(client).await?,
    };
    Ok(Facts {
        server,
        tables,
        neighbours,
        publication,
        publications,
        slot: slot(client, &wanted.slot).await?,
    })
}

async fn tables(client: &Client, wanted: &Wanted) -> Result<Vec<Option<TableFacts>>, StoreError> {
    let schemas: Vec<&str> = wanted.tables.iter().map(|t| t.name.schema.as_str()).collect();
    let names: Vec<&str> = wanted.tables.iter().map(|t| t.name.name.as_str()).collect();
    let rows = client
        .query(
            "SELECT w.place, c.relkind::text AS kind, c.relpersistence::text AS persistence,
                c.relreplident::text AS identity,
                EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
                    AS identity_index,
                pg_has_role(c.relowner, 'USAGE') AS owned,
                has_schema_privilege(n.oid, 'USAGE') AS schema_usable,
                has_table_privilege(c.oid, 'SELECT') AS readable,
                ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid
                    AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
                ARRAY(SELECT a.attname::text FROM pg_index i
                    CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place)
                    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                    WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place) AS key
            FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w (schema, name, place)
            JOIN pg_namespace n ON n.nspname = w.schema
            JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name",
            &[&schemas, &names],
        )
        .await?;
    let mut tables: Vec<Option<TableFacts>> = vec![None; wanted.tables.len()];
    for row in rows {
        let letter = |column: &str| -> Result<char, StoreError> {
            Ok(row.try_get::<_, &str>(column)?.chars().next().unwrap_or_default())
        };
        let facts = TableFacts {
            kind: letter("kind")?,
            persistence: letter("persistence")?,
            identity: letter("identity")?,
            identity_index: row.try_get("identity_index")?,
            owned: row.try_get("owned")?,
            schema_usable: row.try_get("schema_usable")?,
            readable: row.try_get("readable")?,
            columns: row.try_get("columns")?,
            key: row.try_get("key")?,
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

async fn publication(client: &Client, name: &str) -> Result<Option<PublicationFacts>, StoreError> {
    let found = client
        .query_opt(
            "SELECT pg_has_role(p.pubowner, 'USAGE') AS owned, p.puballtables, p.pubinsert,
                p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot
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
                to_jsonb(t) ->> 'rowfilter' IS NOT NULL AS filtered
            FROM pg_publication_tables t WHERE t.pubname = $1",
            &[&name],
        )
        .await?;
    let published = published.iter().map(|row| {
        Ok(Published {
            table: table_name(row)?,
            columns: row.try_get("columns")?,
            filtered: row.try_get("filtered")?,
        })
    });
    Ok(Some(PublicationFacts {
        owned: row.try_get("owned")?,
        all_tables: row.try_get("puballtables")?,
        operations: Operations {
            insert: row.try_get("pubinsert")?,
            update: row.try_get("pubupdate")?,
            delete: row.try_get("pubdelete")?,
            truncate: row.try_get("pubtruncate")?,
        },
        via_root: row.try_get("pubviaroot")?,
        members: members.iter().map(table_name).collect::<Result<_, _>>()?,
        published: published.collect::<Result<_, StoreError>>()?,
    }))
}

async fn publications(client: &Client) -> Result<Vec<String>, StoreError> {
    let question = "SELECT pubname::text FROM pg_catalog.pg_publication ORDER BY 1 LIMIT $1";
    let rows = client.query(question, &[&NEIGHBOURS_MAX]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// From the columns schema and name, in front.
fn table_name(row: &tokio_postgres::Row) -> Result<TableName, StoreError> {
    Ok(TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?))
}

/// What the catalog says about a slot; `None` if there is none of that name.
pub async fn slot(client: &Client, name: &str) -> Result<Option<Slot>, StoreError> {
    let answer = client.simple_query(&slot::query(name)).await?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(Slot::from_row(name, |index| row.get(index))),
        _ => None,
    }))
}
