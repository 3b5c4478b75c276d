//! Reads YAML documents as JSON values.

use anyhow::Context;
use anyhow::bail;
use saphyr::LoadableYamlNode;
use saphyr::Scalar;
use saphyr::Yaml;
use serde_json::Map;
use serde_json::Value;

/// The first document of the text.
///
/// # Errors
/// It is no YAML, or has keys that are no texts.
pub(crate) fn read(text: &str) -> anyhow::Result<Value> {
    Ok(documents(text)?.into_iter().next().unwrap_or_default())
}

/// Every document of the text that holds something.
///
/// # Errors
/// As [`read`].
pub fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents = Yaml::load_from_str(text).context("is no YAML")?;
    let values: Vec<Value> = documents.into_iter().map(json).collect::<anyhow::Result<_>>()?;
    Ok(values.into_iter().filter(|value| !value.is_null()).collect())
}

fn json(yaml: Yaml<'_>) -> anyhow::Result<Value> {
    Ok(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(flag)) => flag.into(),
        Yaml::Value(Scalar::Integer(number)) => number.into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.into_owned().into(),
        Yaml::Representation(text, ..) => text.into_owned().into(),
        Yaml::Tagged(_, inner) => json(*inner)?,
        Yaml::Sequence(items) => {
            items.into_iter().map(json).collect::<anyhow::Result<Vec<_>>>()?.into()
        }
        Yaml::Mapping(members) => {
            let mut object = Map::new();
            for (name, member) in members {
                let name = match json(name)? {
                    Value::String(name) => name,
                    // `on:` and the like.
                    other => other.to_string(),
                };
                object.insert(name, json(member)?);
            }
            Value::Object(object)
        }
        Yaml::Alias(_) | Yaml::BadValue => bail!("holds a value that is not understood"),
    })
}
