use std::sync::Arc;

use super::*;
use crate::config::expression::Expression;
use crate::config::settings::ExpiryRule;
use crate::config::settings::Filter;
use crate::config::settings::Operations;
use crate::config::settings::Payload;
use crate::config::template::Node;
use crate::event::route::tests::relation;
use crate::event::route::tests::rule;
use crate::flow::relation::SqlType;

fn things(identity: ReplicaIdentity) -> Relation {
    let columns = [("id", SqlType::Integer), ("name", SqlType::Text), ("n", SqlType::Integer)];
    let mut relation = Relation::clone(&relation("things", &columns));
    relation.identity = identity;
    relation
}

fn found(when: &str, payload: &str, on: Operations, identity: ReplicaIdentity) -> Vec<String> {
    let root = Arc::new(Node::Value(Expression::parse(payload).unwrap()));
    let rule = EventRule {
        on,
        filter: Some(Filter::When(Expression::parse(when).unwrap())),
        ..rule("things", Payload::Template { root, content_type: None })
    };
    let shown = |lack: &Lack| match lack {
        Lack::Column { used_in, column } => format!("{} lacks {column}", used_in.key()),
        Lack::OldRow { used_in, columns, whole } => {
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            let all = if *whole { " all" } else { "" };
            format!("{} needs old {}{all}", used_in.key(), columns.join(","))
        }
    };
    lacks(&rule, &things(identity)).iter().map(shown).collect()
}

#[test]
fn each_lack_is_found() {
    let none = Operations::default();
    let insert = Operations { insert: true, ..none };
    let update = Operations { update: true, ..none };
    let delete = Operations { delete: true, ..none };
    let key = ReplicaIdentity::Default;
    let full = ReplicaIdentity::Full;
    let nothing = ReplicaIdentity::Nothing;
    let cases: [(&str, &str, Operations, ReplicaIdentity, &[&str]); 12] = [
        ("id > 1", "name", insert, key, &[]),
        ("nam > 1", "row.x", insert, full, &["when lacks nam", "payload lacks x"]),
        ("name != old.name", "id", update, key, &["when needs old name"]),
        ("name != old.name", "id", update, full, &[]),
        ("name != old.name", "id", insert, key, &[]),
        ("id != old.id", "id", update, key, &[]),
        ("id != old.id", "id", update, nothing, &["when needs old id"]),
        ("true", "old.n", update, key, &["payload needs old n"]),
        ("name == 'x'", "n", delete, key, &["when needs old name", "payload needs old n"]),
        ("id == 1", "row", delete, key, &[]),
        ("'n' in changes", "id", update, key, &["when needs old  all"]),
        ("type(id) == int", "event", insert, key, &[]),
    ];
    for (when, payload, on, identity, expected) in cases {
        assert_eq!(found(when, payload, on, identity), expected, "case: {when}, {payload}");
    }
}

#[test]
fn a_filter_without_its_values_is_fatal_and_has_a_fix() {
    let lack = |used_in| Lack::OldRow { used_in, columns: BTreeSet::new(), whole: true };
    assert!(lack(Use::Filter).is_fatal());
    assert!(!lack(Use::Payload).is_fatal());
    assert_eq!(
        lack(Use::Filter).fix(&things(ReplicaIdentity::Default)).unwrap(),
        r#"ALTER TABLE "public"."things" REPLICA IDENTITY FULL;"#
    );
}

#[test]
fn order_and_age_columns_must_be_there_too() {
    let mut rule = rule("things", Payload::Standard);
    rule.order_by = vec!["customer".to_owned()];
    let column = Some("born".to_owned());
    rule.expiry = Some(ExpiryRule { column, max_age: std::time::Duration::from_secs(1) });
    let expected = [
        Lack::Column { used_in: Use::OrderBy, column: "customer".to_owned() },
        Lack::Column { used_in: Use::AgeColumn, column: "born".to_owned() },
    ];
    assert_eq!(lacks(&rule, &things(ReplicaIdentity::Default)), expected);
}
