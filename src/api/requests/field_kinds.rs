//! Kinds of fields in requests and answers: what each may be, what is refused, and how the document shows it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;
use serde::de::Visitor;
use serde_json::Value;
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::KnownFormat;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::schema::SchemaFormat;
use utoipa::openapi::schema::Type;

use crate::api::requests::fields::nearest;
use crate::api::requests::fields::parse_time;
use crate::api::requests::fields::unknown_word;
use crate::flow::event::EventId;
use crate::flow::time::Timestamp;

/// A whole number within limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundedNumber<const MIN: u32, const MAX: u32>(pub(crate) u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for BoundedNumber<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u32(NumberVisitor(MIN, MAX)).map(Self)
    }
}

struct NumberVisitor(u32, u32);

impl NumberVisitor {
    fn refusal<E: Error>(&self, given: &str) -> E {
        E::custom(format!("must be a number from {} to {}, not {given:?}", self.0, self.1))
    }
}

impl Visitor<'_> for NumberVisitor {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from {} to {}", self.0, self.1)
    }

    fn visit_u32<E: Error>(self, given: u32) -> Result<u32, E> {
        match (self.0..=self.1).contains(&given) {
            true => Ok(given),
            false => Err(self.refusal(&given.to_string())),
        }
    }

    fn visit_str<E: Error>(self, given: &str) -> Result<u32, E> {
        Err(self.refusal(given))
    }
}

impl<const MIN: u32, const MAX: u32> PartialSchema for BoundedNumber<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        number.minimum(Some(MIN)).maximum(Some(MAX)).into()
    }
}

impl<const MIN: u32, const MAX: u32> ToSchema for BoundedNumber<MIN, MAX> {
    fn name() -> Cow<'static, str> {
        format!("BoundedNumber{MIN}To{MAX}").into()
    }
}

/// A moment: ISO 8601 with an offset, or a day; shown in UTC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct IsoTime(pub(crate) Timestamp);

impl Serialize for IsoTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.iso_millis().serialize(serializer)
    }
}

impl PartialSchema for IsoTime {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for IsoTime {}

/// A moment that a client asks for, or a day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskedTime(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for AskedTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_time(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "must be a time in ISO 8601 with an offset, such as 2026-11-22T03:00:00Z, or a day, \
                 not {text:?}"
            ))
        })
    }
}

impl PartialSchema for AskedTime {
    fn schema() -> RefOr<Schema> {
        String::schema()
    }
}

impl ToSchema for AskedTime {}

/// An event's id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskedEvent(pub(crate) EventId);

impl<'de> Deserialize<'de> for AskedEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|error| D::Error::custom(format!(": {error}")))
    }
}

impl PartialSchema for AskedEvent {
    fn schema() -> RefOr<Schema> {
        String::schema()
    }
}

impl ToSchema for AskedEvent {}

/// A list of texts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TextList(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for TextList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Value::deserialize(deserializer)?;
        let text = |item: &Value| item.as_str().map(ToOwned::to_owned);
        let texts = given.as_array().and_then(|items| items.iter().map(text).collect());
        let wrong = "must be a list of texts, such as [\"a\", \"b\"]";
        texts.map(Self).ok_or_else(|| D::Error::custom(wrong))
    }
}

impl PartialSchema for TextList {
    fn schema() -> RefOr<Schema> {
        Vec::<String>::schema()
    }
}

impl ToSchema for TextList {}

/// A list of ids, at least one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct IdList(pub(crate) Vec<i64>);

impl<'de> Deserialize<'de> for IdList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Value::deserialize(deserializer)?;
        let ids = given.as_array().and_then(|items| items.iter().map(Value::as_i64).collect());
        let ids: Option<Vec<i64>> = ids;
        let wrong = "must be a list of numbers, such as [17, 18]";
        ids.filter(|ids| !ids.is_empty()).map(Self).ok_or_else(|| D::Error::custom(wrong))
    }
}

impl PartialSchema for IdList {
    fn schema() -> RefOr<Schema> {
        Vec::<i64>::schema()
    }
}

impl ToSchema for IdList {}

/// An object with members that are not ours to name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FreeObject(pub(crate) Value);

impl<'de> Deserialize<'de> for FreeObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            given @ Value::Object(_) => Ok(Self(given)),
            other => Err(D::Error::custom(format!("must be an object, not {other}"))),
        }
    }
}

impl Serialize for FreeObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl PartialSchema for FreeObject {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Object).into()
    }
}

impl ToSchema for FreeObject {}

/// The words that a field may have, each with what it stands for.
pub(crate) trait FieldWords {
    type Meaning: Clone;

    fn words() -> Vec<(&'static str, Self::Meaning)>;
}

/// One of a few words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneWord<W: FieldWords>(pub(crate) W::Meaning);

impl<'de, W: FieldWords> Deserialize<'de> for OneWord<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let words = W::words();
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Self(meaning.clone()));
        }
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = nearest(&text, &words).map(|near| format!(": did you mean {near}?"));
        let (words, hint) = (words.join(", "), hint.unwrap_or_default());
        Err(D::Error::custom(format!("must be one of {words}, not {text:?}{hint}")))
    }
}

impl<W: FieldWords> PartialSchema for OneWord<W> {
    fn schema() -> RefOr<Schema> {
        words_schema(W::words().into_iter().map(|(word, _)| word))
    }
}

impl<W: FieldWords> ToSchema for OneWord<W> {
    fn name() -> Cow<'static, str> {
        let path = std::any::type_name::<W>();
        format!("OneWord{}", path.rsplit("::").next().unwrap_or_default()).into()
    }
}

/// A word that is one of many, as it is: an unknown one is refused with the nearest.
#[derive(Clone, Debug)]
pub(crate) struct KnownWord<W>(pub(crate) String, PhantomData<W>);

impl<'de, W: FieldWords> Deserialize<'de> for KnownWord<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let words: Vec<&str> = W::words().into_iter().map(|(word, _)| word).collect();
        match words.contains(&text.as_str()) {
            true => Ok(Self(text, PhantomData)),
            false => Err(D::Error::custom(unknown_word(&text, &words))),
        }
    }
}

impl<W: FieldWords> PartialSchema for KnownWord<W> {
    fn schema() -> RefOr<Schema> {
        words_schema(W::words().into_iter().map(|(word, _)| word))
    }
}

impl<W: FieldWords> ToSchema for KnownWord<W> {
    fn name() -> Cow<'static, str> {
        let path = std::any::type_name::<W>();
        format!("KnownWord{}", path.rsplit("::").next().unwrap_or_default()).into()
    }
}

/// A text that is one of these, and what they say.
pub(crate) fn described_words(
    meaning: &str,
    words: impl IntoIterator<Item = &'static str>,
) -> RefOr<Schema> {
    let words = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    words.description(Some(meaning)).into()
}

/// A text that is one of these.
pub(crate) fn words_schema(words: impl IntoIterator<Item = &'static str>) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into()
}
