//! A callback's XML as JSON: no DTD, no entities of its own, bounded depth and size.
//!
//! Pure. Elements become members by their names; one that has elements becomes an object, one that comes
//! several times a list; everything else is a text, as WeCom writes it. Attributes carry nothing in WeCom's
//! messages and are passed over.

use quick_xml::Reader;
use quick_xml::events::BytesRef;
use quick_xml::events::Event;
use serde_json::Map;
use serde_json::Value;

/// Levels of elements. WeCom's deepest message has five.
const DEPTH_MAX: usize = 16;
/// Elements of a message.
const ELEMENTS_MAX: usize = 4096;

/// Why a message is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum XmlError {
    /// It is not well-formed.
    Malformed,
    /// It has a document type or an entity that is not one of XML's own five.
    Entities,
    TooDeep,
    TooLarge,
}

/// An element that is open.
#[derive(Default)]
struct OpenElement {
    name: String,
    text: String,
    members: Map<String, Value>,
}

impl OpenElement {
    fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    fn value(self) -> Value {
        match self.members.is_empty() {
            // PostgreSQL's texts have no zero byte.
            true => Value::String(self.text.replace('\0', "")),
            false => Value::Object(self.members),
        }
    }
}

/// The members of a document's root element.
///
/// # Errors
/// Why it is refused.
pub fn members(xml: &str) -> Result<Map<String, Value>, XmlError> {
    let mut reader = Reader::from_str(xml);
    let mut open: Vec<OpenElement> = Vec::new();
    let mut root = None;
    let mut elements = 0;
    loop {
        match reader.read_event().map_err(|_| XmlError::Malformed)? {
            Event::Start(start) => {
                elements += 1;
                limits(open.len(), elements)?;
                open.push(OpenElement::named(start.name().into_inner().to_owned()));
            }
            Event::Empty(start) => {
                elements += 1;
                limits(open.len(), elements)?;
                let element = OpenElement::named(start.name().into_inner().to_owned());
                close(element, &mut open, &mut root)?;
            }
            Event::End(_) => {
                let element = open.pop().ok_or(XmlError::Malformed)?;
                close(element, &mut open, &mut root)?;
            }
            Event::Text(text) => append(&mut open, &text.into_inner())?,
            Event::CData(text) => append(&mut open, &text.into_inner())?,
            Event::GeneralRef(reference) => append(&mut open, &resolved(&reference)?)?,
            Event::DocType(_) => return Err(XmlError::Entities),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    match (root, open.is_empty()) {
        (Some(root), true) => Ok(root),
        _ => Err(XmlError::Malformed),
    }
}

fn limits(depth: usize, elements: usize) -> Result<(), XmlError> {
    if depth >= DEPTH_MAX {
        return Err(XmlError::TooDeep);
    }
    if elements > ELEMENTS_MAX { Err(XmlError::TooLarge) } else { Ok(()) }
}

/// Adds a closed element to the one around it, or takes it for the root.
fn close(
    element: OpenElement,
    open: &mut [OpenElement],
    root: &mut Option<Map<String, Value>>,
) -> Result<(), XmlError> {
    let Some(around) = open.last_mut() else {
        if root.replace(element.members).is_some() {
            return Err(XmlError::Malformed); // two roots
        }
        return Ok(());
    };
    let name = element.name.clone();
    let value = element.value();
    match around.members.get_mut(&name) {
        Some(Value::Array(items)) => items.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
        None => drop(around.members.insert(name, value)),
    }
    Ok(())
}

fn append(open: &mut [OpenElement], text: &str) -> Result<(), XmlError> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim_start_matches('\u{feff}').trim().is_empty() => {}
        None => return Err(XmlError::Malformed),
    }
    Ok(())
}

/// XML's own five entities, and characters by number.
fn resolved(reference: &BytesRef<'_>) -> Result<String, XmlError> {
    if let Some(character) = reference.resolve_char_ref().map_err(|_| XmlError::Malformed)? {
        return Ok(character.to_string());
    }
    let name = reference.clone().into_inner();
    let text = match &*name {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "quot" => "\"",
        "apos" => "'",
        _ => return Err(XmlError::Entities),
    };
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_becomes_members() {
        let xml = "<?xml version=\"1.0\"?>\n<xml>\n<ToUserName><![CDATA[ww01]]></ToUserName>\n\
                   <CreateTime>1700000000</CreateTime><Content><![CDATA[a <b> & 你好]]></Content>\
                   <Text>a &amp; b &#65;</Text><Empty/><None></None>\
                   <SendLocationInfo><Location_X><![CDATA[23]]></Location_X></SendLocationInfo>\
                   <PicList><item><PicMd5Sum>a</PicMd5Sum></item><item><PicMd5Sum>b</PicMd5Sum></item>\
                   </PicList></xml>";
        let expected = json!({
            "ToUserName": "ww01", "CreateTime": "1700000000", "Content": "a <b> & 你好",
            "Text": "a & b A", "Empty": "", "None": "",
            "SendLocationInfo": { "Location_X": "23" },
            "PicList": { "item": [{ "PicMd5Sum": "a" }, { "PicMd5Sum": "b" }] },
        });
        assert_eq!(Value::Object(members(xml).unwrap()), expected);
    }

    #[test]
    fn what_could_hurt_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(17), "</a>".repeat(17));
        let many = format!("<x>{}</x>", "<a/>".repeat(ELEMENTS_MAX + 1));
        let laughs = "<!DOCTYPE x [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><x>&b;</x>";
        let file = "<!DOCTYPE x [<!ENTITY f SYSTEM \"file:///etc/passwd\">]><x>&f;</x>";
        let cases = [
            (laughs, XmlError::Entities),
            (file, XmlError::Entities),
            ("<x>&custom;</x>", XmlError::Entities),
            (&deep, XmlError::TooDeep),
            (&many, XmlError::TooLarge),
            ("", XmlError::Malformed),
            ("text", XmlError::Malformed),
            ("<x>", XmlError::Malformed),
            ("<x></y>", XmlError::Malformed),
            ("<x/><x/>", XmlError::Malformed),
            ("<x>&#0;</x>", XmlError::Malformed),
        ];
        for (xml, expected) in cases {
            let shown: String = xml.chars().take(40).collect();
            assert_eq!(members(xml), Err(expected), "case: {shown}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(xml in "(<[a-c/!\\[\\]&;#x0-9 ]{0,6}>?|.){0,60}") {
            let _read: Result<_, XmlError> = members(&xml);
        }
    }
}
