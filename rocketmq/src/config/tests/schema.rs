//! The schema: it is shipped, and it accepts and refuses what the library does, as far as a schema can.

use regex_lite::Regex;
use serde_json::{Value as Json, json};

use super::super::schema;
use super::{DOCUMENTED, KEYS, SHIPPED, kept, load};

#[test]
fn the_shipped_schema_is_that_of_the_library() {
    kept(concat!(env!("CARGO_MANIFEST_DIR"), "/../rocketmq.schema.json"), &schema());
}

#[test]
fn the_shipped_file_and_the_documented_one_follow_the_schema() {
    for text in [&std::fs::read_to_string(SHIPPED).unwrap(), DOCUMENTED] {
        assert_eq!(faults(text), Vec::<String>::new());
    }
}

/// Lines that the library accepts, and lines that it refuses; the schema agrees about each.
#[test]
fn the_schema_agrees_with_the_library() {
    let good = [
        "client:",
        "client: { request_timeout: 1s 500ms, max_frame: 1048576, namespace: , instance: 5 }",
        "client: { request_timeout: \"${T:3s}\", max_in_flight: \"${N:5}\", vip_channel: \"${V:false}\" }",
        "defaults: { consume_from: 2026-01-31T00:00:00+08:00, max_reconsume: null, retry_delay: 3 }",
        "defaults: { rooms: room1, queues: [topic/broker-a/0], flow: }",
        "groups: { a: , b: { flow: { span: 1 } } }",
        "producers: { p: { retry_codes: [1, 2], compression: zstd } }",
        "clusters: { dr: { name_servers: [\"[::1]:9876\", \"b:1;c:1\"] } }",
        "health: { listen: 127.0.0.1:8086 }",
        "vars: { a: x, b: 5 }",
    ];
    for line in good {
        let text = format!("name_servers: a:1;b:2\n{line}");
        assert!(load(&text, &[]).is_ok(), "{line}: {:?}", load(&text, &[]));
        assert_eq!(faults(&text), Vec::<String>::new(), "{line}");
    }
    for (line, place) in [
        ("clients: {}", "clients"),
        ("client: { requestTimeout: 3s }", "client.requestTimeout"),
        ("client: { request_timeout: 3 }", "client.request_timeout"),
        ("client: { request_timeout: soon }", "client.request_timeout"),
        ("client: { max_frame: 4MB }", "client.max_frame"),
        ("client: { max_in_flight: 0 }", "client.max_in_flight"),
        ("client: { startup: wiat }", "client.startup"),
        ("client: [a]", "client"),
        ("defaults: { concurrency: \"64\" }", "defaults.concurrency"),
        ("defaults: { concurrency: 70000 }", "defaults.concurrency"),
        ("defaults: { enabled: maybe }", "defaults.enabled"),
        ("defaults: { retry_delay: 19 }", "defaults.retry_delay"),
        ("defaults: { consume_from: yesterday }", "defaults.consume_from"),
        ("groups: { a: { batch: 2000 } }", "groups.a.batch"),
        ("groups: { a: 5 }", "groups.a"),
        ("producers: { p: { retry_codes: [many] } }", "producers.p.retry_codes"),
        ("clusters: { dr: { name_servers: b } }", "clusters.dr.name_servers"),
        ("health: { listen: here }", "health.listen"),
        ("vars: { a: [x] }", "vars.a"),
    ] {
        let text = format!("name_servers: a:1\n{line}");
        assert!(load(&text, &KEYS).is_err(), "{line}");
        assert_eq!(faults(&text), [place], "{line}");
    }
}

/// The keys of `yaml` that are not as the shipped schema wants them.
fn faults(yaml: &str) -> Vec<String> {
    let schema: Json = serde_json::from_str(&schema()).unwrap();
    let value: Json = serde_yaml::from_str(yaml).unwrap();
    let mut faults = Vec::new();
    check(&schema, &schema, &value, &mut Vec::new(), &mut faults);
    faults
}

/// As much of JSON Schema (draft 7) as our schema uses, by the letter of the standard; another word is a failure.
fn check(root: &Json, schema: &Json, value: &Json, path: &mut Vec<String>, faults: &mut Vec<String>) {
    let before = faults.len();
    let fault = |faults: &mut Vec<String>| faults.push(path.join("."));
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            "$schema" | "title" | "definitions" | "description" | "default" | "examples" => {}
            "properties" | "additionalProperties" => {}
            "$ref" => {
                let target = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(target).unwrap(), value, &mut path.clone(), faults);
            }
            "type" => {
                let types = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                if !types.iter().any(|kind| is_of(kind.as_str().unwrap(), value)) {
                    fault(faults);
                }
            }
            "anyOf" => {
                let accepts = |schema: &Json| {
                    let mut faults = Vec::new();
                    check(root, schema, value, &mut path.clone(), &mut faults);
                    faults.is_empty()
                };
                if !rule.as_array().unwrap().iter().any(accepts) {
                    fault(faults);
                }
            }
            "enum" if rule.as_array().unwrap().contains(value) => {}
            "const" if rule == value => {}
            "enum" | "const" => fault(faults),
            "pattern" => {
                let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                    fault(faults);
                }
            }
            "minimum" if value.as_f64() < rule.as_f64() && value.is_number() => fault(faults),
            "maximum" if value.as_f64() > rule.as_f64() => fault(faults),
            "minItems"
                if value.as_array().is_some_and(|list| (list.len() as u64) < rule.as_u64().unwrap()) =>
            {
                fault(faults);
            }
            "minimum" | "maximum" | "minItems" => {}
            "items" => {
                for value in value.as_array().into_iter().flatten() {
                    check(root, rule, value, &mut path.clone(), faults);
                }
            }
            other => panic!("{other} is not known here"),
        }
    }
    if faults.len() > before {
        return;
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        path.push(key.clone());
        let own = schema["properties"].get(key).or(schema.get("additionalProperties"));
        match own {
            None | Some(Json::Bool(true)) => {}
            Some(Json::Bool(false)) => faults.push(path.join(".")),
            Some(schema) => check(root, schema, value, path, faults),
        }
        path.pop();
    }
}

fn is_of(kind: &str, value: &Json) -> bool {
    match kind {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => *value == json!(null),
        other => panic!("{other} is no type"),
    }
}
