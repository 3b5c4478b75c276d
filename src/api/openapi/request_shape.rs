//! What a request may say, as a type: read from a query or a JSON body, and shown in the document.
//!
//! ```text
//! query or body ─▶ RequestFields ─▶ [request_shape] ─ the type's own names and kinds ─▶ handler
//!                                         └─▶ openapi: the same type's schema
//! ```
//!
//! The type is the only place where a field stands: its names are those that serde knows, and what it refuses
//! is what its kinds ([`crate::api::requests::field_kinds`]) refuse.

use std::fmt;

use axum::extract::FromRequest;
use axum::extract::FromRequestParts;
use axum::extract::Request;
use axum::http::request::Parts;
use serde::Deserializer;
use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde::forward_to_deserialize_any;
use serde_json::Value;
use serde_json::json;
use utoipa::ToSchema;

use crate::api::answers::problem::ProblemResponse;
use crate::api::answers::shared_refusal::SharedRefusal;
use crate::api::openapi::described_types::DescribedInput;
use crate::api::openapi::described_types::OperationDescription;
use crate::api::openapi::document_shape::JSON;
use crate::api::openapi::schemas;
use crate::api::openapi::schemas::SchemaSet;
use crate::api::requests::fields::RequestFields;
use crate::api::requests::fields::bad;
use crate::api::requests::request::SentBody;
use crate::api::surface::HttpSurface;

/// The fields of a request.
pub(crate) trait RequestShape: Sized {
    /// Their names.
    fn names() -> Vec<&'static str>;

    /// # Errors
    /// What a field must be and is not.
    fn of(fields: &RequestFields) -> Result<Self, ProblemResponse>;

    /// Their schema, an object that has nothing besides.
    fn schema(set: &mut SchemaSet) -> Value;
}

impl<T: DeserializeOwned + ToSchema> RequestShape for T {
    fn names() -> Vec<&'static str> {
        match T::deserialize(NameProbe) {
            Err(KnownNames(names)) => names.to_vec(),
            Ok(_) => Vec::new(),
        }
    }

    fn of(fields: &RequestFields) -> Result<Self, ProblemResponse> {
        T::deserialize(FieldsReader(fields)).map_err(|FieldError(detail)| bad(detail))
    }

    fn schema(set: &mut SchemaSet) -> Value {
        schemas::of_request::<T>(set)
    }
}

/// Two groups of fields in one request, such as a filter and how to page.
#[derive(Debug)]
pub(crate) struct BothShapes<A, B>(pub(crate) A, pub(crate) B);

impl<A: RequestShape, B: RequestShape> RequestShape for BothShapes<A, B> {
    fn names() -> Vec<&'static str> {
        [A::names(), B::names()].concat()
    }

    fn of(fields: &RequestFields) -> Result<Self, ProblemResponse> {
        Ok(Self(A::of(fields)?, B::of(fields)?))
    }

    fn schema(set: &mut SchemaSet) -> Value {
        let (first, second) = (A::schema(set), B::schema(set));
        schemas::joined(first, second)
    }
}

/// The parameters of a query.
pub(crate) struct QueryFields<T>(pub(crate) T);

impl<T: RequestShape> FromRequestParts<HttpSurface> for QueryFields<T> {
    type Rejection = ProblemResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        _surface: &HttpSurface,
    ) -> Result<Self, ProblemResponse> {
        let fields = RequestFields::of_query(parts.uri.query(), &T::names())?;
        T::of(&fields).map(Self)
    }
}

impl<T: RequestShape> DescribedInput for QueryFields<T> {
    fn describe(description: &mut OperationDescription) {
        let schema = T::schema(&mut description.schemas);
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            let mut property = property.clone();
            let members = property.as_object_mut();
            let meaning = members.and_then(|members| members.remove("description"));
            description.parameters.push(json!({
                "name": name, "in": "query", "required": false,
                "description": meaning, "schema": property,
            }));
        }
        description.is_asked = true;
        description.refuses(SharedRefusal::WrongQuestion);
    }
}

/// The fields of a body, which may be empty where none of them is needed.
pub(crate) struct BodyFields<T>(pub(crate) T);

impl<T: RequestShape> FromRequest<HttpSurface> for BodyFields<T> {
    type Rejection = ProblemResponse;

    async fn from_request(
        request: Request,
        surface: &HttpSurface,
    ) -> Result<Self, ProblemResponse> {
        let SentBody(body) = SentBody::from_request(request, surface).await?;
        let fields = RequestFields::of_body(&body, &T::names())?;
        T::of(&fields).map(Self)
    }
}

impl<T: RequestShape> DescribedInput for BodyFields<T> {
    fn describe(description: &mut OperationDescription) {
        let schema = T::schema(&mut description.schemas);
        let is_needed = schema.get("required").is_some();
        description.takes(&[JSON], &schema, is_needed);
    }
}

/// Why a field cannot be read.
#[derive(Debug)]
struct FieldError(String);

impl FieldError {
    /// With the field's name before what it must be.
    fn of(self, name: &str) -> Self {
        let colon = if self.0.starts_with(':') { "" } else { " " };
        Self(format!("{name}{colon}{}", self.0))
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FieldError {}

impl serde::de::Error for FieldError {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }

    fn missing_field(name: &'static str) -> Self {
        Self(format!("{name} is missing"))
    }
}

/// Gives a type its fields. A field that is null is one that is left out.
struct FieldsReader<'f>(&'f RequestFields);

impl<'de> Deserializer<'de> for FieldsReader<'_> {
    type Error = FieldError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let is_body = self.0.is_body();
        let given = names.iter().filter_map(|name| Some((*name, self.0.value(name)?)));
        visitor.visit_map(GivenFields { given, next: None, is_body })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.deserialize_struct("", &[], visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct GivenFields<'f, I> {
    given: I,
    next: Option<(&'static str, &'f Value)>,
    is_body: bool,
}

impl<'de, 'f, I: Iterator<Item = (&'static str, &'f Value)>> MapAccess<'de> for GivenFields<'f, I> {
    type Error = FieldError;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FieldError> {
        self.next = self.given.next();
        let Some((name, _)) = self.next else { return Ok(None) };
        seed.deserialize(IntoDeserializer::<FieldError>::into_deserializer(name)).map(Some)
    }

    fn next_value_seed<S: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, FieldError> {
        let (name, value) = self.next.take().unwrap_or(("", &Value::Null));
        let reader = ValueReader { value, is_body: self.is_body };
        seed.deserialize(reader).map_err(|error| error.of(name))
    }
}

/// Gives one value: a body's has a type, a query's is a text.
struct ValueReader<'f> {
    value: &'f Value,
    is_body: bool,
}

impl<'de> Deserializer<'de> for ValueReader<'_> {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let value = self.value.clone();
        value.deserialize_any(visitor).map_err(|error| FieldError(error.to_string()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.value {
            Value::String(text) => visitor.visit_str(text),
            other => Err(FieldError(format!("must be a text in quotes, not {other}"))),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.value {
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::String(text) if text == "true" && !self.is_body => visitor.visit_bool(true),
            Value::String(text) if text == "false" && !self.is_body => visitor.visit_bool(false),
            _ => Err(FieldError(String::from("must be true or false"))),
        }
    }

    /// For [`crate::api::requests::field_kinds::BoundedNumber`], which is told the text of what is no number.
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let text = match self.value {
            Value::String(text) if !self.is_body => text.clone(),
            // What is no number is not read as one: with its quotes a text is none.
            other => other.to_string(),
        };
        match text.parse() {
            Ok(number) => visitor.visit_u32(number),
            Err(_) => visitor.visit_string(text),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// Asks a type for the names of its fields.
struct NameProbe;

/// The names that a type asked for.
#[derive(Debug)]
struct KnownNames(&'static [&'static str]);

impl fmt::Display for KnownNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl std::error::Error for KnownNames {}

impl serde::de::Error for KnownNames {
    fn custom<T: fmt::Display>(_what: T) -> Self {
        Self(&[])
    }
}

impl<'de> Deserializer<'de> for NameProbe {
    type Error = KnownNames;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        names: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, KnownNames> {
        Err(KnownNames(names))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, KnownNames> {
        Err(KnownNames(&[]))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
