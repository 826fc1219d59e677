//! The configuration in the words of JSON Schema, so that editors complete and check the file.

use serde_json::{Map, Value as Json, json};

use super::outline::{ANY, Key, Kind, outline};

/// The JSON schema of `rocketmq.yaml`: every key with its description, form, range and default.
///
/// The library's own is shipped as `rocketmq.schema.json`. Put it beside your file, or write it there with this
/// function, and name it in the first line; editors that know `yaml-language-server` then complete and check the file
/// as it is written:
///
/// ```yaml
/// # yaml-language-server: $schema=./rocketmq.schema.json
/// name_servers: 10.0.0.1:9876
/// ```
///
/// No key is required by it: a profile's file says only what differs. What relates keys to each other, and the ranges
/// of durations and sizes, only [`Config::load`](crate::Config::load) checks.
pub fn schema() -> String {
    let keys = outline();
    let mut schema = object(&keys, &[]);
    schema.insert("$schema".into(), json!("http://json-schema.org/draft-07/schema#"));
    schema.insert("title".into(), json!("rocketmq.yaml"));
    schema.insert("definitions".into(), json!({ "placeholder": placeholder() }));
    format!("{:#}\n", Json::Object(schema))
}

/// Wherever a value can stand, the name of one can.
fn placeholder() -> Json {
    json!({
        "type": "string",
        "pattern": r"\$\{",
        "description": "${NAME} or ${NAME:default}, from the environment or `vars:`; ${file:/path} is the text of a file",
    })
}

/// Text of any form: what YAML would take for a number or `true` is text where a key takes text.
pub(super) fn text() -> Json {
    json!({ "type": ["string", "number", "boolean"] })
}

/// The same, or nothing.
pub(super) fn nullable(schema: &Json) -> Json {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

/// A value as YAML would type it.
pub(super) fn typed(text: &str) -> Json {
    serde_yaml::from_str(text).unwrap_or_else(|_| text.into())
}

/// The section at `path`, or where to find it: a group has the keys of `defaults`, a cluster those of the top level.
fn section(keys: &[Key], path: &[String]) -> Map<String, Json> {
    let twin = match path {
        [groups, _] if groups == "groups" => "defaults",
        [clusters, _, section] if clusters == "clusters" => section.as_str(),
        _ => return object(keys, path),
    };
    entries([("$ref", format!("#/properties/{twin}").into())])
}

/// The section at `path`. One without keys may be written without braces.
fn object(keys: &[Key], path: &[String]) -> Map<String, Json> {
    let mut properties = Map::new();
    for key in keys.iter().filter(|key| key.path.split_last().is_some_and(|(_, above)| above == path)) {
        let Some(name) = key.path.last() else { continue };
        let mut description = key.documentation.clone();
        let mut schema = match &key.kind {
            Kind::Section => section(keys, &key.path),
            Kind::Names => {
                let each = [key.path.as_slice(), &[ANY.to_owned()]].concat();
                names(section(keys, &each).into())
            }
            Kind::Texts => names(text()),
            Kind::Value { schema, default, expected } => {
                description.push_str(&format!("\nTakes {expected}."));
                value(schema, default)
            }
        };
        schema.insert("description".into(), description.into());
        properties.insert(name.clone(), schema.into());
    }
    entries([
        ("type", json!(["object", "null"])),
        ("additionalProperties", json!(false)),
        ("properties", properties.into()),
    ])
}

fn names(each: Json) -> Map<String, Json> {
    entries([("type", json!(["object", "null"])), ("additionalProperties", each)])
}

fn value(schema: &Json, default: &str) -> Map<String, Json> {
    let either = json!([schema, { "$ref": "#/definitions/placeholder" }]);
    let mut value = entries([("anyOf", either)]);
    match typed(default) {
        // `null` for a secret that is not set, and the like: there is nothing to show.
        Json::Null => {}
        default => drop(value.insert("default".into(), default)),
    }
    value
}

fn entries<const N: usize>(entries: [(&str, Json); N]) -> Map<String, Json> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
