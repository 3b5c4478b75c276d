//! What the publication will cover, and the writes that depend on it.

use super::*;
use crate::replication::catalog::facts::GeneratedColumns;
use crate::replication::catalog::facts::coverage::CoveredRelation;

/// The first table of a set-up.
fn first(facts: &mut CatalogFacts) -> &mut TableFacts {
    facts.tables[0].as_mut().unwrap()
}

fn covered(name: &str, identity: RowIdentity) -> CoveredRelation {
    let table = TableName::new("public", name);
    CoveredRelation { listed: Some(table.clone()), table, identity, filter: None, list: None }
}

const CASES: [(&str, Spoil, &str); 12] = [
    (
        "a deferrable key",
        |f, _| {
            let defect = Some(String::from("is deferrable"));
            first(f).rows = vec![rows("orders", RowIdentity { defect, ..keyless() })];
        },
        "(the primary key is deferrable)",
    ),
    (
        "an identity index that was dropped",
        |f, _| first(f).rows = vec![rows("orders", RowIdentity { kind: 'i', ..keyless() })],
        "(its index was dropped)",
    ),
    (
        "a root that is full, and a partition without a key",
        |f, _| {
            (first(f).kind, first(f).identity) = ('p', 'f');
            first(f).rows = vec![rows("orders_1", keyless())];
            let p = f.publication.as_mut().unwrap();
            p.via_root = true;
        },
        "table public.orders_1, a partition of public.orders,",
    ),
    (
        "a partition with another identity",
        |f, _| {
            first(f).kind = 'p';
            let columns = Some(vec![String::from("code")]);
            let identity = RowIdentity { kind: 'i', columns, ..keyed() };
            first(f).rows = vec![rows("orders", keyed()), rows("orders_1", identity)];
            f.publication.as_mut().unwrap().via_root = true;
        },
        "its updates and deletes do not tell id",
    ),
    (
        "an unlogged partition",
        |f, _| {
            first(f).kind = 'p';
            first(f).rows = vec![CoverageRows { persistence: 'u', ..rows("orders_1", keyed()) }];
            f.publication.as_mut().unwrap().via_root = true;
        },
        "public.orders_1 is unlogged",
    ),
    (
        "another table of the publication",
        |f, _| f.publication.as_mut().unwrap().covered = vec![covered("log", keyless())],
        "also covers public.log",
    ),
    (
        "a row filter beyond the identity",
        |f, _| {
            let filter = Some(vec![String::from("status")]);
            let covered = CoveredRelation { filter, ..covered("orders", keyed()) };
            f.publication.as_mut().unwrap().covered = vec![covered];
        },
        "its row filter asks for status",
    ),
    (
        "a partition that is published through its root",
        |f, _| {
            let (filter, listed) = (Some(vec![String::from("status")]), Some(table_name()));
            let covered = CoveredRelation { filter, listed, ..covered("orders_1", keyed()) };
            f.publication.as_mut().unwrap().covered = vec![covered];
        },
        "DROP TABLE \"public\".\"orders\"",
    ),
    (
        "a column list without the identity",
        |f, _| {
            let list = Some(vec![String::from("status")]);
            let covered = CoveredRelation { list, ..covered("orders", keyed()) };
            f.publication.as_mut().unwrap().covered = vec![covered];
        },
        "its column list lacks id",
    ),
    (
        "a column list, and whole rows",
        |f, _| {
            let list = Some(vec![String::from("id")]);
            let covered =
                CoveredRelation { list, ..covered("x", RowIdentity { kind: 'f', ..keyless() }) };
            f.publication.as_mut().unwrap().covered = vec![covered];
        },
        "it has a column list, and its replica identity is FULL",
    ),
    (
        "whole rows with virtual columns",
        |f, _| {
            f.server.version = 180_000;
            let identity =
                RowIdentity { kind: 'f', columns: None, virtual_columns: true, ..keyed() };
            first(f).rows = vec![rows("orders", identity)];
        },
        "USING INDEX",
    ),
    (
        "events on both levels",
        |f, w| {
            first(f).kind = 'p';
            let mut leaf = table();
            leaf.ancestors = vec![table_name()];
            f.tables.push(Some(leaf));
            let name = TableName::new("public", "orders_1");
            w.tables.push(WantedTable { name: name.clone(), ..w.tables[0].clone() });
            let p = f.publication.as_mut().unwrap();
            (p.via_root, p.members) = (true, vec![table_name(), name]);
        },
        "events on public.orders_1 and on public.orders",
    ),
];

#[test]
fn no_write_of_the_application_fails_because_walhook_was_started() {
    for (name, spoil, expected) in CASES {
        let (mut facts, mut wanted) = (sound(), wanted());
        wanted.tables[0].operations = UPDATE;
        spoil(&mut facts, &mut wanted);
        let report = judge(&facts, &wanted);
        let said = said(&report);
        assert!(said.contains(expected), "case: {name}: {said}");
        assert_eq!(report.exit() as u8, 3, "case: {name}: {said}");
        let widens = report.steps.iter().any(|step| step.contains("publish ="));
        let others =
            name.contains("publication") || name.contains("filter") || name.contains("list");
        assert!(!(others && widens), "case: {name}: {:?}", report.steps);
    }
}

#[test]
fn what_fails_already_is_no_reason_to_refuse() {
    let (mut facts, mut wanted) = (sound(), wanted());
    wanted.tables[0].operations = UPDATE;
    let publication = facts.publication.as_mut().unwrap();
    publication.operations = Operations { insert: true, ..UPDATE };
    publication.covered = vec![covered("log", keyless())];
    let report = judge(&facts, &wanted);
    assert!(said(&report).contains("Warning: publication walhook makes updates"), "{report:?}");
    assert_eq!(report.exit() as u8, 0);
}

#[test]
fn tables_that_inherit_are_left_out_and_named() {
    let mut facts = fresh();
    first(&mut facts).children = vec![TableName::new("public", "kept")];
    let report = judge(&facts, &wanted());
    assert!(report.steps[0].contains(r#"FOR TABLE ONLY "public"."orders" WITH"#), "{report:?}");
    assert!(said(&report).contains("public.kept inherits from public.orders"), "{report:?}");
}

#[test]
fn generated_columns_are_sent_or_refused() {
    let column = |stored| GeneratedColumns {
        name: String::from("status"),
        stored,
        expression: String::from("upper(note)"),
    };
    for (version, stored, expected) in [
        (170_000, true, Err("it is generated (stored), which PostgreSQL 17 does not send")),
        (180_000, true, Ok("publish_generated_columns = stored")),
        (180_000, false, Err("`upper(note)`")),
    ] {
        for mut facts in [sound(), fresh()] {
            facts.server.version = version;
            first(&mut facts).generated = vec![column(stored)];
            if let Some(publication) = &mut facts.publication {
                publication.published[0].columns = Some(vec!["id".to_owned(), "note".to_owned()]);
            }
            let report = judge(&facts, &wanted());
            match expected {
                Err(part) => assert!(said(&report).contains(part), "{version}: {report:?}"),
                Ok(part) => {
                    assert_eq!(said(&report), "", "{version}");
                    assert!(report.steps[0].contains(part), "{version}: {report:?}");
                }
            }
        }
    }
}
