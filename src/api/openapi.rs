//! `GET /api/v1/openapi.json`: what the surface offers, for people and for generators of clients.

use axum::http::header;
use axum::response::IntoResponse;

const DOCUMENT: &str = include_str!("openapi.json");

pub(crate) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::api::GUARDED;
    use crate::api::OPEN;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).expect("the document is JSON")
    }

    #[test]
    fn each_path_is_described_and_nothing_else() {
        let document = document();
        let described = document["paths"].as_object().expect("paths").keys().map(String::as_str);
        let there = OPEN.iter().chain(GUARDED).map(|(path, _)| *path);
        assert_eq!(described.collect::<BTreeSet<_>>(), there.collect::<BTreeSet<_>>());
    }

    #[test]
    fn each_reference_leads_somewhere() {
        fn follow(whole: &Value, part: &Value) {
            match part {
                Value::Object(fields) => {
                    if let Some(Value::String(target)) = fields.get("$ref") {
                        let pointer = target.strip_prefix('#').expect("a place in this document");
                        assert!(whole.pointer(pointer).is_some(), "{target}");
                    }
                    fields.values().for_each(|value| follow(whole, value));
                }
                Value::Array(items) => items.iter().for_each(|item| follow(whole, item)),
                _ => {}
            }
        }
        let document = document();
        follow(&document, &document);
    }
}
