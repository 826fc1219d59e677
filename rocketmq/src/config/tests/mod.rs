//! The configuration as a whole: the files that users have, and what becomes of them.

mod anything;
mod errors;
mod every_key;
mod reference;
mod schema;

use std::collections::BTreeMap;
use std::time::Duration;

use super::load::{assemble, from_text};
use super::*;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../rocketmq.yaml");

/// A file that is made from the code and kept in the repository: with `REGENERATE=1` it is written anew.
fn kept(path: &str, text: &str) {
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let is_same = std::fs::read_to_string(path).is_ok_and(|kept| kept == text);
    assert!(
        is_same,
        "{path} is no longer what the code says; write it anew: REGENERATE=1 cargo test -p rocketmq config"
    );
}

fn env(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<LoadedConfig, ConfigErrors> {
    from_text("rocketmq.yaml", text, env(variables))
}

/// The configuration of a text with the line that every file needs before it.
fn config(text: &str) -> Config {
    load(&format!("name_servers: embedded\n{text}"), &[]).unwrap().config
}

/// The full file of the documentation.
const DOCUMENTED: &str = r#"# yaml-language-server: $schema=./rocketmq.schema.json
vars:                                # for ${…} here and in attributes; the environment wins over this map
  mail.topic: mails-${APP_ENV:dev}

name_servers: ${NAMESRV_ADDR:embedded}

client:
  namespace: ""                      # namespace v1; namespace_v2 excludes it
  instance: null                     # default: pid#random, unique (spring#268)
  request_timeout: 3s
  connect_timeout: 3s
  route_interval: 30s
  heartbeat_interval: 30s
  rebalance_interval: 20s
  offset_interval: 5s
  startup: fail
  startup_timeout: 30s
  shutdown_timeout: 30s
  offset_dir: ~/.rocketmq_offsets

acl: { access_key: "${RMQ_AK}", secret_key: "${RMQ_SK}", security_token: null }
tls: { enabled: false, ca: null, cert: null, key: null, server_name: null, insecure: false }
trace: { enabled: false, topic: RMQ_SYS_TRACE_TOPIC }
health: { listen: null }

defaults:
  concurrency: 20
  batch: 1
  pull_batch: 32
  consume_from: last
  max_reconsume: 16
  retry_delay: broker
  suspend: 1s
  consume_timeout: 15m
  on_bad_payload: dead_letter
  flow: { messages_per_queue: 1000, mib_per_queue: 100, span: 2000 }
  allocate: averagely

groups:
  testGroup: {}
  orders: { concurrency: 64, max_reconsume: 5 }
  bulk: { batch: 200, pull_batch: 200 }
  ledger: { suspend: 500ms }
  quotes: {}
  mail: { enabled: "${MAIL_ON:true}" }

producers:
  default: { group: app, send_timeout: 3s, retries: 2, retry_other_broker: false, compress_over: 4KiB, max_message: 4MiB }
  orders: { group: orders_tx, transaction: true }

clusters:
  dr:
    name_servers: [10.0.0.1:9876, 10.0.0.2:9876]
    acl: { access_key: "${DR_AK}", secret_key: "${DR_SK}" }
    tls: { enabled: true, ca: /etc/ssl/dr.pem }
"#;

const KEYS: [(&str, &str); 4] =
    [("RMQ_AK", "0012"), ("RMQ_SK", "hunter2"), ("DR_AK", "dr"), ("DR_SK", "hunter3")];

#[test]
fn the_documented_file_is_read_as_documented() {
    let Config { vars, cluster, defaults, groups, producers, clusters, .. } =
        load(DOCUMENTED, &KEYS).unwrap().config;
    assert_eq!(vars["mail.topic"].expose(), "mails-dev");
    assert_eq!(cluster.name_servers, NameServers::Embedded);
    assert_eq!(cluster.client, ClientConfig::default());
    // Text keeps its zeros although YAML would call it a number.
    assert_eq!(cluster.acl, Some(AclConfig::new("0012", "hunter2")));
    assert_eq!(defaults, ConsumerConfig { max_reconsume: Some(16), ..ConsumerConfig::default() });
    let groups = groups.unwrap();
    assert_eq!(groups.len(), 6);
    assert_eq!(
        groups["orders"],
        ConsumerConfig { concurrency: 64, max_reconsume: Some(5), ..defaults.clone() }
    );
    assert_eq!(groups["bulk"], ConsumerConfig { batch: 200, pull_batch: 200, ..defaults.clone() });
    assert_eq!(groups["ledger"].suspend, Duration::from_millis(500));
    assert_eq!(groups["mail"], defaults);
    assert_eq!(producers["default"].group.as_deref(), Some("app"));
    assert!(producers["orders"].transaction);
    let dr = &clusters["dr"];
    assert_eq!(dr.name_servers, "10.0.0.1:9876;10.0.0.2:9876".parse().unwrap());
    assert_eq!(dr.acl, Some(AclConfig::new("dr", "hunter3")));
    assert!(dr.tls.enabled);
}

#[test]
fn the_shipped_file_is_valid_and_holds_the_defaults() {
    let sources = Sources { file: Some(SHIPPED.into()), ..Sources::default() };
    let config = sources.load().unwrap().config;
    let test_group = BTreeMap::from([("testGroup".to_owned(), ConsumerConfig::default())]);
    assert_eq!(config, Config { groups: Some(test_group), ..Config::default() });
}

#[test]
fn the_shipped_file_names_every_key() {
    let sources = Sources { file: Some(SHIPPED.into()), ..Sources::default() };
    let loaded = sources.load().unwrap();
    let unnamed = loaded.effective().iter().filter(|value| value.source == "default");
    let unnamed: Vec<&str> = unnamed.map(|value| value.key.as_str()).collect();
    // These are there as comments: the file must work where nobody has set the keys.
    assert_eq!(unnamed, ["acl.access_key", "acl.secret_key", "acl.security_token"]);
}

#[test]
fn each_key_is_accepted_in_the_form_in_which_it_is_shown() {
    let loaded = load(DOCUMENTED, &KEYS).unwrap();
    for value in loaded.effective().iter().filter(|value| value.value != "***" && !value.key.contains("acl"))
    {
        let mut text = String::new();
        let keys: Vec<&str> = value.key.split('.').collect();
        for (depth, key) in keys.iter().enumerate() {
            text.push_str(&format!("\n{:indent$}{key}:", "", indent = 2 * depth));
        }
        let more = match keys.as_slice() {
            ["name_servers"] => String::new(),
            ["clusters", name, "name_servers"] => format!("name_servers: {name}:1"),
            ["clusters", name, ..] => {
                format!("name_servers: {name}:1\nclusters: {{ {name}: {{ name_servers: a:1 }} }}")
            }
            _ => "name_servers: embedded".to_owned(),
        };
        let upper = format!("{more}\n");
        let lower = format!("{text} {}\n", value.value);
        let files = [("a.yaml".to_owned(), upper), ("b.yaml".to_owned(), lower)];
        let transaction = value.key.ends_with("transaction") && value.value == "true";
        match assemble(&files, BTreeMap::new()) {
            Ok(again) => {
                let again = again.effective().iter().find(|other| other.key == value.key).unwrap();
                assert_eq!(again.value, value.value, "{}", value.key);
            }
            Err(error) => assert!(transaction, "{}: {error}", value.key),
        }
    }
}

#[test]
fn defaults_pass_their_own_checks() {
    assert_eq!(Config::default().check(), Ok(()));
}

#[test]
fn layers_are_put_over_each_other_in_their_order() {
    let files = [
        (
            "rocketmq.yaml".to_owned(),
            "name_servers: a:1\nclient: { request_timeout: 1s, connect_timeout: 1s, \
          route_interval: 1s }\ngroups:\n  testGroup: { batch: 2 }\n  other:\n"
                .to_owned(),
        ),
        (
            "rocketmq-prod.yaml".to_owned(),
            "name_servers: [b:1, c:1]\nclient: { connect_timeout: 2s, \
          route_interval: 2s }\ndefaults:\ngroups:\n  testGroup:\n"
                .to_owned(),
        ),
    ];
    let environment =
        env(&[("ROCKETMQ__CLIENT__ROUTE_INTERVAL", "3s"), ("ROCKETMQ__GROUPS__TESTGROUP__CONCURRENCY", "8")]);
    let loaded = assemble(&files, environment).unwrap();
    let client = &loaded.config.cluster.client;
    assert_eq!(loaded.config.cluster.name_servers, "b:1;c:1".parse().unwrap());
    assert_eq!(client.request_timeout, Duration::from_secs(1));
    assert_eq!(client.connect_timeout, Duration::from_secs(2));
    assert_eq!(client.route_interval, Duration::from_secs(3));
    // The environment is upper case; the group keeps the name of the file, and what an empty section in
    // the layer above does not say.
    let groups = loaded.config.groups.as_ref().unwrap();
    assert_eq!(groups.keys().collect::<Vec<_>>(), ["other", "testGroup"]);
    assert_eq!((groups["testGroup"].concurrency, groups["testGroup"].batch), (8, 2));

    let sources =
        |key: &str| loaded.effective().iter().find(|value| value.key == key).map(ToString::to_string);
    let shown: Vec<String> = [
        "name_servers",
        "client.request_timeout",
        "client.connect_timeout",
        "client.route_interval",
        "client.offset_interval",
        "groups.testGroup.batch",
        "groups.testGroup.concurrency",
    ]
    .into_iter()
    .filter_map(sources)
    .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    name_servers = b:1;c:1  # rocketmq-prod.yaml:1
    client.request_timeout = 1s  # rocketmq.yaml:2
    client.connect_timeout = 2s  # rocketmq-prod.yaml:2
    client.route_interval = 3s  # ROCKETMQ__CLIENT__ROUTE_INTERVAL (environment)
    client.offset_interval = 5s  # default
    groups.testGroup.batch = 2  # rocketmq.yaml:4
    groups.testGroup.concurrency = 8  # ROCKETMQ__GROUPS__TESTGROUP__CONCURRENCY (environment)
    ");
}

#[test]
fn the_file_of_the_profile_lies_beside_the_file() {
    let folder = std::env::temp_dir().join(format!("rocketmq-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("mq.yaml");
    std::fs::write(&file, "name_servers: a:1").unwrap();
    std::fs::write(folder.join("mq-prod.yaml"), "name_servers: b:1").unwrap();
    let with = |variables: &[(&str, &str)]| Sources {
        file: Some(file.clone()),
        env: env(variables),
        ..Sources::default()
    };
    let base = with(&[]).load().unwrap().config;
    let prod = with(&[("ROCKETMQ_PROFILE", "prod")]).load().unwrap().config;
    let missing = with(&[("ROCKETMQ_PROFILE", "test")]).load().unwrap_err().to_string();
    let outside = with(&[("ROCKETMQ_PROFILE", "../prod")]).load();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(base.cluster.name_servers.to_string(), "a:1");
    assert_eq!(prod.cluster.name_servers.to_string(), "b:1");
    assert!(missing.contains("mq-test.yaml") && missing.contains("ROCKETMQ_PROFILE"), "{missing}");
    assert!(outside.is_err());
}

#[test]
fn a_group_takes_what_it_does_not_say_from_the_defaults_and_says_whose_it_is() {
    let text = "name_servers: embedded\ndefaults:\n  batch: 7\n  flow: { span: 9 }\ngroups:\n  a: { flow: { span: 5 } }\n  b:\n";
    let loaded = load(text, &[]).unwrap();
    let groups = loaded.config.groups.as_ref().unwrap();
    assert_eq!((groups["a"].batch, groups["a"].flow.span), (7, 5));
    assert_eq!((groups["b"].batch, groups["b"].flow.span), (7, 9));
    let shown: Vec<String> = loaded
        .effective()
        .iter()
        .filter(|value| {
            let is_group = value.key.starts_with("groups.") || value.key.starts_with("defaults.");
            is_group && !value.key.contains("pop") && value.key.ends_with(".batch")
                || value.key.ends_with("span")
        })
        .map(ToString::to_string)
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    defaults.batch = 7  # rocketmq.yaml:3
    defaults.flow.span = 9  # rocketmq.yaml:4
    groups.a.batch = 7  # rocketmq.yaml:3
    groups.a.flow.span = 5  # rocketmq.yaml:6
    groups.b.batch = 7  # rocketmq.yaml:3
    groups.b.flow.span = 9  # rocketmq.yaml:4
    ");
}

#[test]
fn another_cluster_takes_over_the_client_but_no_credentials() {
    let text = "acl: { access_key: a, secret_key: b }\ntls: { enabled: true }\nclient: { request_timeout: 9s }\n\
                clusters: { dr: { name_servers: d:1, client: { connect_timeout: 1s } } }";
    let config = config(text);
    let dr = config.cluster("dr").unwrap();
    assert_eq!(dr.client.request_timeout, Duration::from_secs(9));
    assert_eq!(dr.client.connect_timeout, Duration::from_secs(1));
    assert_eq!((&dr.acl, dr.tls.enabled), (&None, false));
    assert!(config.cluster(DEFAULT_CLUSTER).unwrap().tls.enabled);
}

#[test]
fn groups_absent_and_groups_empty_are_not_the_same() {
    assert_eq!(config("").groups, None);
    assert_eq!(config("groups:").groups, None);
    assert_eq!(config("groups: {}").groups, Some(BTreeMap::new()));
    assert_eq!(config("groups: { a: }").group("a"), &ConsumerConfig::default());
}

#[test]
fn a_lone_placeholder_takes_the_type_of_its_value_and_cannot_change_the_shape() {
    let text = "name_servers: embedded\ndefaults: { enabled: \"${ON}\", concurrency: \"${N:8}\" }\nclient: { instance: \"${X}\" }";
    let loaded = load(text, &[("ON", "false"), ("X", "{ a: [1] }")]).unwrap();
    assert_eq!((loaded.config.defaults.enabled, loaded.config.defaults.concurrency), (false, 8));
    assert_eq!(loaded.config.cluster.client.instance.as_deref(), Some("{ a: [1] }"));
    assert!(load("name_servers: embedded\nclient: \"${X}\"", &[("X", "{ unit: a }")]).is_err());
}

#[test]
fn text_in_attributes_is_resolved_from_the_same_places() {
    let loaded = load(DOCUMENTED, &[&KEYS[..], &[("TEAM", "red")]].concat()).unwrap();
    assert_eq!(loaded.resolve("${mail.topic:mails}").unwrap(), "mails-dev");
    assert_eq!(loaded.resolve("${TEAM}-${zone:eu}").unwrap(), "red-eu");
    insta::assert_snapshot!(loaded.resolve("${NO}").unwrap_err().at("src/main.rs:12"), @r"
    src/main.rs:12  `${NO}` is not set and has no default
          set the environment variable NO, or a key NO under `vars:`
    ");
}

#[test]
fn the_place_of_a_key_is_known_for_sections_too() {
    let loaded = load(
        "name_servers: embedded\ngroups:\n  a: {}\n  bulk:\n    batch: 2\n",
        &[("ROCKETMQ__GROUPS__A__BATCH", "3")],
    );
    let loaded = loaded.unwrap();
    for (key, place) in [
        ("groups.bulk", Some("rocketmq.yaml:4")),
        ("groups.bulk.batch", Some("rocketmq.yaml:5")),
        ("groups.a.batch", Some("ROCKETMQ__GROUPS__A__BATCH (environment)")),
        ("groups.c", None),
        ("", None),
    ] {
        assert_eq!(loaded.place_of(key).as_deref(), place, "{key}");
    }
}

#[test]
fn names_in_the_environment_match_without_case_and_with_underscores_for_other_signs() {
    let text = "name_servers: embedded\nvars: { mail.topic: a }\ngroups: { order-Events: , a: , a__b: , twin-x: , twin_x: }";
    let loaded = load(
        text,
        &[
            ("ROCKETMQ__GROUPS__ORDER_EVENTS__BATCH", "2"),
            ("ROCKETMQ__GROUPS__A__B__BATCH", "3"),
            ("ROCKETMQ__GROUPS__A__FLOW__SPAN", "4"),
            ("ROCKETMQ__PRODUCERS__DEFAULT__RETRIES", "5"),
            ("ROCKETMQ__VARS__MAIL_TOPIC", "${not a placeholder"),
        ],
    )
    .unwrap();
    let groups = loaded.config.groups.as_ref().unwrap();
    assert_eq!((groups["order-Events"].batch, groups["a__b"].batch, groups["a"].flow.span), (2, 3, 4));
    assert_eq!(loaded.config.producers["default"].retries, 5);
    assert_eq!(loaded.resolve("${mail.topic}").unwrap(), "${not a placeholder");
    assert!(load(text, &[("ROCKETMQ__GROUPS__TWIN_X__BATCH", "2")]).is_err());
    // As they are, where a variable can be called so.
    let literal = [("ROCKETMQ__GROUPS__ORDER-EVENTS__BATCH", "6"), ("ROCKETMQ__VARS__MAIL.TOPIC", "b")];
    let loaded = load(text, &literal).unwrap();
    assert_eq!(loaded.config.groups.as_ref().unwrap()["order-Events"].batch, 6);
    assert_eq!(loaded.resolve("${mail.topic}").unwrap(), "b");
}

#[test]
fn the_environment_cannot_remove_a_section() {
    let text = "name_servers: embedded\nclient: { unit: a }";
    for (variable, value) in
        [("ROCKETMQ__CLIENT", ""), ("ROCKETMQ__CLIENT", "x"), ("ROCKETMQ__", ""), ("ROCKETMQ____", "")]
    {
        let environment = [(variable, value), ("ROCKETMQ__CLIENT__UNIT", "b")];
        assert!(load(text, &environment).is_err(), "{variable}={value}");
    }
}
