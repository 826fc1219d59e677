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

/// Values that a key cannot have: a word that is none of its words, and what is just outside of its range.
fn wrong_values(expected: &str, schema: &serde_json::Value) -> Vec<String> {
    let range = expected.split_once(" from ").and_then(|(_, range)| {
        let (least, rest) = range.split_once(" to ")?;
        Some((least, rest.split([',', ' ']).next()?))
    });
    let is_text = ["a path", "text"].iter().any(|kind| expected.ends_with(kind));
    let kind = &schema["type"];
    match range {
        // Only keys with values are no text.
        None if is_text || expected.contains("list") => vec!["{ a: 1 }".to_owned()],
        None => vec!["no-such-word".to_owned(), "{ a: 1 }".to_owned()],
        Some((least, most)) if expected.starts_with("a duration") => {
            let below = (!least.starts_with('0')).then(|| "1us".to_owned());
            below.into_iter().chain([format!("{most} 1ms"), "1".to_owned(), "-1s".to_owned()]).collect()
        }
        Some((least, most)) if expected.starts_with("a size") => {
            let most: ByteSize = most.parse().unwrap();
            let below = (!least.starts_with('0')).then(|| "0B".to_owned());
            below.into_iter().chain([format!("{}", most.as_u64() + 1), "4MB".to_owned()]).collect()
        }
        Some((least, most)) => {
            let [least, most]: [i64; 2] = [least, most].map(|end| end.parse().unwrap());
            assert!(kind == "integer" || schema["anyOf"].is_array(), "{schema}");
            [least - 1, most + 1]
                .map(|value| value.to_string())
                .into_iter()
                .chain(["many".to_owned()])
                .collect()
        }
    }
}

/// A file that sets one key, behind the lines of the keys around it.
fn file_with(path: &[&str], value: &str) -> String {
    let above = path.iter().enumerate();
    let lines = above.map(|(depth, key)| format!("{:indent$}{key}:", "", indent = 2 * depth));
    format!("{} {value}\n", lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_wrong_value_of_any_key_is_refused_at_its_place_with_what_is_permitted() {
    let mut count = 0;
    for key in outline() {
        let Kind::Value { expected, schema, .. } = &key.kind else { continue };
        let path: Vec<&str> =
            key.path.iter().map(|key| if key == ANY { "any" } else { key.as_str() }).collect();
        for wrong in wrong_values(expected, schema) {
            let files =
                [("a.yaml".to_owned(), FILE.to_owned()), ("b.yaml".to_owned(), file_with(&path, &wrong))];
            let name = path.join(".");
            let error = match assemble(&files, BTreeMap::new()) {
                Ok(_) => panic!("{name}: {wrong} is accepted"),
                Err(error) => error.to_string(),
            };
            let column = 2 * (path.len() - 1) + path.last().unwrap().len() + 3;
            let found =
                if wrong.starts_with('{') { "found keys with values".to_owned() } else { wrong.clone() };
            let words = schema["enum"].as_array().into_iter().flatten();
            let words = words.filter_map(|word| word.as_str()).map(|word| format!("`{word}`"));
            let parts = [format!("b.yaml:{}:{column}  {name}: ", path.len()), found];
            for part in parts.into_iter().chain(words) {
                assert!(error.contains(&part), "{name}: {wrong}: {part} is not in {error}");
            }
            // A level of retries is told in words of its own.
            let permitted = format!("expected {expected}, found");
            assert!(
                error.contains(&permitted) || error.contains("levels 1 to 18"),
                "{name}: {wrong}: {error}"
            );
            count += 1;
        }
    }
    assert!(200 < count, "only {count} values");
}

/// The words themselves, which the test above takes from where the errors come from.
#[test]
fn the_words_and_limits_are_those_that_are_promised() {
    for (key, wrong, permitted) in [
        (
            "defaults.allocate",
            "nearest",
            "`averagely`, `circle`, `consistent_hash`, `by_config`, `machine_room` or `machine_room_nearby`",
        ),
        ("defaults.mode", "push", "`pull` or `pop`"),
        ("defaults.rebalance", "server", "`client` or `broker`"),
        ("defaults.consume_from", "middle", "`last`, `first` or a time such as `2026-01-31T00:00:00Z`"),
        ("defaults.on_bad_payload", "drop", "`dead_letter`, `retry` or `skip`"),
        ("defaults.on_undecodable", "retry", "`dead_letter` or `skip`"),
        ("defaults.retry_delay", "never", "`broker` or a level from 1 to 18"),
        ("defaults.rate_limit", "0/s", "1 to 4294967295 messages for each of s, m and h"),
        ("defaults.queues", "topic/0", "a list, each a queue such as `topic/broker-a/0`"),
        ("defaults.concurrency", "0", "a whole number from 1 to 65535"),
        ("defaults.flow.messages_per_queue", "65536", "a whole number from 1 to 65535"),
        ("defaults.flow.mib_per_queue", "1025", "a whole number from 1 to 1024"),
        ("defaults.flow.span", "0", "a whole number from 1 to 65535"),
        ("defaults.flow.messages_per_topic", "0", "a whole number from 1 to 6553500, or null"),
        ("defaults.flow.mib_per_topic", "102401", "a whole number from 1 to 102400, or null"),
        ("defaults.pop.invisible_time", "4s", "a duration from 5s to 5m"),
        ("defaults.pop.batch", "33", "a whole number from 1 to 32"),
        ("client.startup", "later", "`fail` or `wait`"),
        ("client.serialize", "xml", "`json` or `rocketmq`"),
        ("producers.any.compression", "gzip", "`zlib`, `lz4` or `zstd`"),
        ("producers.any.retries", "17", "a whole number from 0 to 16"),
    ] {
        let path: Vec<&str> = key.split('.').collect();
        let files = [("a.yaml".to_owned(), FILE.to_owned()), ("b.yaml".to_owned(), file_with(&path, wrong))];
        let error = assemble(&files, BTreeMap::new()).unwrap_err().to_string();
        for part in [key, wrong, permitted] {
            assert!(error.contains(part), "{key}: {part} is not in {error}");
        }
    }
}

#[test]
fn a_variable_can_hold_a_list() {
    let loaded = load(
        FILE,
        &[
            ("ROCKETMQ__DEFAULTS__ROOMS", "[a, b]"),
            ("ROCKETMQ__PRODUCERS__ANY__RETRY_CODES", "[1, 2]"),
            ("ROCKETMQ__NAME_SERVERS", "[a:1, [::1]:2]"),
        ],
    );
    let config = loaded.unwrap().config;
    assert_eq!(config.cluster.name_servers.to_string(), "a:1;[::1]:2");
    assert_eq!(config.defaults.rooms, ["a", "b"]);
    assert_eq!(config.producers["any"].retry_codes.len(), 2);
    let error = load(FILE, &[("ROCKETMQ__PRODUCERS__ANY__RETRY_CODES", "[1, x]")]).unwrap_err().to_string();
    assert!(error.contains("ROCKETMQ__PRODUCERS__ANY__RETRY_CODES"), "{error}");
}
