//! What one seed sets up: tables, rules, endpoints, how well everything does, and how often it does not.

use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::config::configuration::Settings;
use crate::pipeline::simulation::dice::SeededDice;

/// After this, nothing new is written, and soon after all is well.
const LENGTH: Duration = Duration::from_secs(6);

/// How an endpoint does for a while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ReceiverMood {
    Well,
    /// Slow, and no more.
    Slow,
    /// Some requests fail, in all ways there are.
    Flaky,
    /// Every request is refused at once.
    Dead,
    /// No request is answered.
    Hanging,
    /// Asks for less: 429.
    Throttling,
    /// Some are refused for good.
    Picky,
}

/// Which events an endpoint takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EndpointTaste {
    All,
    /// Those of the first table.
    FirstTable,
    /// Those whose row is of tier `a`.
    TierA,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum OrderPromise {
    Key,
    Strict,
    None,
}

#[derive(Clone, Debug)]
pub(super) struct ModelEndpoint {
    pub(super) name: String,
    pub(super) taste: EndpointTaste,
    pub(super) order: OrderPromise,
    /// Attempts that a delivery has.
    pub(super) attempts_max: u32,
    /// What is parked may be given up for want of room.
    pub(super) may_drop: bool,
    /// How it does, and until when.
    pub(super) moods: Vec<(Duration, ReceiverMood)>,
    /// `None`: it is there from the start.
    pub(super) added: Option<Duration>,
    pub(super) removed: Option<Duration>,
    text: String,
}

/// An `[[event]]`.
#[derive(Clone, Debug)]
pub(super) struct ModelRule {
    pub(super) event_type: &'static str,
    pub(super) table: usize,
    pub(super) on: &'static [&'static str],
    /// Rows of tier `x` raise nothing.
    pub(super) is_filtered: bool,
    pub(super) expiry: Option<Duration>,
}

/// How a run ends before everything has arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PlannedEnd {
    /// At the n-th time that any stage is polled.
    AtPoll(u64),
    /// At a named point.
    AtPoint,
    /// It is asked to stop after so long.
    Stop(Duration),
}

/// How a run of one of several members ends, and how long none is there before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RoleEnd {
    Planned {
        end: PlannedEnd,
        absent: Duration,
    },
    /// It stands still after so long, for so long.
    Freeze {
        after: Duration,
        lasts: Duration,
        absent: Duration,
    },
}

impl RoleEnd {
    pub(super) fn planned(self) -> Option<PlannedEnd> {
        match self {
            Self::Planned { end, .. } => Some(end),
            Self::Freeze { .. } => None,
        }
    }

    pub(super) fn absent(self) -> Duration {
        match self {
            Self::Planned { absent, .. } | Self::Freeze { absent, .. } => absent,
        }
    }

    fn draw(dice: &mut SeededDice) -> Self {
        let absent = if dice.one_in(4) { dice.millis(0..8000) } else { Duration::ZERO };
        match dice.one_in(4) {
            true => Self::Freeze {
                after: dice.millis(0..4000),
                lasts: dice.millis(100..12_000),
                absent,
            },
            false => Self::Planned { end: end(dice), absent },
        }
    }
}

/// What is drawn besides where a tail reads and others deliver.
#[derive(Debug)]
pub(super) struct RolesScenario {
    pub(super) partitions: NonZeroU16,
    /// `[relay] patience`.
    pub(super) patience: Duration,
    pub(super) tail_ends: Vec<RoleEnd>,
    /// By partition.
    pub(super) owner_ends: Vec<Vec<RoleEnd>>,
    /// One in so many messages, answers and reads of the broker goes wrong; 0: none does.
    pub(super) broker_odds: u32,
    /// When it cannot be reached.
    pub(super) broker_away: Vec<(Duration, Duration)>,
    /// One in so many looks something happens to a stream.
    pub(super) damage_odds: u32,
}

impl RolesScenario {
    fn draw(dice: &mut SeededDice) -> Self {
        let partitions = dice.pick(&[1, 2, 3]);
        let ends = |dice: &mut SeededDice| -> Vec<RoleEnd> {
            (0..dice.number(0..4)).map(|_| RoleEnd::draw(dice)).collect()
        };
        let away = |dice: &mut SeededDice| {
            let from = dice.millis(0..6000);
            (from, from + dice.millis(50..5000))
        };
        Self {
            partitions: NonZeroU16::new(partitions).unwrap(),
            patience: dice.millis(500..9000),
            tail_ends: ends(dice),
            owner_ends: (0..partitions).map(|_| ends(dice)).collect(),
            broker_odds: dice.pick(&[0, 10, 50, 300]),
            broker_away: (0..dice.number(0..3)).map(|_| away(dice)).collect(),
            damage_odds: dice.pick(&[0, 0, 4, 20]),
        }
    }
}

/// Everything that is drawn before the simulation begins.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) rules: Vec<ModelRule>,
    pub(super) endpoints: Vec<ModelEndpoint>,
    /// Whether the tables' events are ordered by `grp` rather than by the primary key.
    pub(super) orders_by_group: bool,
    pub(super) has_truncates: bool,
    pub(super) transactions: usize,
    pub(super) length: Duration,
    /// Bytes of rows and events in memory.
    pub(super) budget_bytes: usize,
    pub(super) hold_wal_bytes: u64,
    pub(super) hold_wal_time: Duration,
    pub(super) ends: Vec<PlannedEnd>,
    /// One in so many reads ends with the connection; 0: none does.
    pub(super) drop_odds: u32,
    /// What is written takes up to so many milliseconds to come, with each read.
    pub(super) read_lag: u64,
    /// One in so many lost connections was a crash of the server.
    pub(super) slot_back_odds: u32,
    /// One in so many flushes fails or is slow; 0: none does.
    pub(super) flush_odds: u32,
    /// When the state cannot be reached.
    pub(super) state_away: Vec<(Duration, Duration)>,
    /// One in so many pages of the backlog cannot be read.
    pub(super) page_odds: u32,
    /// A stage that could go on is let wait one time in so many.
    pub(super) defer_odds: u32,
    /// An operator does something one time in so many looks.
    pub(super) operator_odds: u32,
    /// `None`: one process reads and delivers.
    pub(super) roles: Option<Arc<RolesScenario>>,
}

impl Scenario {
    pub(super) fn draw(dice: &mut SeededDice) -> Self {
        let has_truncates = dice.one_in(4);
        let rules = rules(dice, has_truncates);
        let count = dice.number(1..5);
        let endpoints = (0..count).map(|n| endpoint(dice, n, has_truncates)).collect();
        let ends = (0..dice.number(0..5)).map(|_| end(dice)).collect();
        let away = |dice: &mut SeededDice| {
            let from = dice.millis(0..6000);
            (from, from + dice.millis(50..4000))
        };
        let state_away = (0..dice.number(0..3)).map(|_| away(dice)).collect();
        Self {
            rules,
            endpoints,
            orders_by_group: dice.one_in(4),
            has_truncates,
            transactions: usize::try_from(dice.number(3..40)).unwrap(),
            length: LENGTH,
            budget_bytes: dice.pick(&[8 << 10, 32 << 10, 1 << 20, 1 << 20]),
            hold_wal_bytes: dice.pick(&[0, 4 << 10, 1 << 30]),
            hold_wal_time: dice.millis(0..1000),
            ends,
            drop_odds: dice.pick(&[0, 8, 30, 100]),
            read_lag: dice.pick(&[1, 1, 20, 150]),
            slot_back_odds: dice.pick(&[0, 2, 4]),
            flush_odds: dice.pick(&[0, 3, 10]),
            state_away,
            page_odds: dice.pick(&[0, 4, 20]),
            defer_odds: dice.pick(&[0, 2, 6]),
            operator_odds: dice.pick(&[0, 0, 3, 10]),
            roles: None,
        }
    }

    /// The same where one process reads and others deliver: endpoints are those of the file then.
    pub(super) fn draw_roles(dice: &mut SeededDice) -> Self {
        let mut scenario = Self::draw(dice);
        for endpoint in &mut scenario.endpoints {
            (endpoint.added, endpoint.removed) = (None, None);
        }
        (scenario.ends, scenario.operator_odds) = (Vec::new(), 0);
        scenario.roles = Some(Arc::new(RolesScenario::draw(dice)));
        scenario
    }

    /// The configuration as an operator would write it.
    pub(super) fn settings(&self) -> Settings {
        let mut text = String::from(
            "[postgres]\nurl = \"postgres://walhook@localhost/app\"\n[webhook]\ntimeout = \"1s\"\n",
        );
        for rule in &self.rules {
            let table = table_name(rule.table);
            writeln!(text, "[[event]]\ntype = \"{}\"\ntable = \"public.{table}\"", rule.event_type)
                .unwrap();
            writeln!(text, "on = {:?}", rule.on).unwrap();
            if self.orders_by_group {
                text.push_str("order_by = [\"grp\"]\n");
            }
            if rule.is_filtered {
                text.push_str("when = \"tier != 'x'\"\n");
            }
            if let Some(expiry) = rule.expiry {
                writeln!(text, "expiry = \"{}ms\"", expiry.as_millis()).unwrap();
            }
        }
        for endpoint in &self.endpoints {
            text.push_str(&endpoint.text);
        }
        config::parse(&text, "walhook.toml", &|_| None)
            .unwrap_or_else(|problems| panic!("{text}\n{problems}"))
    }
}

pub(super) fn table_name(table: usize) -> &'static str {
    ["orders", "accounts"][table]
}

fn rules(dice: &mut SeededDice, has_truncates: bool) -> Vec<ModelRule> {
    let mut rule = |event_type, table, on, is_filtered: bool| ModelRule {
        event_type,
        table,
        on,
        is_filtered: is_filtered && dice.one_in(2),
        expiry: dice.one_in(6).then(|| dice.millis(200..3000)),
    };
    let all: &[&str] = match has_truncates {
        true => &["insert", "update", "delete", "truncate"],
        false => &["insert", "update", "delete"],
    };
    let mut rules = vec![
        rule("orders.written", 0, &["insert", "update"], true),
        rule(
            "orders.removed",
            0,
            if has_truncates { &["delete", "truncate"] } else { &["delete"] },
            false,
        ),
        rule("accounts.changed", 1, all, false),
    ];
    // One change raises two events.
    let second = rule("orders.seen", 0, all, false);
    if dice.one_in(3) {
        rules.push(second);
    }
    rules
}

fn endpoint(dice: &mut SeededDice, number: u64, has_truncates: bool) -> ModelEndpoint {
    let name = format!("e{number}");
    let taste = match dice.index(4) {
        0 => EndpointTaste::FirstTable,
        1 if !has_truncates => EndpointTaste::TierA,
        _ => EndpointTaste::All,
    };
    let order = dice.pick(&[
        OrderPromise::Key,
        OrderPromise::Key,
        OrderPromise::Key,
        OrderPromise::Strict,
        OrderPromise::None,
    ]);
    let retries = if dice.one_in(5) { dice.number(0..4) } else { 100 };
    let may_drop = dice.one_in(8);
    let mut text =
        format!("[[endpoint]]\nname = \"{name}\"\nurl = \"http://{name}.example.com/\"\n");
    let mut line = |key: &str, value: String| writeln!(text, "{key} = {value}").unwrap();
    match taste {
        EndpointTaste::All => {}
        EndpointTaste::FirstTable => line("events", String::from("[\"orders.*\"]")),
        EndpointTaste::TierA => line("when", String::from("\"tier == 'a'\"")),
    }
    let word = match order {
        OrderPromise::Key => "key",
        OrderPromise::Strict => "strict",
        OrderPromise::None => "none",
    };
    line("ordering", format!("\"{word}\""));
    let interval = dice.pick(&[20, 100, 400]);
    line("retry", format!("{{ max = {retries}, interval = \"{interval}ms\", cap = \"1s\" }}"));
    line("concurrency", dice.pick(&[1, 2, 8, 32]).to_string());
    let (size, linger): (usize, u64) = (dice.pick(&[1, 1, 1, 3, 10]), dice.pick(&[0, 20, 100]));
    line("batch", format!("{{ size = {size}, linger = \"{linger}ms\" }}"));
    line("capacity", dice.pick(&[1, 3, 10, 1000]).max(size).to_string());
    line("park_after", format!("\"{}ms\"", dice.pick(&[0, 50, 300, 10_000])));
    let failures = dice.pick(&[1, 3, 10]);
    line(
        "breaker",
        match dice.one_in(4) {
            true => String::from("false"),
            false => format!("{{ failures = {failures}, cooldown = \"100ms\", cap = \"1s\" }}"),
        },
    );
    line("gone", String::from("\"dead\""));
    if may_drop {
        line("backlog", format!("{{ rows = {}, age = \"1d\" }}", dice.number(1..10)));
    }
    if dice.one_in(6) {
        line("rate_limit", dice.pick(&[20, 200]).to_string());
    }
    let (added, removed) = match number {
        0 => (None, None),
        _ => (
            dice.one_in(8).then(|| dice.millis(100..4000)),
            dice.one_in(10).then(|| dice.millis(1000..5000)),
        ),
    };
    let attempts_max = u32::try_from(retries).unwrap() + 1;
    let moods = moods(dice);
    ModelEndpoint { name, taste, order, attempts_max, may_drop, moods, added, removed, text }
}

fn moods(dice: &mut SeededDice) -> Vec<(Duration, ReceiverMood)> {
    let all = [
        ReceiverMood::Well,
        ReceiverMood::Well,
        ReceiverMood::Slow,
        ReceiverMood::Flaky,
        ReceiverMood::Flaky,
        ReceiverMood::Dead,
        ReceiverMood::Hanging,
        ReceiverMood::Throttling,
        ReceiverMood::Picky,
    ];
    let mut until = Duration::ZERO;
    let mut moods = Vec::new();
    while until < LENGTH * 2 {
        until += dice.millis(100..3000);
        moods.push((until, dice.pick(&all)));
    }
    moods
}

fn end(dice: &mut SeededDice) -> PlannedEnd {
    match dice.index(4) {
        0 => PlannedEnd::Stop(dice.millis(0..3000)),
        1 => PlannedEnd::AtPoint,
        _ => PlannedEnd::AtPoll(dice.of_any_size(4000)),
    }
}
