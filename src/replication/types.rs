//! What PostgreSQL's types are made of: how a column's text becomes JSON.
//!
//! ```text
//! assemble ─ TypeQuestions ─▶ [types] ─ TypeAnswers ─▶ assemble
//! ```
//!
//! Built-in types are known by their OIDs, which never change. For the others (enums, domains,
//! composites, arrays of them, extensions) and for primary keys that a Relation message does not
//! tell, the catalog is asked; this is the only I/O on the way from message to change. The catalog
//! may be newer than the row: a type that has been dropped since is treated as text.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;

use crate::flow::relation::SqlType;

/// How deep types may be nested in types (array of composite of domain of ...) before the rest is
/// taken as text. PostgreSQL has no cycles; this bounds the questions asked all the same.
const DEPTH_MAX: usize = 32;

/// Everything that decides how values of the types in `$1` are written.
///
/// A true array is recognised as the server's `IsTrueArrayType` does; `point`, `box`, `name` and
/// others have an element type too, but are no arrays. Needs PostgreSQL 14 (`typsubscript`).
const TYPES: &str = "
    SELECT t.oid, t.typtype::text, t.typbasetype, e.typdelim::text,
           CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc
                THEN t.typelem ELSE 0::oid END,
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
                 ORDER BY a.attnum),
           ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
                 ORDER BY a.attnum),
           t.typname = 'hstore' AND EXISTS (
               SELECT FROM pg_catalog.pg_cast c
               WHERE c.castsource = t.oid AND c.casttarget = 'pg_catalog.json'::regtype)
    FROM pg_catalog.pg_type t
    LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
    WHERE t.oid = ANY($1)";

/// Columns of the primary key of relation `$1`, without those that are only included.
const PRIMARY_KEY: &str = "
    SELECT a.attname::text
    FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = $1 AND i.indisprimary AND k.position <= i.indnkeyatts
    ORDER BY k.position";

/// Whether relation `$1` is partitioned, and has a partition whose old rows do not come whole.
const PARTITIONS: &str = "
    WITH RECURSIVE tree (oid) AS (
        SELECT $1::oid
        UNION
        SELECT i.inhrelid FROM tree t
        JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
        JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition)
    SELECT coalesce(bool_or(c.relkind = 'p'), false),
           coalesce(bool_or(c.relkind = 'r' AND c.relreplident <> 'f'), false)
    FROM tree t JOIN pg_catalog.pg_class c ON c.oid = t.oid";

/// Whether old rows that are described as whole may be keys: PostgreSQL describes a partition's rows
/// as its root's, and writes them as the partition's own replica identity says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RowWholeness {
    /// The rows are the relation's own.
    #[default]
    Sure,
    /// All partitions write whole rows at the moment; they may not have when a row was written.
    Likely,
    /// A partition does not.
    Doubtful,
}

/// What has to be known about a relation beyond its message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TypeQuestions {
    /// OIDs of types that are not built in.
    pub types: Vec<u32>,
    /// The relation's OID if its primary key is not its replica identity.
    pub primary_key_of: Option<u32>,
    /// The relation's OID if its old rows come whole.
    pub partitions_of: Option<u32>,
}

impl TypeQuestions {
    pub fn is_empty(&self) -> bool {
        self.types.is_empty() && self.primary_key_of.is_none() && self.partitions_of.is_none()
    }
}

/// What the catalog says to [`TypeQuestions`]. A type without an answer is text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TypeAnswers {
    pub types: Vec<(u32, Arc<SqlType>)>,
    /// Names of the primary key's columns; `None` if that was not asked.
    pub primary_key: Option<Vec<String>>,
    pub wholeness: RowWholeness,
}

/// The type with this OID if it is built in. Unknown are also those built-in types that are made
/// of others in a way that depends on the version (catalog rows, `information_schema` domains).
pub fn builtin(oid: u32) -> Option<SqlType> {
    builtin_scalar(oid).or_else(|| {
        let (element, delimiter) = builtin_element(oid)?;
        let element = Arc::new(builtin_scalar(element)?);
        Some(SqlType::Array { element, delimiter })
    })
}

/// Answers what a Relation message leaves open.
///
/// # Errors
/// The catalog could not be read.
pub async fn answer(
    client: &Client,
    questions: &TypeQuestions,
) -> Result<TypeAnswers, tokio_postgres::Error> {
    let types = resolve(client, &questions.types).await?;
    let key = match questions.primary_key_of {
        Some(relation) => Some(primary_key(client, relation).await?),
        None => None,
    };
    let wholeness = match questions.partitions_of {
        Some(relation) => wholeness(client, relation).await?,
        None => RowWholeness::Sure,
    };
    Ok(TypeAnswers { types, primary_key: key, wholeness })
}

async fn wholeness(
    client: &Client,
    relation_oid: u32,
) -> Result<RowWholeness, tokio_postgres::Error> {
    let row = client.query_one(PARTITIONS, &[&relation_oid]).await?;
    Ok(match (row.try_get(0)?, row.try_get(1)?) {
        (false, _) => RowWholeness::Sure,
        (true, false) => RowWholeness::Likely,
        (true, true) => RowWholeness::Doubtful,
    })
}

/// Looks types up in the catalog, and those that they are made of: one query per level of nesting.
/// Every OID asked for is answered, in the order in which they stand, built-in ones too; what the catalog
/// does not know is text.
///
/// # Errors
/// The catalog could not be read.
pub async fn resolve(
    client: &Client,
    oids: &[u32],
) -> Result<Vec<(u32, Arc<SqlType>)>, tokio_postgres::Error> {
    let mut shapes = HashMap::new();
    let mut open = oids.to_vec();
    for _ in 0..DEPTH_MAX {
        open.retain(|oid| builtin(*oid).is_none() && !shapes.contains_key(oid));
        open.sort_unstable();
        open.dedup();
        if open.is_empty() {
            break;
        }
        let mut found = Vec::new();
        for row in client.query(TYPES, &[&open]).await? {
            let shape = TypeShape::read(&row)?;
            found.extend(shape.parts());
            shapes.insert(row.try_get(0)?, shape);
        }
        open = found;
    }
    let mut built = HashMap::new();
    Ok(oids.iter().map(|&oid| (oid, build(oid, &shapes, &mut built, DEPTH_MAX))).collect())
}

/// The names of the primary key's columns, in key order; empty if there is none.
///
/// # Errors
/// The catalog could not be read.
pub async fn primary_key(
    client: &Client,
    relation_oid: u32,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client.query(PRIMARY_KEY, &[&relation_oid]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// A row of `pg_type`: what a type is made of, by OIDs.
#[derive(Clone, Debug)]
enum TypeShape {
    Text,
    /// Of the extension of that name, which says itself how it becomes JSON.
    Hstore,
    Domain {
        base: u32,
    },
    Array {
        element: u32,
        delimiter: u8,
    },
    Composite {
        fields: Vec<(String, u32)>,
    },
}

impl TypeShape {
    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        let kind: &str = row.try_get(1)?;
        let element: u32 = row.try_get(4)?;
        Ok(match kind {
            "d" => Self::Domain { base: row.try_get(2)? },
            "c" => {
                let names: Vec<String> = row.try_get(5)?;
                let types: Vec<u32> = row.try_get(6)?;
                Self::Composite { fields: names.into_iter().zip(types).collect() }
            }
            "b" if element != 0 => {
                let delimiter: Option<&str> = row.try_get(3)?;
                let delimiter = delimiter.and_then(|text| text.bytes().next()).unwrap_or(b',');
                Self::Array { element, delimiter }
            }
            _ if row.try_get(7)? => Self::Hstore,
            _ => Self::Text,
        })
    }

    fn parts(&self) -> Vec<u32> {
        match self {
            Self::Text | Self::Hstore => Vec::new(),
            Self::Domain { base: part } | Self::Array { element: part, .. } => vec![*part],
            Self::Composite { fields } => fields.iter().map(|(_, part)| *part).collect(),
        }
    }
}

/// Puts a type together from its parts. `built` lets a part that occurs often be built once.
fn build(
    oid: u32,
    shapes: &HashMap<u32, TypeShape>,
    built: &mut HashMap<u32, Arc<SqlType>>,
    depth: usize,
) -> Arc<SqlType> {
    if let Some(known) = built.get(&oid) {
        return Arc::clone(known);
    }
    let sql_type = match (builtin(oid), shapes.get(&oid)) {
        (Some(known), _) => Arc::new(known),
        // Not remembered: less deep down, the same type may be built whole.
        (None, _) if depth == 0 => return Arc::new(SqlType::Text),
        (None, None | Some(TypeShape::Text)) => Arc::new(SqlType::Text),
        (None, Some(TypeShape::Hstore)) => Arc::new(SqlType::Hstore),
        (None, Some(TypeShape::Domain { base })) => build(*base, shapes, built, depth - 1),
        (None, Some(TypeShape::Array { element, delimiter })) => Arc::new(SqlType::Array {
            element: build(*element, shapes, built, depth - 1),
            delimiter: *delimiter,
        }),
        (None, Some(TypeShape::Composite { fields })) => {
            let fields = fields
                .iter()
                .map(|(name, part)| (name.clone(), build(*part, shapes, built, depth - 1)));
            Arc::new(SqlType::Composite { fields: fields.collect() })
        }
    };
    built.insert(oid, Arc::clone(&sql_type));
    sql_type
}

/// Built-in types that are no arrays.
fn builtin_scalar(oid: u32) -> Option<SqlType> {
    Some(match oid {
        16 => SqlType::Bool,
        17 => SqlType::Bytea,
        20 | 21 | 23 => SqlType::Integer, // int8, int2, int4
        22 => SqlType::Vector { element: Arc::new(SqlType::Integer) }, // int2vector
        30 => SqlType::Vector { element: Arc::new(SqlType::Text) }, // oidvector
        114 | 3802 => SqlType::Json,      // json, jsonb
        700 | 701 => SqlType::Float,      // float4, float8
        1082 => SqlType::Date,
        1114 => SqlType::Timestamp,
        1184 => SqlType::TimestampTz,
        1700 => SqlType::Numeric,
        // text, uuid, inet, ranges, ...; pg_node_tree is the one without an array type.
        _ => {
            let textual = oid == 194 || BUILTIN.iter().any(|(scalar, _)| *scalar == oid);
            return textual.then_some(SqlType::Text);
        }
    })
}

/// The element type of a built-in array type, and what stands between the elements in its text.
fn builtin_element(oid: u32) -> Option<(u32, u8)> {
    let (element, _) = BUILTIN.iter().find(|(_, array)| *array == oid)?;
    Some((*element, if *element == BOX { b';' } else { b',' }))
}

/// The only built-in type whose array text has another delimiter than a comma.
const BOX: u32 = 603;

/// The built-in types that can be a column's, each with its array type. Source: `pg_type.dat`.
#[rustfmt::skip]
const BUILTIN: [(u32, u32); 76] = [
    (16, 1000), (17, 1001), (18, 1002), (19, 1003), (20, 1016), (21, 1005), (22, 1006),
    (23, 1007), (24, 1008), (25, 1009), (26, 1028), (27, 1010), (28, 1011), (29, 1012),
    (30, 1013), (114, 199), (142, 143), (600, 1017), (601, 1018), (602, 1019), (603, 1020),
    (604, 1027), (628, 629), (650, 651), (700, 1021), (701, 1022), (718, 719), (774, 775),
    (790, 791), (829, 1040), (869, 1041), (1033, 1034), (1042, 1014), (1043, 1015), (1082, 1182),
    (1083, 1183), (1114, 1115), (1184, 1185), (1186, 1187), (1266, 1270), (1560, 1561), (1562, 1563),
    (1700, 1231), (1790, 2201), (2202, 2207), (2203, 2208), (2204, 2209), (2205, 2210), (2206, 2211),
    (2950, 2951), (2970, 2949), (3220, 3221), (3614, 3643), (3615, 3645), (3642, 3644), (3734, 3735),
    (3769, 3770), (3802, 3807), (3904, 3905), (3906, 3907), (3908, 3909), (3910, 3911), (3912, 3913),
    (3926, 3927), (4072, 4073), (4089, 4090), (4096, 4097), (4191, 4192), (4451, 6150), (4532, 6151),
    (4533, 6152), (4534, 6153), (4535, 6155), (4536, 6157), (5038, 5039), (5069, 271),
];

#[cfg(test)]
mod tests;
