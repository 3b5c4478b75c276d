//! `[endpoints]` and `[webhook_api]`: endpoints that are made while walhook runs.

use crate::config::secret::Secret;
use crate::config::sections::delivery_terms::EndpointDefaults;
use crate::config::sections::delivery_terms::EndpointTerms;
use crate::config::sections::endpoint;
use crate::config::settings::AddressBlock;
use crate::config::settings::AddressPolicy;
use crate::config::settings::AllowedBlocks;
use crate::config::settings::BLOCKS_MAX;
use crate::config::template_field;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::expression::Expression;

/// `wechat-messages`'s columns, unless told otherwise.
const MESSAGE_TYPE: &str = "string(msg_type)";
const OWN_MESSAGE: &str = "is_self_msg";

/// What endpoints that are made at run time need.
#[derive(Clone, Debug, PartialEq)]
pub struct RunTimeSettings {
    /// `[state] key`: the first seals secrets, any of them opens what it has sealed.
    pub keys: Vec<Secret<[u8; 32]>>,
    /// `[endpoints] allow`.
    pub addresses: AddressPolicy,
    /// What `[webhook]` gives every endpoint.
    pub defaults: EndpointDefaults,
    /// `wechat-messages`'s calls, where they are wanted.
    pub webhook_api: Option<WebhookApi>,
    /// `[endpoints]` stands in the file.
    pub(crate) is_written: bool,
}

/// `[webhook_api]`: what an endpoint is that is made by `wechat-messages`'s calls.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookApi {
    /// Event types that are messages; all if empty.
    pub events: Vec<String>,
    /// Expressions for a message's type, as a string, and for whether it is one's own.
    pub message_type: String,
    pub own_message: String,
    /// The rest of the endpoint.
    pub defaults: EndpointDefaults,
    /// Body of a test message, JSON.
    pub test: Option<String>,
}

impl RunTimeSettings {
    /// Whether the file means endpoints to be made over the API.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_written || self.webhook_api.is_some()
    }
}

/// `terms` are those of `[webhook]`.
pub(crate) fn read(
    root: &mut TomlSection<'_>,
    keys: Vec<Secret<[u8; 32]>>,
    terms: &EndpointTerms,
) -> RunTimeSettings {
    let is_written = root.has("endpoints");
    let mut section = root.section("endpoints");
    let allow = section.read("allow", allow);
    section.finish();
    let addresses = allow.map_or(AddressPolicy::Public, AddressPolicy::Listed);
    let has_api = root.has("webhook_api");
    let webhook_api = read_webhook_api(root.section("webhook_api"), terms);
    RunTimeSettings {
        keys,
        addresses,
        defaults: EndpointDefaults::new(terms.clone(), addresses),
        webhook_api: has_api.then(|| WebhookApi {
            defaults: EndpointDefaults::new(webhook_api.1, addresses),
            ..webhook_api.0
        }),
        is_written,
    }
}

/// Blocks of addresses, such as `["10.1.0.0/16"]`.
fn allow(field: &FieldReader<'_>) -> Option<AllowedBlocks> {
    Some(AllowedBlocks::new(blocks(field, BLOCKS_MAX)?))
}

/// Up to so many addresses and blocks of them.
pub(crate) fn blocks(field: &FieldReader<'_>, max: usize) -> Option<Vec<AddressBlock>> {
    let items = field.list()?;
    if items.len() > max {
        return field.refuse(format!("has {} entries: give up to {max}", items.len()));
    }
    let block = |item: &FieldReader<'_>| {
        let text = item.string()?;
        AddressBlock::parse(&text).or_else(|| {
            let shape = "write it like \"10.1.0.0/16\", \"fd00::/8\" or \"192.168.1.7\"";
            item.refuse(format!("{} is no block of addresses: {shape}", item.shown()))
        })
    };
    Some(items.iter().filter_map(block).collect())
}

fn read_webhook_api(
    mut section: TomlSection<'_>,
    terms: &EndpointTerms,
) -> (WebhookApi, EndpointTerms) {
    let events = section.read("events", |field| {
        Some(field.list()?.iter().filter_map(FieldReader::string).collect::<Vec<_>>())
    });
    let message_type = section.read("message_type", expression);
    let own_message = section.read("own_message", expression);
    let test = section.read("test", template_field::fixed_json);
    let mut terms = terms.clone();
    let inner = section.field("endpoint").map(|field| field.renamed("endpoint".to_owned()));
    if let Some(mut inner) = inner.and_then(|field| field.section()) {
        endpoint::read_terms(&mut inner, &mut terms);
        inner.finish();
    }
    section.finish();
    let api = WebhookApi {
        events: events.unwrap_or_default(),
        message_type: message_type.unwrap_or_else(|| MESSAGE_TYPE.to_owned()),
        own_message: own_message.unwrap_or_else(|| OWN_MESSAGE.to_owned()),
        defaults: EndpointDefaults::new(terms.clone(), AddressPolicy::Public),
        test,
    };
    (api, terms)
}

fn expression(field: &FieldReader<'_>) -> Option<String> {
    let text = field.string()?;
    let parsed = Expression::parse(&text).map_err(|message| field.note(message)).ok()?;
    Some(parsed.source().to_owned())
}
