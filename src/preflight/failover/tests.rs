//! `preflight::failover`, by cases.

use super::*;
use crate::replication::catalog::FindingLevel;

fn standby(change: impl FnOnce(&mut ServerSide)) -> ServerSide {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut side = ServerSide {
        at: String::from("two:5432"),
        standby: true,
        settings: vec![
            setting("sync_replication_slots", "on"),
            setting("hot_standby_feedback", "on"),
            setting("primary_conninfo", "host=one dbname=postgres"),
            setting("primary_slot_name", "two"),
            setting("wal_level", "logical"),
        ],
        slots: vec![SlotSide {
            name: String::from("walhook"),
            failover: true,
            synced: true,
            ..SlotSide::default()
        }],
    };
    change(&mut side);
    side
}

fn primary(list: &str, change: impl FnOnce(&mut SlotSide)) -> ServerSide {
    let name = String::from("two");
    let mut slot = SlotSide { name, physical: true, active: true, ..SlotSide::default() };
    change(&mut slot);
    let settings = vec![(String::from("synchronized_standby_slots"), list.to_owned())];
    let at = String::from("the primary");
    ServerSide { at, standby: false, settings, slots: vec![slot] }
}

fn set(side: &mut ServerSide, name: &str, value: &str) {
    side.settings.retain(|(known, _)| known != name);
    side.settings.push((name.to_owned(), value.to_owned()));
}

/// What is not fine.
fn said(findings: &[CheckFinding]) -> String {
    let bad = findings.iter().filter(|finding| finding.level > FindingLevel::Ok);
    bad.map(|finding| format!("{}\n", finding.what)).collect()
}

#[test]
fn each_thing_that_is_missing_on_a_standby_is_named() {
    let whole = primary("two", |_| {});
    let judge = |side: &ServerSide| said(&judge_standby(side, "walhook", &whole));
    assert_eq!(judge(&standby(|_| {})), "");
    type Change = fn(&mut ServerSide);
    let cases: [(Change, &str); 13] = [
        (|s| set(s, "sync_replication_slots", "off"), "sync_replication_slots is not on"),
        (|s| set(s, "hot_standby_feedback", "off"), "hot_standby_feedback is not on"),
        (|s| set(s, "wal_level", "replica"), "wal_level is replica"),
        (|s| set(s, "primary_conninfo", "host=one user=x"), "names no dbname"),
        (|s| set(s, "primary_conninfo", "postgres://x@one"), "names no dbname"),
        (|s| set(s, "primary_slot_name", ""), "primary_slot_name is empty"),
        (|s| set(s, "primary_slot_name", "three"), "three is not in synchronized_standby_slots"),
        (|s| s.slots.clear(), "does not have slot walhook yet"),
        (|s| s.slots[0].synced = false, "a slot walhook of its own"),
        (|s| s.slots[0].temporary = true, "not complete yet (temporary)"),
        (|s| s.slots[0].invalidated = Some(String::from("wal_removed")), "lost (wal_removed)"),
        (|s| s.slots[0].failover = false, "not marked for failover"),
        (|s| s.settings.clear(), "sync_replication_slots is not on"),
    ];
    for (change, expected) in cases {
        let told = judge(&standby(change));
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert_eq!(judge(&standby(|s| set(s, "primary_conninfo", "postgres://x@one/app"))), "");
    assert_eq!(judge(&standby(|s| set(s, "primary_conninfo", "dbname = app"))), "");
}

#[test]
fn what_the_primary_waits_for_has_to_be_there() {
    assert_eq!(said(&judge_primary(&primary("two", |_| {}))), "");
    assert!(said(&judge_primary(&primary("", |_| {}))).contains("is empty"));
    let stale = said(&judge_primary(&primary("two, \"three\"", |_| {})));
    assert!(stale.contains("names three, which does not exist"), "{stale}");
    type Change = fn(&mut SlotSide);
    let cases: [(Change, &str); 3] = [
        (|slot| slot.physical = false, "no physical slot"),
        (|slot| slot.active = false, "no standby reads"),
        (|slot| slot.invalidated = Some(String::from("wal_removed")), "lost (wal_removed)"),
    ];
    for (change, expected) in cases {
        let told = said(&judge_primary(&primary("two", change)));
        assert!(told.contains(expected), "{expected}: {told}");
    }
}
