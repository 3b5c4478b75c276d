//! One sound set-up, and what is said about every way to spoil it.

use super::*;
use crate::config::settings::Operations;
use crate::flow::lsn::Lsn;
use crate::flow::relation::TableName;
use crate::replication::catalog::FindingLevel;
use crate::replication::catalog::facts::GeneratedColumns;
use crate::replication::catalog::facts::PublicationFacts;
use crate::replication::catalog::facts::PublishedTable;
use crate::replication::catalog::facts::ServerFacts;
use crate::replication::catalog::facts::TableFacts;
use crate::replication::catalog::facts::coverage::CoverageRows;
use crate::replication::catalog::facts::coverage::RowIdentity;
use crate::replication::catalog::judge::server::too_old;
use crate::replication::catalog::wanted::WantedTable;
use crate::replication::slot::SlotStream;
use crate::store::APPLICATION_NAME;

mod coverage;

const INSERT: Operations = Operations {
    insert: true,
    update: false,
    delete: false,
    truncate: false,
    read: false,
    schema: false,
};
const UPDATE: Operations = Operations { insert: false, update: true, ..INSERT };

fn table_name() -> TableName {
    TableName::new("public", "orders")
}

fn wanted() -> WantedObjects {
    let columns = vec!["id".to_owned(), "status".to_owned()];
    WantedObjects {
        failover: false,
        slot: "walhook".to_owned(),
        publication: "walhook".to_owned(),
        tables: vec![WantedTable {
            name: table_name(),
            streamed: columns.clone(),
            columns,
            operations: INSERT,
            named_in: vec![(Some("status".into()), "`when` of event order (w.toml:7)".into())],
        }],
    }
}

fn table() -> TableFacts {
    TableFacts {
        kind: 'r',
        persistence: 'p',
        identity: 'd',
        identity_columns: Some(vec!["id".to_owned()]),
        owned: true,
        schema_usable: true,
        readable: true,
        columns: vec!["id".to_owned(), "status".to_owned(), "note".to_owned()],
        generated: Vec::new(),
        key: vec!["id".to_owned()],
        rows: vec![rows("orders", keyed())],
        children: Vec::new(),
        ancestors: Vec::new(),
    }
}

/// A primary key.
fn keyed() -> RowIdentity {
    RowIdentity {
        kind: 'd',
        columns: Some(vec!["id".to_owned()]),
        defect: None,
        stored: false,
        virtual_columns: false,
        generated_key: false,
    }
}

fn keyless() -> RowIdentity {
    RowIdentity { columns: None, ..keyed() }
}

fn without_key(table: &mut TableFacts) {
    table.key.clear();
    table.identity_columns = None;
    table.rows = vec![rows("orders", keyless())];
}

fn rows(name: &str, identity: RowIdentity) -> CoverageRows {
    let tables = vec![TableName::new("public", name)];
    CoverageRows { tables, kind: 'r', persistence: 'p', identity }
}

fn publication() -> PublicationFacts {
    let columns = Some(table().columns);
    PublicationFacts {
        owned: true,
        all_tables: false,
        operations: INSERT,
        via_root: false,
        generated: false,
        covered: Vec::new(),
        members: vec![table_name()],
        published: vec![PublishedTable { table: table_name(), columns, filter: None }],
    }
}

fn used_slot() -> SlotStream {
    SlotStream {
        name: "walhook".to_owned(),
        plugin: "pgoutput".to_owned(),
        database: "app".to_owned(),
        here: true,
        active_pid: None,
        active_name: None,
        wal_status: "reserved".to_owned(),
        invalidation_reason: None,
        restart: Some(Lsn::from_raw(1)),
        confirmed: Some(Lsn::from_raw(2)),
        retained_bytes: Some(0),
        safe_bytes: None,
        decoded: 0,
        failover: false,
    }
}

/// A sound set-up in use.
fn sound() -> CatalogFacts {
    CatalogFacts {
        server: ServerFacts {
            version: 150_018,
            version_text: "15.18".to_owned(),
            standby: false,
            wal_level: "logical".to_owned(),
            effective_wal_level: None,
            idle_slot_timeout: None,
            walsenders: 0,
            walsenders_max: 10,
            slots: 1,
            slots_max: 10,
            role: "app".to_owned(),
            may_replicate: true,
            may_create: true,
            service: None,
        },
        tables: vec![Some(table())],
        neighbours: Vec::new(),
        publications: Vec::new(),
        publication: Some(publication()),
        slot: Some(used_slot()),
    }
}

/// Nothing has been made yet.
fn fresh() -> CatalogFacts {
    CatalogFacts { publication: None, slot: None, ..sound() }
}

/// All that is not fine, in one text.
fn said(report: &CheckReport) -> String {
    let lines = report.findings.iter().filter(|finding| finding.level > FindingLevel::Ok);
    lines
        .map(|finding| {
            let fix = finding.fix.as_deref().unwrap_or_default();
            format!("{:?}: {} -> {fix}\n", finding.level, finding.what)
        })
        .collect()
}

#[test]
fn a_sound_set_up_is_green() {
    for facts in [sound(), fresh()] {
        let report = judge(&facts, &wanted());
        assert_eq!(said(&report), "");
        assert_eq!(report.exit() as u8, 0);
    }
    let report = judge(&sound(), &wanted());
    assert!(report.steps.is_empty() && !report.makes_slot);
}

/// Its updates and deletes would not say which row they are of.
#[test]
fn a_generated_identity_that_is_not_sent_is_refused() {
    let mut wanted = wanted();
    wanted.tables[0].streamed = vec!["status".to_owned()];
    let mut facts = fresh();
    let mut table = table();
    let expression = "length(note)".to_owned();
    table.generated = vec![GeneratedColumns { name: "id".to_owned(), stored: true, expression }];
    facts.tables = vec![Some(table.clone())];
    assert_eq!(said(&judge(&facts, &wanted)), "", "inserts are whole");
    wanted.tables[0].operations = UPDATE;
    let told = said(&judge(&facts, &wanted));
    assert!(told.contains("column id of table public.orders is not sent"), "{told}");
    assert!(told.contains("REPLICA IDENTITY FULL;"), "{told}");
    table.identity = 'f';
    facts.tables = vec![Some(table)];
    assert_eq!(said(&judge(&facts, &wanted)), "");
}

#[test]
fn that_a_partition_may_be_emptied_in_silence_is_said() {
    let mut facts = fresh();
    let mut wanted = wanted();
    wanted.tables[0].operations = Operations { truncate: true, ..INSERT };
    assert_eq!(said(&judge(&facts, &wanted)), "");
    facts.tables = vec![Some(TableFacts { kind: 'p', ..table() })];
    let told = said(&judge(&facts, &wanted));
    assert!(told.contains("does not send TRUNCATE of a partition of public.orders"), "{told}");
}

#[test]
fn a_walhook_that_is_running_does_not_make_the_check_red() {
    let mut facts = sound();
    facts.server.walsenders = 10;
    facts.slot = Some(SlotStream {
        active_pid: Some(7),
        active_name: Some(APPLICATION_NAME.to_owned()),
        ..used_slot()
    });
    assert_eq!(said(&judge(&facts, &wanted())), "");
}

#[test]
fn a_fresh_database_gets_a_publication_of_just_what_is_needed_and_a_slot() {
    let report = judge(&fresh(), &wanted());
    assert!(report.makes_slot);
    assert_eq!(
        report.steps,
        [r#"CREATE PUBLICATION "walhook" FOR TABLE "public"."orders" WITH (publish = 'insert');"#]
    );
    let mut facts = fresh();
    facts.tables = vec![Some(TableFacts { kind: 'p', ..table() })];
    let report = judge(&facts, &wanted());
    assert!(report.steps[0].contains("publish_via_partition_root = true"), "{:?}", report.steps);
}

#[test]
fn a_publication_that_lacks_something_is_mended_by_its_owner_only() {
    let mut facts = sound();
    let empty = PublicationFacts { members: Vec::new(), published: Vec::new(), ..publication() };
    facts.publication = Some(PublicationFacts { operations: UPDATE, ..empty.clone() });
    let report = judge(&facts, &wanted());
    assert_eq!(said(&report), "");
    let sql = r#"ALTER PUBLICATION "walhook" ADD TABLE "public"."orders"; ALTER PUBLICATION "walhook" SET (publish = 'insert, update');"#;
    assert_eq!(report.steps, [sql]);

    facts.publication = Some(PublicationFacts { owned: false, ..empty });
    let report = judge(&facts, &wanted());
    assert!(report.steps.is_empty());
    assert!(said(&report).contains("lacks table public.orders -> run `ALTER PUB"), "{report:?}");
    assert_eq!(report.exit() as u8, 3);
}

/// Changes a sound set-up.
type Spoil = fn(&mut CatalogFacts, &mut WantedObjects);

#[test]
fn each_defect_of_the_server_or_slot_is_named_with_its_fix_and_exit_code() {
    let cases: [(&str, Spoil, &str, u8); 13] = [
        ("wal_level", |f, _| f.server.wal_level = "replica".into(), "SET wal_level = logical", 3),
        ("standby", |f, _| f.server.standby = true, "read-write", 3),
        ("role", |f, _| f.server.may_replicate = false, r#"ALTER ROLE "app" REPLICATION"#, 3),
        ("walsenders", |f, _| f.server.walsenders = 10, "SET max_wal_senders = 15", 3),
        (
            "no free slot",
            |f, _| (f.slot, f.server.slots) = (None, 10),
            "SET max_replication_slots = 15",
            3,
        ),
        (
            "plugin",
            |f, _| f.slot.as_mut().unwrap().plugin = "test_decoding".into(),
            "another slot name",
            3,
        ),
        (
            "slot of another database",
            |f, _| f.slot.as_mut().unwrap().here = false,
            "belongs to database app",
            3,
        ),
        (
            "slot in use",
            |f, _| f.slot.as_mut().unwrap().active_pid = Some(77),
            "pg_terminate_backend(77)",
            3,
        ),
        (
            "slot lost",
            |f, _| f.slot.as_mut().unwrap().wal_status = "lost".into(),
            "changes after 0/2",
            4,
        ),
        (
            "slot about to be lost",
            |f, _| f.slot.as_mut().unwrap().wal_status = "unreserved".into(),
            "Warning: slot walhook is about to be lost",
            0,
        ),
        ("slot before its publication", |f, _| f.publication = None, "walhook run --accept-gap", 4),
        (
            "no right to create",
            |f, _| (f.publication, f.slot, f.server.may_create) = (None, None, false),
            r#"CREATE PUBLICATION "walhook" FOR TABLE"#,
            3,
        ),
        (
            "not the owner",
            |f, _| {
                (f.publication, f.slot) = (None, None);
                f.tables = vec![Some(TableFacts { owned: false, ..table() })];
            },
            "as a superuser or as the owner",
            3,
        ),
    ];
    check(&cases);
}

#[test]
fn each_defect_of_a_table_is_named_with_its_fix_and_exit_code() {
    let cases: [(&str, Spoil, &str, u8); 13] = [
        (
            "a misspelt table",
            |f, _| (f.tables, f.neighbours) = (vec![None], vec![TableName::new("public", "order")]),
            "table public.orders does not exist -> did you mean public.order?",
            3,
        ),
        (
            "a table of another schema",
            |f, _| (f.tables, f.neighbours) = (vec![None], vec![TableName::new("shop", "orders")]),
            "did you mean shop.orders?",
            3,
        ),
        (
            "a table unlike any other",
            |f, _| (f.tables, f.neighbours) = (vec![None], vec![TableName::new("q", "zz")]),
            "-> create it",
            3,
        ),
        ("a view", |f, _| f.tables[0].as_mut().unwrap().kind = 'v', "is a view", 3),
        ("unlogged", |f, _| f.tables[0].as_mut().unwrap().persistence = 'u', "SET LOGGED", 3),
        ("temporary", |f, _| f.tables[0].as_mut().unwrap().persistence = 't', "temporary", 3),
        (
            "no usage",
            |f, _| f.tables[0].as_mut().unwrap().schema_usable = false,
            r#"GRANT USAGE ON SCHEMA "public" TO "app""#,
            3,
        ),
        (
            "no select",
            |f, _| f.tables[0].as_mut().unwrap().readable = false,
            r#"GRANT SELECT ON "public"."orders" TO "app""#,
            3,
        ),
        (
            "a misspelt column",
            |_, w| w.tables[0].columns.push("statsu".into()),
            "no column statsu -> did you mean status?",
            3,
        ),
        (
            "updates without an identity",
            |f, w| {
                without_key(f.tables[0].as_mut().unwrap());
                w.tables[0].operations = UPDATE;
            },
            "REPLICA IDENTITY FULL",
            3,
        ),
        (
            "inserts without a key",
            |f, _| without_key(f.tables[0].as_mut().unwrap()),
            "Warning: table public.orders has no primary key",
            0,
        ),
        (
            "a column that is not published",
            |f, _| f.publication.as_mut().unwrap().published[0].columns = Some(vec!["id".into()]),
            "lacks column status of table public.orders",
            3,
        ),
        (
            "a table that nobody wants",
            |f, _| f.publication.as_mut().unwrap().members.push(TableName::new("public", "x")),
            "Warning: publication walhook also publishes public.x, which no event of this configuration \
             is about -> if another system reads them",
            0,
        ),
    ];
    check(&cases);
}

#[test]
fn what_may_be_a_slip_or_a_danger_is_named() {
    let cases: [(&str, Spoil, &str, u8); 3] = [
        (
            "a misspelt table, and the right one in the publication",
            |f, w| {
                f.tables[0] = None;
                f.neighbours = vec![table_name()];
                w.tables[0].name = TableName::new("public", "odrers");
            },
            "table public.odrers does not exist -> did you mean public.orders?",
            3,
        ),
        (
            "a misspelt publication",
            |f, w| {
                f.publication = None;
                f.publications = vec!["other".to_owned(), "walhook".to_owned()];
                w.publication = "walhok".to_owned();
            },
            "did you mean walhook?",
            3,
        ),
        (
            "a slot that may soon be lost",
            |f, _| {
                let slot = f.slot.as_mut().unwrap();
                slot.retained_bytes = Some(42 << 20);
                slot.safe_bytes = Some(6 << 20);
            },
            "Warning: slot walhook retains 42 MiB of WAL and may be lost after 6 MiB more",
            0,
        ),
    ];
    check(&cases);
}

fn check(cases: &[(&str, Spoil, &str, u8)]) {
    for (name, spoil, expected, exit_code) in cases {
        let (mut facts, mut wanted) = (sound(), wanted());
        spoil(&mut facts, &mut wanted);
        let report = judge(&facts, &wanted);
        let said = said(&report);
        assert!(said.contains(expected), "case: {name}: {said}");
        assert_eq!(report.exit() as u8, *exit_code, "case: {name}");
        assert_eq!(said.lines().count(), 1, "case: {name}: {said}");
    }
}

#[test]
fn what_only_newer_versions_have_is_taken_into_account() {
    let wal_level = |level: &str, effective: Option<&str>| {
        let mut facts = sound();
        facts.server.wal_level = level.to_owned();
        facts.server.effective_wal_level = effective.map(ToOwned::to_owned);
        said(&judge(&facts, &wanted()))
    };
    assert_eq!(wal_level("replica", Some("logical")), "");
    assert_eq!(wal_level("replica", Some("replica")), "", "the slot raises it");
    assert!(wal_level("minimal", Some("minimal")).contains("wal_level is minimal"));
    assert!(wal_level("replica", None).contains("wal_level is replica"));
    let mut facts = sound();
    facts.server.idle_slot_timeout = Some("1d".to_owned());
    let told = said(&judge(&facts, &wanted()));
    assert!(told.contains("away for longer than 1d (idle_replication_slot_timeout)"), "{told}");
}

#[test]
fn slots_that_standbys_keep_are_refused_where_there_are_none() {
    let wanted = WantedObjects { failover: true, ..wanted() };
    let judged = |version, standby| {
        let mut facts = sound();
        (facts.server.version, facts.server.standby) = (version, standby);
        said(&judge(&facts, &wanted))
    };
    assert!(judged(160_003, false).contains("PostgreSQL 16 has no slots that standbys keep"));
    assert!(judged(170_003, true).contains("the server is a standby"));
    assert_eq!(judged(170_003, false), "");
}

#[test]
fn everything_is_said_at_once() {
    let mut facts = fresh();
    facts.server.wal_level = "replica".to_owned();
    facts.server.may_replicate = false;
    facts.tables = vec![Some(TableFacts { readable: false, schema_usable: false, ..table() })];
    assert_eq!(judge(&facts, &wanted()).problems().len(), 4);
}

#[test]
fn a_server_that_is_too_old_is_refused_before_anything_else_is_asked() {
    let mut server = sound().server;
    assert_eq!(too_old(&server), None);
    (server.version, server.version_text) = (130_011, "13.11".to_owned());
    assert_eq!(
        too_old(&server),
        Some(SetupDiagnostic::ServerTooOld { version: "13.11".to_owned() })
    );
}
