//! The steps of the schema walhook, by their numbers.

use std::collections::BTreeSet;

/// One step of the schema. A step that was released is never changed again.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Greater than that of the one before.
    pub version: i32,
    pub name: &'static str,
    pub sql: &'static str,
}

/// All steps, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "state",
        sql: include_str!("../../../sql/migrations/0001_state.sql"),
    },
    Migration {
        version: 2,
        name: "replays",
        sql: include_str!("../../../sql/migrations/0002_replays.sql"),
    },
    Migration {
        version: 3,
        name: "poison",
        sql: include_str!("../../../sql/migrations/0003_poison.sql"),
    },
    Migration {
        version: 4,
        name: "write_backs",
        sql: include_str!("../../../sql/migrations/0004_write_backs.sql"),
    },
    Migration {
        version: 5,
        name: "seen_values",
        sql: include_str!("../../../sql/migrations/0005_seen_values.sql"),
    },
    Migration {
        version: 6,
        name: "fronts",
        sql: include_str!("../../../sql/migrations/0006_fronts.sql"),
    },
    Migration {
        version: 7,
        name: "headers",
        sql: include_str!("../../../sql/migrations/0007_headers.sql"),
    },
    Migration {
        version: 8,
        name: "push_log_indexes",
        sql: include_str!("../../../sql/migrations/0008_push_log_indexes.sql"),
    },
    Migration {
        version: 9,
        name: "push_log_batches",
        sql: include_str!("../../../sql/migrations/0009_push_log_batches.sql"),
    },
    Migration {
        version: 10,
        name: "books_common",
        sql: include_str!("../../../sql/migrations/0010_books_common.sql"),
    },
    Migration {
        version: 11,
        name: "slot_owner",
        sql: include_str!("../../../sql/migrations/0011_slot_owner.sql"),
    },
    Migration {
        version: 12,
        name: "crash_charges",
        sql: include_str!("../../../sql/migrations/0012_crash_charges.sql"),
    },
    Migration {
        version: 13,
        name: "gaps",
        sql: include_str!("../../../sql/migrations/0013_gaps.sql"),
    },
    Migration {
        version: 14,
        name: "endpoint_states",
        sql: include_str!("../../../sql/migrations/0014_endpoint_states.sql"),
    },
    Migration {
        version: 15,
        name: "push_totals",
        sql: include_str!("../../../sql/migrations/0015_push_totals.sql"),
    },
    Migration {
        version: 16,
        name: "body_pieces",
        sql: include_str!("../../../sql/migrations/0016_body_pieces.sql"),
    },
    Migration {
        version: 17,
        name: "resend_rates",
        sql: include_str!("../../../sql/migrations/0017_resend_rates.sql"),
    },
    Migration {
        version: 18,
        name: "renames",
        sql: include_str!("../../../sql/migrations/0018_renames.sql"),
    },
    Migration {
        version: 19,
        name: "replay_pauses",
        sql: include_str!("../../../sql/migrations/0019_replay_pauses.sql"),
    },
    Migration {
        version: 20,
        name: "backfills",
        sql: include_str!("../../../sql/migrations/0020_backfills.sql"),
    },
    Migration {
        version: 21,
        name: "endpoint_rows",
        sql: include_str!("../../../sql/migrations/0021_endpoint_rows.sql"),
    },
    Migration {
        version: 22,
        name: "partitions",
        sql: include_str!("../../../sql/migrations/0022_partitions.sql"),
    },
    Migration {
        version: 23,
        name: "backfill_moves",
        sql: include_str!("../../../sql/migrations/0023_backfill_moves.sql"),
    },
    Migration {
        version: 24,
        name: "backlog_by_event",
        sql: include_str!("../../../sql/migrations/0024_backlog_by_event.sql"),
    },
    Migration {
        version: 25,
        name: "relay",
        sql: include_str!("../../../sql/migrations/0025_relay.sql"),
    },
    Migration {
        version: 26,
        name: "shared_endpoints",
        sql: include_str!("../../../sql/migrations/0026_shared_endpoints.sql"),
    },
];

/// The tables that the migrations make, which may have been dropped since. Of a view nothing is lost.
pub fn tables() -> BTreeSet<&'static str> {
    let mut tables = BTreeSet::new();
    for line in MIGRATIONS.iter().flat_map(|step| step.sql.lines()) {
        let Some((verb, rest)) = line.split_once(" TABLE walhook.") else { continue };
        let mut words = rest.split([' ', ';']);
        let name = words.next().unwrap_or_default();
        match (verb, words.next(), words.next(), words.next()) {
            ("CREATE" | "CREATE UNLOGGED", ..) => {
                tables.insert(name);
            }
            ("DROP", ..) => {
                tables.remove(name);
            }
            ("ALTER", Some("RENAME"), Some("TO"), Some(new)) => {
                tables.remove(name);
                tables.insert(new);
            }
            _ => {}
        }
    }
    tables
}
