//! Types put together from catalog rows; the catalog itself is asked in `tests/it/types.rs`.

use super::*;

fn array(element: SqlType, delimiter: u8) -> SqlType {
    SqlType::Array { element: Arc::new(element), delimiter }
}

fn built(oid: u32, shapes: impl IntoIterator<Item = (u32, TypeShape)>) -> SqlType {
    let shapes = shapes.into_iter().collect();
    build(oid, &shapes, &mut HashMap::new(), DEPTH_MAX).as_ref().clone()
}

#[test]
fn built_in_types_are_known_by_oid() {
    let cases = [
        ("bool", 16, Some(SqlType::Bool)),
        ("text", 25, Some(SqlType::Text)),
        ("oid", 26, Some(SqlType::Text)),
        ("int8[]", 1016, Some(array(SqlType::Integer, b','))),
        ("box[]", 1020, Some(array(SqlType::Text, b';'))),
        ("int2vector", 22, Some(SqlType::Vector { element: Arc::new(SqlType::Integer) })),
        ("a user's type", 16_384, None),
    ];
    for (name, oid, expected) in cases {
        assert_eq!(builtin(oid), expected, "case: {name}");
    }
}

#[test]
fn types_are_resolved_to_what_their_text_is_made_of() {
    let fields = vec![(String::from("a"), 1016), (String::from("b"), 90_002)];
    let shapes = [
        (90_001, TypeShape::Array { element: 90_000, delimiter: b',' }),
        (90_000, TypeShape::Composite { fields }),
        (90_002, TypeShape::Domain { base: 90_003 }),
        (90_003, TypeShape::Domain { base: 1700 }),
    ];
    let row = SqlType::Composite {
        fields: vec![
            (String::from("a"), Arc::new(array(SqlType::Integer, b','))),
            (String::from("b"), Arc::new(SqlType::Numeric)),
        ],
    };
    assert_eq!(built(90_001, shapes), array(row, b','));
}

#[test]
fn what_the_catalog_does_not_know_is_text() {
    assert_eq!(built(90_000, []), SqlType::Text);
    let dropped = [(90_001, TypeShape::Array { element: 90_000, delimiter: b',' })];
    assert_eq!(built(90_001, dropped), array(SqlType::Text, b','));
}

#[test]
fn a_type_that_contains_itself_ends() {
    let itself = [(90_000, TypeShape::Array { element: 90_000, delimiter: b',' })];
    let mut sql_type = &built(90_000, itself);
    let mut depth = 0;
    while let SqlType::Array { element, .. } = sql_type {
        sql_type = element;
        depth += 1;
    }
    assert_eq!((depth, sql_type), (DEPTH_MAX, &SqlType::Text));
}
