//! How an endpoint does, in words, and what is to be done about it.

use crate::api::surface::EndpointView;

/// What is known of an endpoint at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConditionNumbers {
    pub(crate) queued: i64,
    pub(crate) backlog: i64,
    /// Whether requests are held back because of failures.
    pub(crate) breaker_open: bool,
}

/// How an endpoint does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HealthCondition {
    pub(crate) words: String,
    /// What mends it; `None` if nothing is wrong.
    pub(crate) fix: Option<String>,
}

impl HealthCondition {
    pub(crate) fn of(view: &EndpointView, numbers: ConditionNumbers) -> Self {
        let name = &view.name;
        let wrong = |words: String, fix: String| Self { words, fix: Some(fix) };
        let well = |words: String| Self { words, fix: None };
        let waiting = numbers.queued.saturating_add(numbers.backlog);
        match view.state {
            "enabled" if numbers.breaker_open => wrong(
                format!("out of order, {waiting} waiting"),
                format!("see why with `walhook push-log --endpoint {name}`; it is tried by itself"),
            ),
            "enabled" if view.is_slowed => well(format!("slow, {waiting} waiting")),
            "enabled" if numbers.backlog > 0 => well(format!("behind, {} parked", numbers.backlog)),
            "enabled" => well(String::from("delivering")),
            "disabled" => well(String::from("disabled, takes no events")),
            "removing" => well(String::from("being removed")),
            "gone" => wrong(
                String::from("gone, it answered 410"),
                format!("`walhook endpoints enable {name}` lets it take events again"),
            ),
            "refused" => wrong(
                String::from("refused, it cannot be reached as it is configured"),
                String::from("correct its row or its document"),
            ),
            other => well(other.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_what_mends_it() {
        let cases = [
            ("enabled", (0, 0, false), "delivering", None),
            ("enabled", (9, 0, false), "delivering", None),
            ("enabled", (1, 41, false), "behind, 41 parked", None),
            ("enabled", (1, 41, false), "slow, 42 waiting", None),
            ("enabled", (1, 41, true), "out of order, 42 waiting", Some("--endpoint crm")),
            ("disabled", (0, 5, true), "disabled, takes no events", None),
            ("gone", (0, 0, false), "gone, it answered 410", Some("endpoints enable crm")),
            ("refused", (0, 0, false), "refused", Some("correct its row")),
            ("paused", (0, 3, false), "paused", None),
        ];
        for (state, (queued, backlog, breaker_open), words, fix) in cases {
            let (name, url) = ("crm".into(), String::new());
            let is_slowed = words.starts_with("slow");
            let view = EndpointView { name, url, state, paused: None, is_slowed, source: "file" };
            let found =
                HealthCondition::of(&view, ConditionNumbers { queued, backlog, breaker_open });
            assert!(found.words.starts_with(words), "case: {state}: {found:?}");
            assert_eq!(found.fix.is_some(), fix.is_some(), "case: {state}: {found:?}");
            assert!(found.fix.unwrap_or_default().contains(fix.unwrap_or_default()));
        }
    }
}
