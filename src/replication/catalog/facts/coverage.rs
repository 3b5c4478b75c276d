//! Which tables' rows a publication sends, and how PostgreSQL identifies these rows: what decides
//! whether the application's updates and deletes still work when they are published.
//!
//! The rule is the server's (`CheckCmdReplicaIdentity` in `src/backend/executor/execReplication.c`):
//! it looks at the table that holds the row, a partition's own identity and not its root's. Partition
//! trees are followed through `pg_inherits`, which takes no lock on a partition.

use tokio_postgres::Client;
use tokio_postgres::Row;

use crate::flow::relation::TableName;
use crate::replication::catalog::wanted::WantedObjects;
use crate::store::error::StoreError;

/// Names of other tables in danger that are read at most.
const COVERED_MAX: i64 = 200;

/// The columns of the index that identifies rows of relation `c`, as `k.columns`: null without one.
/// As `RelationGetIndexList` in `src/backend/utils/cache/relcache.c` chooses it.
pub(super) const IDENTITY: &str = "
    LEFT JOIN LATERAL (
        SELECT array_agg(a.attname::text ORDER BY p.place) AS columns
        FROM pg_index i
        CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY p (attnum, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.attnum
        WHERE i.indrelid = c.oid AND p.place <= i.indnkeyatts
            AND i.indislive AND i.indisunique AND i.indimmediate AND i.indpred IS NULL
            AND (i.indisvalid OR c.relkind = 'p')
            AND CASE c.relreplident WHEN 'd' THEN i.indisprimary
                WHEN 'i' THEN i.indisreplident ELSE false END) k ON true";

/// Why the index that was meant to identify rows of relation `c` does not.
const DEFECT: &str = "
    (SELECT CASE WHEN NOT i.indimmediate THEN 'is deferrable'
            WHEN NOT i.indisvalid OR NOT i.indislive THEN 'is not valid'
            WHEN i.indpred IS NOT NULL THEN 'is partial'
            WHEN NOT i.indisunique THEN 'is not unique' END
        FROM pg_index i WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary
            WHEN 'i' THEN i.indisreplident ELSE false END LIMIT 1)";

/// Tables of one kind that hold rows of a wanted table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CoverageRows {
    pub tables: Vec<TableName>,
    /// `relkind` and `relpersistence` of `pg_class`.
    pub kind: char,
    pub persistence: char,
    pub identity: RowIdentity,
}

/// How PostgreSQL identifies the rows of a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RowIdentity {
    /// `relreplident` of `pg_class`.
    pub kind: char,
    /// The columns of its index; `None` if the server takes none.
    pub columns: Option<Vec<String>>,
    /// What is wrong with the index that was meant.
    pub defect: Option<String>,
    /// The table has columns that are generated and stored, or virtual.
    pub stored: bool,
    pub virtual_columns: bool,
    /// A column of the index is generated.
    pub generated_key: bool,
}

impl RowIdentity {
    /// Whether the old row comes whole.
    pub(crate) fn is_full(&self) -> bool {
        self.kind == 'f'
    }
}

/// An ordinary table that a publication covers, and whose updates or deletes depend on how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CoveredRelation {
    pub table: TableName,
    pub identity: RowIdentity,
    /// The table that the publication lists and whose filter and column list hold for it: itself, or
    /// what it is a partition of. `None` for a table that is published with all of a schema or database.
    pub listed: Option<TableName>,
    /// Columns of the row filter that holds for it.
    pub filter: Option<Vec<String>>,
    /// The column list that holds for it.
    pub list: Option<Vec<String>>,
}

/// Where the rows of the wanted tables are, each with the place of its table among these.
pub(super) async fn rows(
    client: &Client,
    wanted: &WantedObjects,
) -> Result<Vec<(usize, CoverageRows)>, StoreError> {
    let schemas: Vec<&str> = wanted.tables.iter().map(|t| t.name.schema.as_str()).collect();
    let names: Vec<&str> = wanted.tables.iter().map(|t| t.name.name.as_str()).collect();
    let query = format!(
        "WITH RECURSIVE tree (place, oid) AS (
            SELECT w.place, c.oid
            FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w (schema, name, place)
            JOIN pg_namespace n ON n.nspname = w.schema
            JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
            UNION
            SELECT t.place, i.inhrelid FROM tree t
            JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
            JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition)
        SELECT l.place, l.kind, l.persistence, l.identity, l.columns, l.defect, l.stored,
            l.virtual_columns, l.generated_key,
            array_agg(l.schema ORDER BY l.schema, l.name) AS schemas,
            array_agg(l.name ORDER BY l.schema, l.name) AS names
        FROM (SELECT t.place, n.nspname::text AS schema, c.relname::text AS name,
                c.relkind::text AS kind, c.relpersistence::text AS persistence, {FIELDS}
            FROM tree t JOIN pg_class c ON c.oid = t.oid AND c.relkind <> 'p'
            JOIN pg_namespace n ON n.oid = c.relnamespace {IDENTITY}) l
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
        ORDER BY 1, min(l.schema), min(l.name)",
        FIELDS = fields()
    );
    let mut found = Vec::new();
    for row in client.query(&query, &[&schemas, &names]).await? {
        let (schemas, names): (Vec<String>, Vec<String>) =
            (row.try_get("schemas")?, row.try_get("names")?);
        let rows = CoverageRows {
            tables: schemas.into_iter().zip(names).map(|(s, n)| TableName::new(s, n)).collect(),
            kind: letter(&row, "kind")?,
            persistence: letter(&row, "persistence")?,
            identity: identity(&row)?,
        };
        let place = usize::try_from(row.try_get::<_, i64>("place")?).unwrap_or_default();
        found.extend(place.checked_sub(1).map(|index| (index, rows)));
    }
    Ok(found)
}

/// The tables that the publication covers and whose updates or deletes may fail for that.
pub(super) async fn covered(
    client: &Client,
    publication: &str,
    version: u32,
) -> Result<Vec<CoveredRelation>, StoreError> {
    // Schemas can be published since PostgreSQL 15.
    let of_schemas = match version {
        150_000.. => {
            "UNION SELECT c.oid, NULL::oid, 0 FROM pg_publication_namespace s
             JOIN pg_publication p ON p.oid = s.pnpubid AND p.pubname = $1
             JOIN pg_class c ON c.relnamespace = s.pnnspid AND c.relkind IN ('r', 'p')"
        }
        _ => "",
    };
    // Since PostgreSQL 18 an identity must not contain generated columns that are not published.
    let generated = match version {
        180_000.. => "OR l.generated_key OR l.identity = 'f' AND (l.stored OR l.virtual_columns)",
        _ => "",
    };
    // Filters and lists hold for the topmost published ancestor where rows come as its own.
    let query = format!(
        "WITH RECURSIVE covered (oid, entry, level) AS (
            (SELECT r.prrelid, r.oid, 0 FROM pg_publication_rel r
                JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = $1
             UNION SELECT c.oid, NULL::oid, 0 FROM pg_publication p
                JOIN pg_class c ON c.relkind = 'r' WHERE p.pubname = $1 AND p.puballtables
             {of_schemas})
            UNION
            SELECT i.inhrelid, v.entry, v.level + 1 FROM covered v
            JOIN pg_inherits i ON i.inhparent = v.oid AND NOT i.inhdetachpending
            JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition),
        one AS (
            SELECT DISTINCT ON (v.oid) v.oid,
                CASE WHEN p.pubviaroot OR v.level = 0 THEN v.entry END AS entry
            FROM covered v JOIN pg_publication p ON p.pubname = $1
            ORDER BY v.oid, CASE WHEN p.pubviaroot THEN -v.level ELSE v.level END)
        SELECT l.* FROM (SELECT n.nspname::text AS schema, c.relname::text AS name, {FIELDS},
                (SELECT array_agg(DISTINCT a.attname::text)
                    FROM regexp_matches(to_jsonb(r) ->> 'prqual', ':varattno (\\d+)', 'g') m (found)
                    JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = m.found[1]::int2)
                    AS filter,
                (SELECT array_agg(a.attname::text)
                    FROM regexp_matches(to_jsonb(r) ->> 'prattrs', '\\d+', 'g') m (found)
                    JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = m.found[1]::int2)
                    AS list,
                o.nspname::text AS listed_schema, t.relname::text AS listed_name
            FROM one JOIN pg_class c ON c.oid = one.oid AND c.relkind = 'r'
                AND c.relpersistence = 'p' AND c.oid >= 16384
            JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'walhook'
            LEFT JOIN pg_publication_rel r ON r.oid = one.entry
            LEFT JOIN pg_class t ON t.oid = r.prrelid
            LEFT JOIN pg_namespace o ON o.oid = t.relnamespace {IDENTITY}) l
        WHERE l.identity <> 'f' AND l.columns IS NULL OR l.filter IS NOT NULL OR l.list IS NOT NULL
            {generated}
        ORDER BY 1, 2 LIMIT {COVERED_MAX}",
        FIELDS = fields()
    );
    let rows = client.query(&query, &[&publication]).await?;
    rows.iter()
        .map(|row| {
            Ok(CoveredRelation {
                table: TableName::new(
                    row.try_get::<_, String>("schema")?,
                    row.try_get::<_, String>("name")?,
                ),
                identity: identity(row)?,
                listed: row
                    .try_get::<_, Option<String>>("listed_schema")?
                    .zip(row.try_get::<_, Option<String>>("listed_name")?)
                    .map(|(schema, name)| TableName::new(schema, name)),
                filter: row.try_get("filter")?,
                list: row.try_get("list")?,
            })
        })
        .collect()
}

/// What [`identity`] reads of relation `c`, whose index is `k`.
fn fields() -> String {
    let has = |kind: &str| {
        format!(
            "EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
                AND NOT a.attisdropped AND a.attgenerated = '{kind}')"
        )
    };
    format!(
        "c.relreplident::text AS identity, k.columns, {DEFECT} AS defect, {} AS stored,
            {} AS virtual_columns,
            EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> ''
                AND a.attname::text = ANY (k.columns)) AS generated_key",
        has("s"),
        has("v")
    )
}

fn identity(row: &Row) -> Result<RowIdentity, StoreError> {
    Ok(RowIdentity {
        kind: letter(row, "identity")?,
        columns: row.try_get("columns")?,
        defect: row.try_get("defect")?,
        stored: row.try_get("stored")?,
        virtual_columns: row.try_get("virtual_columns")?,
        generated_key: row.try_get("generated_key")?,
    })
}

fn letter(row: &Row, column: &str) -> Result<char, StoreError> {
    Ok(row.try_get::<_, &str>(column)?.chars().next().unwrap_or_default())
}
