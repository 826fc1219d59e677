//! What holds for every key there is, however many there will be.

use super::super::outline::{ANY, Key, Kind, outline};
use super::super::schema::typed;
use super::*;

/// A file in which each key of the outline can be set: what some of them need beside them is there.
const FILE: &str = r#"
name_servers: a:1
vars: { any: x }
acl: { access_key: a, secret_key: b }
tls: { cert: a, key: b }
defaults: { rooms: [a], queues: [t/b/0] }
groups: { any: {} }
producers: { any: { group: any, cluster: any } }
clusters: { any: { name_servers: b:1, acl: { access_key: a, secret_key: b }, tls: { cert: a, key: b } } }
"#;

/// The keys that hold a value: path, documentation, what is expected, example values and default.
fn values() -> impl Iterator<Item = (Key, String, Vec<String>, String)> {
    outline().into_iter().filter_map(|key| match key.kind.clone() {
        Kind::Value { expected, schema, default } => Some((key, expected, examples(&schema), default)),
        _ => None,
    })
}

/// Values that the schema itself names.
fn examples(schema: &serde_json::Value) -> Vec<String> {
    let text = |value: &serde_json::Value| value.as_str().map_or(value.to_string(), str::to_owned);
    let named = ["examples", "enum"].into_iter().filter_map(|word| schema[word].as_array());
    let mut examples: Vec<String> = named.flatten().map(text).collect();
    examples.extend(schema.get("const").map(text));
    examples.extend(schema["anyOf"].as_array().into_iter().flatten().flat_map(self::examples));
    match &schema["type"] {
        kind if kind == "boolean" => examples.extend(["true".to_owned(), "false".to_owned()]),
        kind if kind == "integer" && examples.is_empty() => examples.push(text(&schema["minimum"])),
        kind if kind.is_array() && schema["pattern"].is_null() => examples.push("any".to_owned()),
        _ => {}
    }
    examples
}

#[test]
fn every_key_is_documented_with_its_range_and_its_default() {
    let mut wrong = Vec::new();
    for (key, expected, _, default) in values() {
        let (path, text) = (key.path.join("."), &key.documentation);
        let is_obvious = default == "null" || default == "[]" || path.ends_with("name_servers");
        let says_default = [format!("default {default}"), format!("default `{default}`")];
        // A list is told in words.
        let is_told = says_default.iter().any(|words| text.contains(words)) || default.starts_with('[');
        if !(is_obvious || is_told) || text.is_empty() {
            wrong.push(format!("{path}: that it is {default} by default is not told: {text}"));
        }
        if let Some((_, range)) = expected.split_once(" from ") {
            let range = range.trim_end_matches(", or null");
            let is_told = text.contains(range) || range.contains("level") || path.ends_with("retry_delay");
            if !is_told {
                wrong.push(format!("{path}: that it takes {range} is not told: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_key_can_be_set_from_the_environment() {
    let mut count = 0;
    for (key, _, examples, default) in values() {
        let path: Vec<&str> =
            key.path.iter().map(|key| if key == ANY { "any" } else { key.as_str() }).collect();
        let variable = format!("ROCKETMQ__{}", path.join("__").to_uppercase());
        let (path, source) = (path.join("."), format!("{variable} (environment)"));
        // One that is not the default, if any can stand for itself.
        let (usual, other): (Vec<_>, Vec<_>) = examples.into_iter().partition(|value| *value == default);
        let set = other.into_iter().chain(usual).find_map(|value| {
            let loaded = load(FILE, &[(&variable, &value)]).ok()?;
            let set = loaded.effective().iter().find(|effective| effective.key == path)?.clone();
            (set.source == source).then_some((value, set.value))
        });
        let (value, effective) = set.unwrap_or_else(|| panic!("{variable} sets nothing"));
        let is_same = [value.clone(), "***".to_owned(), format!("[{value}]")].contains(&effective)
            || typed(&value) == typed(&effective)
            || value.parse::<ByteSize>().is_ok_and(|size| size.to_string() == effective);
        assert!(is_same, "{variable}={value} gave {effective}");
        count += 1;
    }
    assert!(100 < count, "only {count} keys");
}

#[test]
fn a_variable_can_hold_a_list() {
    let loaded = load(
        FILE,
        &[("ROCKETMQ__DEFAULTS__ROOMS", "[a, b]"), ("ROCKETMQ__PRODUCERS__ANY__RETRY_CODES", "[1, 2]")],
    );
    let config = loaded.unwrap().config;
    assert_eq!(config.defaults.rooms, ["a", "b"]);
    assert_eq!(config.producers["any"].retry_codes.len(), 2);
    let error = load(FILE, &[("ROCKETMQ__PRODUCERS__ANY__RETRY_CODES", "[1, x]")]).unwrap_err().to_string();
    assert!(error.contains("ROCKETMQ__PRODUCERS__ANY__RETRY_CODES"), "{error}");
}
