//! `park_after`, `breaker` and `backlog`: what becomes of deliveries that cannot be made promptly.
//! They read the same in `[webhook]`, for all endpoints, and in an `[[endpoint]]`.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::sections::delivery_terms::set;
use crate::config::settings::BacklogLimits;
use crate::config::settings::BreakerSettings;
use crate::config::settings::ParkingSettings;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;

/// Shorter waits are cheaper in memory than by way of the database.
const AFTER: Duration = Duration::from_secs(10);
/// What waits in memory holds the WAL.
const AFTERS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

const FAILURES: usize = 5;
const FAILURES_RANGE: RangeInclusive<usize> = 1..=1000;

const COOLDOWN: Duration = Duration::from_secs(1);
const CAP: Duration = Duration::from_secs(60);
/// For the first cooldown and the longest alike.
const COOLDOWNS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);

const ROWS: usize = 1_000_000;
const ROWS_RANGE: RangeInclusive<usize> = 1..=1_000_000_000;

const AGE: Duration = Duration::from_secs(7 * 86_400);
const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);

impl Default for ParkingSettings {
    fn default() -> Self {
        Self {
            after: AFTER,
            breaker: Some(default_breaker()),
            backlog: BacklogLimits { rows: count(ROWS), age: AGE },
        }
    }
}

/// The constants above are not zero; `MIN` (1) is what a zero would become.
fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

fn default_breaker() -> BreakerSettings {
    BreakerSettings { failures: count(FAILURES), cooldown: COOLDOWN, cap: CAP }
}

/// Reads the keys that the section has; `parking` is what holds for the others.
pub(crate) fn read(section: &mut TomlSection<'_>, parking: &mut ParkingSettings) {
    set(&mut parking.after, section.read("park_after", |f| f.duration(&AFTERS)));
    if let Some(field) = section.field("breaker") {
        read_switch(&field, &mut parking.breaker);
    }
    if let Some(backlog) = section.read("backlog", FieldReader::section) {
        read_backlog(backlog, &mut parking.backlog);
    }
}

/// `false`: there is none; `true`: the usual one; a table says what it is like.
fn read_switch(field: &FieldReader<'_>, breaker: &mut Option<BreakerSettings>) {
    if field.is_table() {
        let Some(section) = field.section() else { return };
        read_breaker(section, breaker.get_or_insert_with(default_breaker));
    } else if field.is_boolean() {
        let is_on = field.boolean().unwrap_or(true);
        *breaker = is_on.then(|| breaker.unwrap_or_else(default_breaker));
    } else {
        field.note(format!(
            "must be a table or false, not {}: write {{ failures, cooldown, cap }}, or false for none",
            field.shown()
        ));
    }
}

fn read_breaker(mut section: TomlSection<'_>, breaker: &mut BreakerSettings) {
    set(&mut breaker.failures, section.read("failures", |f| f.count(&FAILURES_RANGE)));
    set(&mut breaker.cooldown, section.read("cooldown", |f| f.duration(&COOLDOWNS)));
    set(&mut breaker.cap, section.read("cap", |f| f.duration(&COOLDOWNS)));
    if breaker.cooldown > breaker.cap {
        section.note("cooldown", "is longer than `cap`: raise the cap");
    }
    section.finish();
}

fn read_backlog(mut section: TomlSection<'_>, limits: &mut BacklogLimits) {
    set(&mut limits.rows, section.read("rows", |f| f.count(&ROWS_RANGE)));
    set(&mut limits.age, section.read("age", |f| f.duration(&AGES)));
    section.finish();
}
