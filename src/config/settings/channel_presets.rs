//! `channel` of an `[[endpoint]]`: chat systems as data. What each of them answers, waits for, signs
//! and takes is one row of [`PRESETS`].

use std::time::Duration;

use url::Url;

use crate::config::secret::Secret;

/// How one chat system is spoken to.
#[derive(Debug, PartialEq)]
pub struct Preset {
    /// As in the configuration.
    pub name: &'static str,
    pub answer: ChannelAnswer,
    /// Codes after which the endpoint gets nothing for so many seconds.
    pub waits: &'static [(i64, u64)],
    /// Codes that are worth another attempt.
    pub again: &'static [i64],
    /// Codes that say that the access token is none any more.
    pub stale: &'static [i64],
    /// Requests per second, a little below what the system allows.
    pub rate_limit: Option<f64>,
    /// The longest body.
    pub body_max: usize,
    /// Members of the message whose `content` has at most so many bytes.
    pub texts: &'static [(&'static str, usize)],
    pub signature: ChannelSignature,
    /// Requests carry an access token that is fetched first.
    pub has_token: bool,
}

/// What stands for success in an answer with a 2xx status.
#[derive(Debug, PartialEq)]
pub enum ChannelAnswer {
    /// JSON whose member `code` is 0; the member `text` says why it is not.
    Code { code: &'static str, text: &'static str },
    /// This word alone.
    Word(&'static str),
}

/// Where time and signature stand, if there is a secret.
#[derive(Debug, PartialEq)]
pub enum ChannelSignature {
    None,
    /// In the query: milliseconds, and HMAC-SHA256 over `timestamp LF secret` by the secret.
    Query,
    /// In the body: seconds, and HMAC-SHA256 over nothing by `timestamp LF secret`.
    Body,
}

const ERRCODE: ChannelAnswer = ChannelAnswer::Code { code: "errcode", text: "errmsg" };

/// Bodies without a limit of the system: what a message can be in memory.
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// Every chat system that is known.
pub static PRESETS: [Preset; 5] = [
    Preset {
        name: "wecom-app",
        answer: ERRCODE,
        waits: &[(45009, 60)],
        again: &[-1, 45033],
        stale: &[40001, 40014, 42001],
        rate_limit: None,
        body_max: BODY_MAX_BYTES,
        texts: &[],
        signature: ChannelSignature::None,
        has_token: true,
    },
    Preset {
        name: "wecom-robot",
        answer: ERRCODE,
        waits: &[(45009, 60)],
        again: &[-1],
        stale: &[],
        rate_limit: Some(0.33),
        body_max: BODY_MAX_BYTES,
        texts: &[("text", 2048), ("markdown", 4096), ("markdown_v2", 4096)],
        signature: ChannelSignature::None,
        has_token: false,
    },
    Preset {
        name: "dingtalk-robot",
        answer: ERRCODE,
        waits: &[(130_101, 600)],
        again: &[-1],
        stale: &[],
        rate_limit: Some(0.33),
        body_max: BODY_MAX_BYTES,
        texts: &[],
        signature: ChannelSignature::Query,
        has_token: false,
    },
    Preset {
        name: "feishu-robot",
        answer: ChannelAnswer::Code { code: "code", text: "msg" },
        waits: &[(11232, 60), (99_991_400, 60)],
        again: &[],
        stale: &[],
        rate_limit: Some(1.65),
        body_max: 20 * 1024,
        texts: &[],
        signature: ChannelSignature::Body,
        has_token: false,
    },
    Preset {
        name: "slack",
        answer: ChannelAnswer::Word("ok"),
        waits: &[],
        again: &[],
        stale: &[],
        rate_limit: Some(1.0),
        body_max: BODY_MAX_BYTES,
        texts: &[],
        signature: ChannelSignature::None,
        has_token: false,
    },
];

impl Preset {
    /// Codes after which a message is sent again.
    pub fn passing_codes(&self) -> impl Iterator<Item = i64> + '_ {
        let waits = self.waits.iter().map(|(code, _)| *code);
        waits.chain(self.again.iter().copied()).chain(self.stale.iter().copied())
    }

    /// The longest wait that one of its answers asks for.
    pub fn longest_wait(&self) -> Duration {
        let longest = self.waits.iter().map(|(_, seconds)| *seconds).max();
        Duration::from_secs(longest.unwrap_or_default())
    }
}

/// An endpoint's chat system.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    pub preset: &'static Preset,
    pub app: Option<WecomApp>,
    /// What messages are signed with.
    pub secret: Option<Secret<String>>,
    pub overflow: Overflow,
}

/// A WeCom application, which sends in its own name.
#[derive(Clone, Debug, PartialEq)]
pub struct WecomApp {
    /// Where tokens come from, without the query.
    pub token_url: Secret<Url>,
    pub corp_id: String,
    pub corp_secret: Secret<String>,
    pub agent_id: i64,
}

/// What becomes of a text that is longer than the system takes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Overflow {
    /// It ends earlier, with `…`.
    #[default]
    Cut,
    /// It becomes several messages.
    Split,
}
