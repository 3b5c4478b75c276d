//! `event::require`, by cases.

use std::sync::Arc;

use super::*;
use crate::config::settings::EventFilter;
use crate::config::settings::ExpiryRule;
use crate::config::settings::Operations;
use crate::config::settings::PayloadSettings;
use crate::event::route::tests::relation;
use crate::event::route::tests::rule;
use crate::expression::Expression;
use crate::expression::template::TemplateNode;
use crate::flow::relation::SqlType;

fn things(identity: ReplicaIdentity) -> Relation {
    let columns = [("id", SqlType::Integer), ("name", SqlType::Text), ("n", SqlType::Integer)];
    let mut relation = Relation::clone(&relation("things", &columns));
    relation.identity = identity;
    relation
}

fn found(when: &str, payload: &str, on: Operations, identity: ReplicaIdentity) -> Vec<String> {
    let root = Arc::new(TemplateNode::Value(Expression::parse(payload).unwrap()));
    let rule = EventRule {
        on,
        filter: Some(EventFilter::When(Expression::parse(when).unwrap())),
        ..rule("things", PayloadSettings::Template { root, content_type: None })
    };
    let shown = |lack: &MissingInput| match lack {
        MissingInput::Column { used_in, column } => format!("{} lacks {column}", used_in.key()),
        MissingInput::OldRow { used_in, columns, whole } => {
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
fn a_filter_without_its_values_is_fatal() {
    let lack = |used_in| MissingInput::OldRow { used_in, columns: BTreeSet::new(), whole: true };
    assert!(lack(InputUse::Filter).is_fatal());
    assert!(!lack(InputUse::Payload).is_fatal());
}

#[test]
fn order_and_age_columns_must_be_there_too() {
    let mut rule = rule("things", PayloadSettings::Standard);
    rule.order_by = vec!["customer".to_owned()];
    let column = Some("born".to_owned());
    rule.expiry = Some(ExpiryRule { column, max_age: std::time::Duration::from_secs(1) });
    let expected = [
        MissingInput::Column { used_in: InputUse::OrderBy, column: "customer".to_owned() },
        MissingInput::Column { used_in: InputUse::AgeColumn, column: "born".to_owned() },
    ];
    assert_eq!(lacks(&rule, &things(ReplicaIdentity::Default)), expected);
}
