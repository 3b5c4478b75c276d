//! Refusals that many operations have, each with its status and what it means.

use serde_json::Value;
use serde_json::json;

/// One of them; the document names it once, and refers to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SharedRefusal {
    WrongQuestion,
    OtherHost,
    Busy,
    TooSlow,
    NoToken,
    OtherSite,
    TooLarge,
    NotJson,
    StateAway,
    NoEndpoint,
    NotNow,
    Unservable,
    Conflict,
}

impl SharedRefusal {
    pub(crate) const ALL: [Self; 13] = [
        Self::WrongQuestion,
        Self::OtherHost,
        Self::Busy,
        Self::TooSlow,
        Self::NoToken,
        Self::OtherSite,
        Self::TooLarge,
        Self::NotJson,
        Self::StateAway,
        Self::NoEndpoint,
        Self::NotNow,
        Self::Unservable,
        Self::Conflict,
    ];

    /// Its name in the document.
    pub(crate) const fn name(self) -> &'static str {
        self.facts().0
    }

    pub(crate) const fn status(self) -> u16 {
        self.facts().1
    }

    const fn facts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::WrongQuestion => ("WrongQuestion", 400, "The question is wrong"),
            Self::OtherHost => (
                "OtherHost",
                421,
                "Without [http] token walhook answers only to loopback names and those of [http] hosts",
            ),
            Self::Busy => ("Busy", 503, "Too many connections are open"),
            Self::TooSlow => ("TooSlow", 408, "The body did not come within 10 s"),
            Self::NoToken => ("NoToken", 401, "The token is missing or wrong"),
            Self::OtherSite => ("OtherSite", 403, "It comes from a page of another site"),
            Self::TooLarge => ("TooLarge", 413, "The body is larger than 64 KiB"),
            Self::NotJson => ("NotJson", 415, "The body has no Content-Type of JSON"),
            Self::StateAway => ("StateAway", 503, "The state cannot be read at the moment"),
            Self::NoEndpoint => ("NoEndpoint", 404, "There is no such endpoint"),
            Self::NotNow => (
                "NotNow",
                503,
                "This walhook waits for its slot or shuts down, or its state is away; nothing was changed",
            ),
            Self::Unservable => (
                "Unservable",
                422,
                "What the document says cannot be served; each key that is wrong is named",
            ),
            Self::Conflict => (
                "Conflict",
                409,
                "The name is taken, the endpoint stands in the configuration file or is being removed, \
                 there are too many, or there is no key for secrets",
            ),
        }
    }

    /// As an operation refers to it.
    pub(crate) fn reference(self) -> Value {
        json!({ "$ref": format!("#/components/responses/{}", self.name()) })
    }

    /// As the document shows it.
    pub(crate) fn response(self) -> Value {
        let (_, _, meaning) = self.facts();
        Self::described(meaning, if self == Self::Unservable { "Refusal" } else { "Problem" })
    }

    /// An answer that says what is wrong.
    pub(crate) fn described(meaning: &str, schema: &str) -> Value {
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        json!({
            "description": meaning,
            "content": { "application/problem+json": { "schema": schema } },
        })
    }
}
