//! What the catalog says of a table that is to be read: what the stream would bring of it, by what its rows
//! are told apart, and which leaves it has.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::backfill::row_buffer::RowIdentity;
use crate::flow::relation::Column;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::SqlType;
use crate::flow::relation::TableName;
use crate::replication::types;
use crate::store::error::StoreError;

const TABLE: &str = "
    SELECT c.oid, c.relkind::text, c.relreplident::text, c.relrowsecurity AND row_security_active(c.oid),
        has_schema_privilege(n.oid, 'USAGE'), quote_ident(session_user), c.relpersistence::text,
        current_setting('server_version_num')::int4
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2";

/// Columns in their order, with the name of those that the role may not read.
const COLUMNS: &str = "
    SELECT a.attname::text, a.atttypid, a.attgenerated::text,
        has_column_privilege(a.attrelid, a.attnum, 'SELECT')
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// A text is compared with a row type only where it says so: its name comes along, through all domains.
const KEYS: &str = "
    SELECT i.indisprimary, i.indisreplident, a.attname::text,
        (WITH RECURSIVE base (oid) AS (SELECT a.atttypid UNION ALL
            SELECT t.typbasetype FROM base JOIN pg_catalog.pg_type t USING (oid) WHERE t.typtype = 'd')
         SELECT format_type(oid, NULL) FROM base JOIN pg_catalog.pg_type t USING (oid)
          WHERE t.typtype = 'c')
    FROM pg_catalog.pg_index i,
        unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place), pg_catalog.pg_attribute a
    WHERE i.indrelid = $1 AND (i.indisprimary OR i.indisreplident) AND k.place <= i.indnkeyatts
        AND a.attrelid = i.indrelid AND a.attnum = k.attnum
    ORDER BY k.place";

/// Tables that hold the rows, in the order in which they are read.
const LEAVES: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, pg_relation_filenode(c.oid),
        has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT'),
        has_schema_privilege(n.oid, 'USAGE'), greatest(c.reltuples, 0)::int8,
        pg_relation_size(c.oid) / current_setting('block_size')::int8
    FROM (SELECT relid::oid AS oid FROM pg_catalog.pg_partition_tree($1::oid::regclass)
           WHERE isleaf UNION SELECT $1::oid WHERE NOT $2) AS leaf
    JOIN pg_catalog.pg_class c ON c.oid = leaf.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY c.oid";

/// Since 15 a publication says which columns and which rows of a table.
const PUBLISHED: &str = "
    SELECT attnames::text[], rowfilter FROM pg_catalog.pg_publication_tables
    WHERE pubname = $1 AND schemaname = $2 AND tablename = $3";
const PUBLISHED_BEFORE_15: &str = "
    SELECT NULL::text[], NULL::text FROM pg_catalog.pg_publication_tables
    WHERE pubname = $1 AND schemaname = $2 AND tablename = $3";

/// What changes with each alteration of the table's columns, and of the row types that they are made of, in
/// whatever: the catalog's own rows, by the transactions that wrote them.
const SHAPE: &str = "
    WITH RECURSIVE part (oid) AS (
        SELECT atttypid FROM pg_catalog.pg_attribute
         WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
        UNION SELECT inner_type.oid
          FROM part JOIN pg_catalog.pg_type t USING (oid), LATERAL (
            SELECT t.typbasetype UNION ALL SELECT t.typelem UNION ALL
            SELECT a.atttypid FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped)
            AS inner_type (oid)
         WHERE inner_type.oid <> 0)
    SELECT md5(string_agg(concat_ws(' ', attrelid, attnum, xmin), ',' ORDER BY attrelid, attnum))
      FROM pg_catalog.pg_attribute
     WHERE attnum > 0 AND (attrelid = $1 OR attrelid IN (
        SELECT t.typrelid FROM part JOIN pg_catalog.pg_type t USING (oid) WHERE t.typtype = 'c'))";

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error("there is no table {table}: check its name, with its schema")]
    Missing { table: TableName },
    #[error("{table} is {what}, which has no rows of its own: name a table")]
    NoTable { table: TableName, what: &'static str },
    #[error(
        "table {table} is not in publication {publication}: its changes do not come, so nothing can be \
         put in order with them; add it with ALTER PUBLICATION, or name the table that is in it"
    )]
    NotPublished { table: TableName, publication: String },
    #[error(
        "role {role} may not read {what}: run `GRANT SELECT ON {table} TO {role};` as its owner"
    )]
    MayNotRead { table: String, role: String, what: String },
    #[error(
        "row-level security hides rows of {table} from role {role}: give it BYPASSRLS, or a policy \
         that shows all rows is not enough"
    )]
    RowSecurity { table: TableName, role: String },
    #[error("{table} has no primary key and no replica identity index: read it by ctid")]
    NoKey { table: TableName },
    #[error("cannot ask PostgreSQL about the table")]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for TableError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A table, as the stream would describe it.
#[derive(Clone, Debug)]
pub(crate) struct TableFacts {
    pub relation: Arc<Relation>,
    pub identity: RowIdentity,
    /// The columns of the index along which it can be read, in its order; empty if there is none.
    pub key: Vec<KeyColumn>,
    /// The publication's own condition on rows.
    pub row_filter: Option<String>,
    pub leaves: Vec<TableLeaf>,
    /// As [`shape`] had it before all of this was asked for.
    pub shape: String,
}

impl TableFacts {
    /// Whether its rows lie in other tables.
    pub(crate) fn has_partitions(&self) -> bool {
        self.leaves.iter().all(|leaf| leaf.oid != self.relation.oid)
    }
}

/// A column of the index along which a table is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct KeyColumn {
    pub name: String,
    /// The row type that a text has to be cast to, as SQL writes it.
    pub row_type: Option<String>,
}

/// A table that has rows of its own: the table itself, or a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TableLeaf {
    pub oid: u32,
    pub table: TableName,
    pub filenode: u32,
    pub rows: u64,
    pub blocks: u32,
}

/// Asks for all of it.
///
/// # Errors
/// What does not let it be read, or that the catalog could not be.
pub(crate) async fn describe(
    client: &Client,
    table: &TableName,
    publication: &str,
) -> Result<TableFacts, TableError> {
    let entry = entry(client, table).await?;
    let shape = shape(client, entry.oid).await?;
    let question = if entry.version >= 150_000 { PUBLISHED } else { PUBLISHED_BEFORE_15 };
    let published = client.query_opt(question, &[&publication, &table.schema, &table.name]).await?;
    let published = published.ok_or_else(|| TableError::NotPublished {
        table: table.clone(),
        publication: publication.to_owned(),
    })?;
    let names: Option<Vec<String>> = published.try_get(0)?;
    let row_filter: Option<String> = published.try_get(1)?;
    let keys = keys(client, entry.oid).await?;
    let columns = columns(client, table, &entry, names.as_deref(), &keys).await?;
    let flagged = match entry.identity {
        ReplicaIdentity::Default => names_of(&keys.primary),
        ReplicaIdentity::Index => names_of(&keys.identifying),
        ReplicaIdentity::Full => columns.iter().map(|(name, _)| name.clone()).collect(),
        ReplicaIdentity::Nothing => Vec::new(),
    };
    let identity = (entry.identity, columns.as_slice());
    let primary = names_of(&keys.primary);
    let relation = relation(client, entry.oid, table, identity, (&flagged, &primary)).await?;
    let identity = match (relation.row_key.is_empty(), entry.identity, keys.primary.is_empty()) {
        (true, ..) => RowIdentity::None,
        (false, ReplicaIdentity::Full, true) => RowIdentity::Whole,
        (false, ..) => RowIdentity::Unique,
    };
    let leaves = leaves(client, &entry).await?;
    // Along what changes tell rows apart by: then they say which rows get another place.
    let is_by_index = entry.identity == ReplicaIdentity::Index || keys.primary.is_empty();
    let key = if is_by_index { keys.identifying } else { keys.primary };
    Ok(TableFacts { relation, identity, key, row_filter, leaves, shape })
}

/// What is another text whenever the columns of a table are others, or types that they are made of. Not to be
/// asked for in the transaction that reads: that one sees the catalog as it was when it began, and the rows as it
/// is by then.
///
/// # Errors
/// That the server could not be asked.
pub(crate) async fn shape(client: &Client, oid: u32) -> Result<String, StoreError> {
    let row = client.query_one(SHAPE, &[&oid]).await?;
    Ok(row.try_get::<_, Option<String>>(0)?.unwrap_or_default())
}

/// About how many rows the table has, if the role may read it, whatever is published of it.
///
/// # Errors
/// What does not let it be read, or that the catalog could not be.
pub(crate) async fn readable(client: &Client, table: &TableName) -> Result<u64, TableError> {
    let entry = entry(client, table).await?;
    let keys = keys(client, entry.oid).await?;
    columns(client, table, &entry, None, &keys).await?;
    let leaves = leaves(client, &entry).await?;
    Ok(leaves.iter().map(|leaf| leaf.rows).sum())
}

/// The catalog's entry of a table that can be read.
struct TableEntry {
    oid: u32,
    is_root: bool,
    identity: ReplicaIdentity,
    role: String,
    version: i32,
}

impl TableEntry {
    fn may_not(&self, what: String, table: &TableName) -> TableError {
        TableError::MayNotRead { table: table.quoted(), role: self.role.clone(), what }
    }
}

async fn entry(client: &Client, table: &TableName) -> Result<TableEntry, TableError> {
    let found = client.query_opt(TABLE, &[&table.schema, &table.name]).await?;
    let found = found.ok_or_else(|| TableError::Missing { table: table.clone() })?;
    let kind: String = found.try_get(1)?;
    let what = match kind.as_str() {
        "r" | "p" => None,
        "v" | "m" => Some("a view"),
        "f" => Some("a foreign table"),
        _ => Some("no table"),
    };
    if let Some(what) = what {
        return Err(TableError::NoTable { table: table.clone(), what });
    }
    let identity = match found.try_get::<_, &str>(2)? {
        "n" => ReplicaIdentity::Nothing,
        "f" => ReplicaIdentity::Full,
        "i" => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    };
    let entry = TableEntry {
        oid: found.try_get(0)?,
        is_root: kind == "p",
        identity,
        role: found.try_get(5)?,
        version: found.try_get(7)?,
    };
    if found.try_get::<_, bool>(3)? {
        return Err(TableError::RowSecurity { table: table.clone(), role: entry.role });
    }
    if !found.try_get::<_, bool>(4)? {
        return Err(entry.may_not(format!("schema {}", table.schema), table));
    }
    Ok(entry)
}

/// Columns of the primary key and of the replica identity's index, each in the order of its index.
struct TableKeys {
    primary: Vec<KeyColumn>,
    identifying: Vec<KeyColumn>,
}

impl TableKeys {
    fn has(&self, column: &str) -> bool {
        self.primary.iter().chain(&self.identifying).any(|known| known.name == column)
    }
}

fn names_of(columns: &[KeyColumn]) -> Vec<String> {
    columns.iter().map(|column| column.name.clone()).collect()
}

async fn keys(client: &Client, oid: u32) -> Result<TableKeys, TableError> {
    let mut keys = TableKeys { primary: Vec::new(), identifying: Vec::new() };
    for row in client.query(KEYS, &[&oid]).await? {
        let column = KeyColumn { name: row.try_get(2)?, row_type: row.try_get(3)? };
        if row.try_get(1)? {
            keys.identifying.push(column.clone());
        }
        if row.try_get(0)? {
            keys.primary.push(column);
        }
    }
    Ok(keys)
}

/// Columns that the stream would bring, with their types.
async fn columns(
    client: &Client,
    table: &TableName,
    entry: &TableEntry,
    published: Option<&[String]>,
    keys: &TableKeys,
) -> Result<Vec<(String, u32)>, TableError> {
    let mut columns = Vec::new();
    for row in client.query(COLUMNS, &[&entry.oid]).await? {
        let (name, type_oid): (String, u32) = (row.try_get(0)?, row.try_get(1)?);
        let generated: String = row.try_get(2)?;
        let is_sent = match published {
            // The view lists generated columns where the publication has them.
            Some(names) => {
                names.contains(&name) && (generated.is_empty() || entry.version >= 180_000)
            }
            None => generated.is_empty(),
        };
        let is_key = keys.has(&name);
        if (is_sent || is_key) && !row.try_get::<_, bool>(3)? {
            return Err(entry.may_not(format!("column {name} of {table}"), table));
        }
        if is_sent {
            columns.push((name, type_oid));
        }
    }
    Ok(columns)
}

async fn leaves(client: &Client, entry: &TableEntry) -> Result<Vec<TableLeaf>, TableError> {
    let mut leaves = Vec::new();
    for row in client.query(LEAVES, &[&entry.oid, &entry.is_root]).await? {
        let leaf = TableName::new(row.try_get::<_, &str>(1)?, row.try_get::<_, &str>(2)?);
        if row.try_get::<_, &str>(3)? != "r" {
            return Err(TableError::NoTable { table: leaf, what: "a foreign table" });
        }
        if !row.try_get::<_, bool>(6)? {
            return Err(entry.may_not(format!("schema {}", leaf.schema), &leaf));
        }
        if !row.try_get::<_, bool>(5)? {
            return Err(entry.may_not(leaf.to_string(), &leaf));
        }
        let (rows, blocks): (i64, i64) = (row.try_get(7)?, row.try_get(8)?);
        leaves.push(TableLeaf {
            oid: row.try_get(0)?,
            table: leaf,
            filenode: row.try_get::<_, Option<u32>>(4)?.unwrap_or_default(),
            rows: rows.unsigned_abs(),
            blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
        });
    }
    Ok(leaves)
}

async fn relation(
    client: &Client,
    oid: u32,
    table: &TableName,
    (identity, columns): (ReplicaIdentity, &[(String, u32)]),
    (flagged, primary): (&[String], &[String]),
) -> Result<Arc<Relation>, TableError> {
    let oids: Vec<u32> = columns.iter().map(|(_, type_oid)| *type_oid).collect();
    let resolved = types::resolve(client, &oids).await?;
    let column =
        |((name, type_oid), (_, sql_type)): (&(String, u32), (u32, Arc<SqlType>))| Column {
            name: name.clone(),
            type_oid: *type_oid,
            identity: flagged.contains(name),
            sql_type,
        };
    let places = |names: &[String]| -> Vec<usize> {
        let named = columns.iter().enumerate().filter(|(_, (name, _))| names.contains(name));
        named.map(|(place, _)| place).collect()
    };
    let primary_key = places(primary);
    let key = match (identity, primary.is_empty()) {
        (ReplicaIdentity::Index, true) => places(flagged),
        _ => primary_key.clone(),
    };
    let columns: Vec<Column> = columns.iter().zip(resolved).map(column).collect();
    let row_key = Relation::row_key(identity, &columns, &primary_key);
    Ok(Arc::new(Relation { oid, table: table.clone(), identity, columns, key, row_key }))
}
