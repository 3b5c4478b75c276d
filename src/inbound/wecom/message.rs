//! What a WeCom callback is about: its kind, whose it is, and what makes a repeat of it the same.
//!
//! Pure. Kinds: `message`, `interaction`, `status`, `system`; the map of WeCom's own names is a table
//! below, and a source may add to it. What is not known is `system` and kept whole, never refused.

use std::collections::BTreeMap;

use ring::digest::SHA256;
use ring::digest::digest;
use serde_json::Map;
use serde_json::Value;

use crate::config::settings::CallbackKind;
use crate::config::settings::StatusFields;
use crate::flow::hex::hex_of;
use crate::inbound::row::CallbackRow;

const MESSAGES: [&str; 12] = [
    "text", "image", "voice", "video", "location", "link", "file", "mixed", "stream", "emotion",
    "card", "markdown",
];

const INTERACTIONS: [&str; 17] = [
    "template_card_event",
    "template_card_menu_event",
    "taskcard_click",
    "click",
    "view",
    "scancode_push",
    "scancode_waitmsg",
    "pic_sysphoto",
    "pic_photo_or_album",
    "pic_weixin",
    "location_select",
    "enter_agent",
    "LOCATION",
    "enter_chat",
    "feedback_event",
    // Of gateways in front of WeCom.
    "reply",
    "forward",
];

const STATUSES: [&str; 2] = ["TEMPLATESENDJOBFINISH", "MASSSENDJOBFINISH"];

/// What a source adds to the map, by the event's name.
pub(crate) type KindMap = BTreeMap<String, CallbackKind>;

/// The row of a decrypted message, XML or JSON alike.
pub fn row(
    source: &str,
    fields: Map<String, Value>,
    kinds: &KindMap,
    status: Option<&StatusFields>,
) -> CallbackRow {
    let text = |names: &[&str]| names.iter().find_map(|name| found(&fields, name));
    let message_type = text(&["MsgType", "msgtype"]).unwrap_or_default();
    let event = match message_type.as_str() {
        "event" | "" => text(&["Event", "event.eventtype", "event"]).unwrap_or_default(),
        _ => message_type.clone(),
    };
    let kind = kinds.get(&event).copied().unwrap_or_else(|| kind(&message_type, &event));
    let custom = status.filter(|status| status.event == event);
    let custom_message = custom.and_then(|status| found(&fields, &status.message));
    let change = text(&["ChangeType"]);
    let state = match custom {
        Some(status) => found(&fields, &status.state),
        None if kind == CallbackKind::Status => text(&["Status", "status"]),
        None => None,
    };
    let message_id = custom_message.or_else(|| text(&["MsgId", "MsgID", "msgid"]));
    let user = text(&["FromUserName", "from.userid"]);
    let created = text(&["CreateTime", "create_time"]);
    let is_event = matches!(message_type.as_str(), "event" | "");
    let dedupe_key = dedupe_key(source, &fields, is_event, &event);
    CallbackRow {
        source: source.to_owned(),
        kind,
        event: match change {
            Some(change) if !change.is_empty() => format!("{event}.{change}"),
            _ => event,
        },
        message_id,
        state,
        user_id: user,
        agent_id: text(&["AgentID", "AgentId", "aibotid"]),
        occurred_at: created.and_then(|seconds| seconds.trim().parse().ok()),
        content: text(&[
            "Content",
            "text.content",
            "EventKey",
            "event.template_card_event.event_key",
        ]),
        dedupe_key,
        fields: Value::Object(fields),
    }
}

fn kind(message_type: &str, event: &str) -> CallbackKind {
    // WeCom writes `click` where its elder sister writes `CLICK`.
    let is_one_of = |name: &str, all: &[&str]| all.iter().any(|one| one.eq_ignore_ascii_case(name));
    if MESSAGES.contains(&message_type) {
        CallbackKind::Message
    } else if is_one_of(event, &INTERACTIONS) {
        CallbackKind::Interaction
    } else if is_one_of(event, &STATUSES) {
        CallbackKind::Status
    } else {
        CallbackKind::System
    }
}

/// A scalar by its path, such as `from.userid`; `fields.` before it is the whole.
fn found(fields: &Map<String, Value>, path: &str) -> Option<String> {
    let path = path.strip_prefix("fields.").unwrap_or(path);
    let mut names = path.split('.');
    let first = fields.get(names.next()?)?;
    match names.try_fold(first, |value, name| value.get(name))? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A message by its id; a card by its response code; an event by who, when, what, and the rest of it:
/// two users of one change of the address book have the second, the sender and the event in common.
fn dedupe_key(source: &str, fields: &Map<String, Value>, is_event: bool, event: &str) -> String {
    let of = |name: &str| found(fields, name).filter(|text| !text.is_empty());
    if !is_event && let Some(id) = of("MsgId").or_else(|| of("msgid")) {
        return format!("{source}/message/{id}");
    }
    if let Some(code) = of("ResponseCode") {
        return format!("{source}/card/{code}");
    }
    if let Some(id) = of("msgid") {
        return format!("{source}/message/{id}");
    }
    let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
    sorted.sort_by_key(|(name, _)| name.as_str());
    let whole: String = sorted.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let hash = digest(&SHA256, whole.as_bytes());
    let hash = hex_of(hash.as_ref().get(..16).unwrap_or_default());
    let user = of("FromUserName").or_else(|| of("from.userid")).unwrap_or_default();
    let created = of("CreateTime").unwrap_or_default();
    format!("{source}/event/{user}/{created}/{event}/{hash}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(fields: &Value) -> CallbackRow {
        let fields = fields.as_object().unwrap().clone();
        row("api", fields, &KindMap::new(), None)
    }

    #[test]
    fn kinds_follow_from_type_and_event() {
        let cases = [
            (json!({"MsgType": "text"}), CallbackKind::Message, "text"),
            (json!({"MsgType": "location"}), CallbackKind::Message, "location"),
            (json!({"MsgType": "event", "Event": "click"}), CallbackKind::Interaction, "click"),
            (json!({"MsgType": "event", "Event": "CLICK"}), CallbackKind::Interaction, "CLICK"),
            (json!({"MsgType": "event", "Event": "forward"}), CallbackKind::Interaction, "forward"),
            (
                json!({"MsgType": "event", "Event": "LOCATION"}),
                CallbackKind::Interaction,
                "LOCATION",
            ),
            (
                json!({"MsgType": "event", "Event": "template_card_event"}),
                CallbackKind::Interaction,
                "template_card_event",
            ),
            (json!({"MsgType": "event", "Event": "subscribe"}), CallbackKind::System, "subscribe"),
            (
                json!({"MsgType": "event", "Event": "change_contact", "ChangeType": "create_user"}),
                CallbackKind::System,
                "change_contact.create_user",
            ),
            (
                json!({"MsgType": "event", "Event": "MASSSENDJOBFINISH"}),
                CallbackKind::Status,
                "MASSSENDJOBFINISH",
            ),
            (
                json!({"MsgType": "event", "Event": "of_tomorrow"}),
                CallbackKind::System,
                "of_tomorrow",
            ),
            (json!({"MsgType": "of_tomorrow"}), CallbackKind::System, "of_tomorrow"),
            (json!({}), CallbackKind::System, ""),
            (json!({"msgtype": "text", "msgid": "m"}), CallbackKind::Message, "text"),
            (
                json!({"msgtype": "event", "event": {"eventtype": "enter_chat"}}),
                CallbackKind::Interaction,
                "enter_chat",
            ),
        ];
        for (fields, kind, event) in cases {
            let row = of(&fields);
            assert_eq!((row.kind, row.event.as_str()), (kind, event), "case: {fields}");
        }
    }

    #[test]
    fn what_is_asked_for_is_found() {
        let row = of(&json!({
            "MsgType": "text", "FromUserName": "zhang", "CreateTime": "1700000000", "MsgId": "42",
            "AgentID": "1000002", "Content": "你好",
        }));
        assert_eq!(row.user_id.as_deref(), Some("zhang"));
        assert_eq!(row.occurred_at, Some(1_700_000_000));
        assert_eq!(row.message_id.as_deref(), Some("42"));
        assert_eq!(row.agent_id.as_deref(), Some("1000002"));
        assert_eq!(row.content.as_deref(), Some("你好"));
        assert_eq!(row.dedupe_key, "api/message/42");
    }

    #[test]
    fn a_gateway_may_report_states_in_events_of_its_own() {
        let kinds = KindMap::from([(String::from("my_event"), CallbackKind::Status)]);
        let status = StatusFields {
            event: String::from("my_event"),
            message: String::from("fields.Receipt.MsgID"),
            state: String::from("fields.Receipt.State"),
        };
        let fields = json!({
            "MsgType": "event", "Event": "my_event", "Receipt": { "MsgID": "m1", "State": "read" },
        });
        let row = row("gw", fields.as_object().unwrap().clone(), &kinds, Some(&status));
        assert_eq!(row.kind, CallbackKind::Status);
        assert_eq!((row.message_id.as_deref(), row.state.as_deref()), (Some("m1"), Some("read")));
    }

    #[test]
    fn repeats_have_one_key_and_others_another() {
        let event = |user: &str, change: &str| {
            json!({
                "MsgType": "event", "Event": "change_contact", "FromUserName": "sys",
                "CreateTime": "1700000000", "ChangeType": change, "UserID": user,
            })
        };
        let key = |fields: &Value| of(fields).dedupe_key;
        assert_eq!(key(&event("a", "create_user")), key(&event("a", "create_user")));
        assert_ne!(key(&event("a", "create_user")), key(&event("b", "create_user")));
        assert_ne!(key(&event("a", "create_user")), key(&event("a", "delete_user")));
        let card = |code: &str, time: &str| {
            json!({
                "MsgType": "event", "Event": "template_card_event", "ResponseCode": code,
                "CreateTime": time,
            })
        };
        assert_eq!(key(&card("c1", "1")), key(&card("c1", "2")));
        assert_ne!(key(&card("c1", "1")), key(&card("c2", "1")));
    }
}
