//! `channel` of an `[[endpoint]]`, and the keys that stand beside it.

use std::ops::RangeInclusive;

use url::Url;

use crate::config::secret::Secret;
use crate::config::sections::delivery_terms::EndpointTerms;
use crate::config::settings::AnswerRule;
use crate::config::settings::Channel;
use crate::config::settings::ChannelSignature;
use crate::config::settings::EventGlob;
use crate::config::settings::EventRule;
use crate::config::settings::Overflow;
use crate::config::settings::PRESETS;
use crate::config::settings::PayloadSettings;
use crate::config::settings::Preset;
use crate::config::settings::WecomApp;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::config::url_template;

const WECOM_URL: &str = "https://qyapi.weixin.qq.com";
const TOKEN_PATH: &str = "cgi-bin/gettoken";
const SEND_PATH: &str = "cgi-bin/message/send";

const AGENT_IDS: RangeInclusive<i64> = 0..=i64::MAX;

/// What a chat system's limits on waits are exceeded by, for the jitter on them.
const CAP_SPREAD: f64 = 1.2;

/// What stands in the file before the terms are read.
pub(crate) struct Begun {
    preset: &'static Preset,
    app: Option<WecomApp>,
    overflow: Overflow,
    url: Option<Secret<Url>>,
}

impl Begun {
    /// Where an application's messages go, if that is known; a robot has its `url`.
    pub(crate) fn app_url(&self) -> Option<Option<Secret<Url>>> {
        self.preset.has_token.then(|| self.url.clone())
    }
}

/// What an endpoint has beside its channel.
pub(crate) struct Beside<'a> {
    pub(crate) payload: Option<&'a PayloadSettings>,
    pub(crate) events: &'a [EventGlob],
    pub(crate) rules: Option<&'a [EventRule]>,
    pub(crate) http2: bool,
}

/// Reads the channel and makes its terms the defaults of what follows.
pub(crate) fn begin(section: &mut TomlSection<'_>, terms: &mut EndpointTerms) -> Option<Begun> {
    let names: Vec<_> = PRESETS.iter().map(|preset| (preset.name, preset)).collect();
    let preset = section.read("channel", |field| field.one_of(&names))?;
    // What [webhook] gives to receivers that read walhook's own signatures and answers.
    terms.secrets.clear();
    terms.scheme = None;
    terms.signing = None;
    terms.is_channel = true;
    terms.answers = AnswerRule { retry: terms.answers.retry.clone(), ..AnswerRule::default() };
    terms.batch.size = std::num::NonZeroUsize::MIN;
    terms.rate_limit = preset.rate_limit;
    let (app, url) = if preset.has_token { read_app(section) } else { (None, None) };
    let overflow = match preset.texts {
        [] => None,
        _ => section.read("overflow", |field| {
            field.one_of(&[("cut", Overflow::Cut), ("split", Overflow::Split)])
        }),
    };
    Some(Begun { preset, app, overflow: overflow.unwrap_or_default(), url })
}

fn read_app(section: &mut TomlSection<'_>) -> (Option<WecomApp>, Option<Secret<Url>>) {
    let missing = "is missing: give the id of the corporation (ww...)";
    let corp_id = section.require("corp_id", missing, |field| match field.string()?.trim() {
        "" => field.refuse("is empty: give the id of the corporation (ww...)"),
        id => Some(id.to_owned()),
    });
    let missing = "is missing: give the application's secret";
    let corp_secret = section.require("corp_secret", missing, FieldReader::fixed_secret);
    let agent_id = section.require("agent_id", "is missing: give the application's id", agent_id);
    let base = match section.field("base_url") {
        Some(field) => base_url(&field),
        None => Url::parse(WECOM_URL).ok(),
    };
    if section.has("url") {
        section.note("url", "is a robot's: an application has a `base_url`, if it needs one");
    }
    let below = |path: &str| base.as_ref()?.join(path).ok().map(Secret::new);
    let url = below(SEND_PATH);
    let app = || {
        Some(WecomApp {
            token_url: below(TOKEN_PATH)?,
            corp_id: corp_id?,
            corp_secret: corp_secret?,
            agent_id: agent_id?,
        })
    };
    (app(), url)
}

fn base_url(field: &FieldReader<'_>) -> Option<Url> {
    let mut url = url_template::fixed(field)?.reveal().clone();
    if url.query().is_some() {
        return field.refuse("has a query: end it before the `?`");
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Some(url)
}

/// A number, also as the text that a variable gives.
fn agent_id(field: &FieldReader<'_>) -> Option<i64> {
    if !field.is_string() {
        return field.integer(&AGENT_IDS);
    }
    let text = field.string()?;
    let id = text.trim().parse().ok().filter(|id| AGENT_IDS.contains(id));
    id.or_else(|| field.refuse("is no number: give the application's AgentId, such as 1000002"))
}

/// What all of it makes together.
pub(crate) fn finish(
    section: &mut TomlSection<'_>,
    begun: Begun,
    terms: &mut EndpointTerms,
    beside: &Beside<'_>,
) -> Option<Channel> {
    let Begun { preset, app, overflow, .. } = begun;
    for (key, why) in [
        ("signing", "is the channel's own"),
        ("success", "is the channel's own"),
        ("auth", "is the channel's own"),
        ("gone", "is the channel's own"),
    ] {
        if section.has(key) {
            section.note(key, format!("{why}: remove it, or `channel`"));
        }
    }
    if section.has("batch") && terms.batch.size.get() > 1 {
        section.note("batch", "cannot hold messages of a channel, which go one by one: remove it");
    }
    if beside.http2 {
        section.note("http2", "cannot stand beside `channel`: remove it");
    }
    if preset.signature == ChannelSignature::None && section.has("secret") {
        let name = preset.name;
        section.note("secret", format!("has no use: {name} takes no signature, so remove it"));
    }
    if terms.secrets.len() > 1 {
        section.note("secret", "has several entries, but one signature is sent: give one");
    }
    if let Some(event_type) = shapeless(beside) {
        let message = format!(
            "takes messages, and {event_type} is none: give a `payload`, such as \
             {{ msgtype = \"text\", text = {{ content = \"{{{{ content }}}}\" }} }}"
        );
        section.note("channel", message);
    }
    terms.retry_cap = terms.retry_cap.max(preset.longest_wait().mul_f64(CAP_SPREAD));
    if preset.has_token && app.is_none() {
        return None;
    }
    Some(Channel { preset, app, secret: terms.secrets.first().cloned(), overflow })
}

/// An event whose body is no message, if there is one.
fn shapeless(beside: &Beside<'_>) -> Option<String> {
    let is_message =
        |payload: &PayloadSettings| matches!(payload, PayloadSettings::Template { .. });
    if let Some(payload) = beside.payload {
        let what = "what this payload makes of an event".to_owned();
        return (!is_message(payload)).then_some(what);
    }
    let taken = |rule: &&EventRule| beside.events.iter().any(|glob| glob.matches(&rule.event_type));
    let found = beside.rules?.iter().filter(taken).find(|rule| !is_message(&rule.payload))?;
    Some(found.event_type.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::settings::Endpoint;
    use std::time::Duration;

    const EVENT: &str = "[postgres]\nurl = 'postgres://u@db/app'\n\
        [[event]]\ntype = 'm'\ntable = 'public.m'\n";
    const PAYLOAD: &str = "payload = { msgtype = 'text', text = { content = '{{ content }}' } }\n";

    fn read(keys: &str) -> Result<Endpoint, String> {
        let text = format!("{EVENT}[[endpoint]]\nname = 'e'\n{keys}");
        let read = config::parse(&text, "walhook.toml", &|_| None);
        read.map(|settings| settings.endpoints[0].clone()).map_err(|problems| problems.to_string())
    }

    fn robot(name: &str, more: &str) -> Result<Endpoint, String> {
        read(&format!("channel = '{name}'\nurl = 'https://h.test/robot?key=k'\n{PAYLOAD}{more}"))
    }

    #[test]
    fn a_channel_gives_terms_that_the_file_may_change() {
        let robots = read(&format!(
            "channel = 'dingtalk-robot'\nurl = 'https://h.test/'\nsecret = 'SECshort'\n{PAYLOAD}"
        ));
        let endpoint = robots.unwrap();
        let channel = endpoint.channel.unwrap();
        assert_eq!(channel.secret.unwrap().reveal(), "SECshort");
        assert_eq!((endpoint.rate_limit, endpoint.signing), (Some(0.33), None));
        assert!(endpoint.retry.cap > Duration::from_secs(600), "the wait is kept whole");
        let endpoint = robot("wecom-robot", "rate_limit = 0.1\noverflow = 'split'\n").unwrap();
        let channel = endpoint.channel.unwrap();
        assert_eq!((endpoint.rate_limit, channel.overflow), (Some(0.1), Overflow::Split));
    }

    #[test]
    fn an_application_has_its_addresses_below_the_base() {
        let keys = "channel = 'wecom-app'\ncorp_id = 'ww1'\ncorp_secret = 'opensesame'\n";
        let app = |more: &str| read(&format!("{keys}{PAYLOAD}{more}"));
        let endpoint = app("agent_id = '1000002'\n").unwrap();
        assert_eq!(
            endpoint.url.reveal().as_str(),
            "https://qyapi.weixin.qq.com/cgi-bin/message/send"
        );
        assert_eq!(endpoint.channel.unwrap().app.unwrap().agent_id, 1_000_002);
        let endpoint = app("agent_id = 7\nbase_url = 'http://gw.test/wecom'\n").unwrap();
        assert_eq!(endpoint.url.reveal().as_str(), "http://gw.test/wecom/cgi-bin/message/send");
        let token_url = endpoint.channel.unwrap().app.unwrap().token_url;
        assert_eq!(token_url.reveal().as_str(), "http://gw.test/wecom/cgi-bin/gettoken");
        let cases = [
            ("agent_id = 'x'\n", "agent_id: is no number"),
            ("", "agent_id: is missing"),
            ("agent_id = 1\nurl = 'http://h.test/'\n", "url: is a robot's"),
            ("agent_id = 1\nbase_url = 'http://h.test/?a=1'\n", "base_url: has a query"),
            ("agent_id = 1\noverflow = 'cut'\n", "overflow: unknown key"),
        ];
        for (more, expected) in cases {
            let said = app(more).unwrap_err();
            assert!(said.contains(expected), "case: {more}: {said}");
            assert!(!said.contains("opensesame"));
        }
    }

    #[test]
    fn what_a_channel_has_no_use_for_is_refused() {
        let cases = [
            ("slack", "secret = 'abc'\n", "secret: has no use"),
            ("slack", "batch = { size = 5 }\n", "batch: cannot hold messages"),
            ("slack", "http2 = true\n", "http2: cannot stand"),
            ("slack", "success = [200]\n", "success: is the channel's own"),
            ("feishu-robot", "secret = ['a', 'b']\n", "secret: has several entries"),
            ("wecom", "", "channel:"),
        ];
        for (name, more, expected) in cases {
            let said = robot(name, more).unwrap_err();
            assert!(said.contains(expected), "case: {name} {more}: {said}");
        }
        for payload in ["", "payload = 'standard'\n", "payload = 'a {{ content }}'\n"] {
            let keys = format!("channel = 'slack'\nurl = 'https://h.test/'\n{payload}");
            let said = read(&keys).unwrap_err();
            assert!(said.contains("channel: takes messages"), "case: {payload}: {said}");
        }
    }
}
