//! The errors that users see.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::*;
use super::{DOCUMENTED, KEYS, env, load};

fn errors(text: &str) -> String {
    load(text, &[]).unwrap_err().to_string()
}

#[test]
fn a_configuration_made_by_hand_is_held_to_the_same_rules() {
    let mut config = Config::default();
    config.defaults.concurrency = 0;
    config.cluster.client.pull_timeout = Duration::from_secs(1);
    config.cluster.name_servers = NameServers::Addresses(vec!["nowhere".to_owned()]);
    config.groups = Some(BTreeMap::from([("a b".to_owned(), ConsumerConfig::default())]));
    insta::assert_snapshot!(LoadedConfig::from_config(config, BTreeMap::new()).unwrap_err(), @r"
    rocketmq cannot start: 4 problems

      name_servers: `nowhere`: the port is missing; a name server listens on 9876 unless told otherwise
      client.pull_timeout: must be at least `pull_suspend` and 5s, 20s: an idle pull would time out
      defaults.concurrency: expected a whole number from 1 to 65535, found `0`
      groups.a b: ' ' cannot be in a group name; it may hold a-z A-Z 0-9 _ - % |

    nothing was started
    ");
    let consumer = ConsumerConfig { retry_delay: RetryDelay::Level(99), ..ConsumerConfig::default() };
    insta::assert_snapshot!(consumer.check().unwrap_err(), @r"
    rocketmq cannot start: 1 problem

      retry_delay: there are levels 1 to 18, not 99

    nothing was started
    ");
}

#[test]
fn of_a_list_the_wrong_element_is_shown() {
    let text = "\
name_servers: [10.0.0.1:9876, 10.0.0.2]
groups:
  a:
    queues:
      - t/broker-a/0
      - t/broker-b
producers: { default: { retry_codes: [1, two] } }
";
    insta::assert_snapshot!(errors(text), @r"
    rocketmq cannot start: 3 problems

      rocketmq.yaml:1:31  name_servers: expected `host:port`, several separated by `;` or as a list, or `embedded`, found `10.0.0.2` in the list
          1 | name_servers: [10.0.0.1:9876, 10.0.0.2]
            |                               ^^^^^^^^
            `10.0.0.2`: the port is missing; a name server listens on 9876 unless told otherwise
      rocketmq.yaml:6:9  groups.a.queues: expected a list, each a queue such as `topic/broker-a/0`, found `t/broker-b` in the list
          6 |       - t/broker-b
            |         ^^^^^^^^^^
            `t/broker-b` is not a queue such as `topic/broker-a/0`
      rocketmq.yaml:7:42  producers.default.retry_codes: expected a list, each the number of a response code, found `two` in the list
          7 | producers: { default: { retry_codes: [1, two] } }
            |                                          ^^^

    nothing was started
    ");
}

#[test]
fn what_is_merged_keeps_its_place_and_what_cannot_be_merged_is_told() {
    let text = "\
name_servers: n:1
groups:
  a: &base { concurency: 3, batch: 0 }
  b: { <<: *base, batch: 2 }
  c: { <<: base }
  d: { <<: *base, <<: *base }
";
    insta::assert_snapshot!(errors(text), @r"
    rocketmq cannot start: 7 problems

      rocketmq.yaml:3:14  groups.a.concurency: unknown key; did you mean `concurrency`?
          3 |   a: &base { concurency: 3, batch: 0 }
            |              ^^^^^^^^^^
      rocketmq.yaml:3:14  groups.b.concurency: unknown key; did you mean `concurrency`?
          3 |   a: &base { concurency: 3, batch: 0 }
            |              ^^^^^^^^^^
      rocketmq.yaml:3:14  groups.d.concurency: unknown key; did you mean `concurrency`?
          3 |   a: &base { concurency: 3, batch: 0 }
            |              ^^^^^^^^^^
      rocketmq.yaml:3:36  groups.a.batch: expected a whole number from 1 to 1024, found `0`
          3 |   a: &base { concurency: 3, batch: 0 }
            |                                    ^
      rocketmq.yaml:3:36  groups.d.batch: expected a whole number from 1 to 1024, found `0`
          3 |   a: &base { concurency: 3, batch: 0 }
            |                                    ^
      rocketmq.yaml:5:12  groups.c.<<: takes the keys of a mapping, as in `<<: *base`, or of a list of them
          5 |   c: { <<: base }
            |            ^^^^
      rocketmq.yaml:6:19  groups.d.<<: is here twice; the first is in line 6
          6 |   d: { <<: *base, <<: *base }
            |                   ^^

    nothing was started
    ");
}

#[test]
fn all_mistakes_are_reported_at_once_each_with_its_place() {
    let text = r#"name_servers: 127.0.0.1
client:
  request_timeout: 3
  startup: wiat
  max_frame: 4MB
  serialize: [json]
  instance: { a: 1 }
acl: { access_key: "${RMQ_AK:ak}", secret_key: "${RMQ_SK}" }
vars: { a: "${b}", b: "${a}", c: "${MISSING}", d: "${c}" }
defaults:
  concurency: 64
  concurrency: "64"
  batch: 0
  suspend: 31s
  enabled: yes
  consume_from: yesterday
  flow:
groups:
  orders: { concurrency: 64, flow: { spam: 1 } }
  DEFAULT_CONSUMER: {}
  "my group": {}
  bulk: 5
  orders: {}
producers:
  default: { group: a.b, transaction: maybe }
  tx: { transaction: true, cluster: rd }
trace: { topic: "${c}" }
health: { listen: localhost }
tls: { cert: a.pem }
clusters:
  dr: { client: { pull_suspend: 30s } }
  default: { name_servers: embedded }
listeners: {}
"#;
    let environment = [
        ("ROCKETMQ__GROUPS__ORDRES__CONCURRENCY", "8"),
        ("ROCKETMQ__CLIENT__REQUEST_TIMOUT", "8s"),
        ("ROCKETMQ__CLIENT__CONNECT_TIMEOUT", "8"),
        ("ROCKETMQ__CLUSTERS__DR__TLS", "on"),
    ];
    insta::assert_snapshot!(load(text, &environment).unwrap_err(), @r#"
    rocketmq cannot start: 34 problems

      rocketmq.yaml:1:15  name_servers: expected `host:port`, several separated by `;` or as a list, or `embedded`, found `127.0.0.1`
          1 | name_servers: 127.0.0.1
            |               ^^^^^^^^^
            `127.0.0.1`: the port is missing; a name server listens on 9876 unless told otherwise
      rocketmq.yaml:3:20  client.request_timeout: expected a duration from 1ms to 10m, found `3`
          3 |   request_timeout: 3
            |                    ^
            write the unit: `3ms`, `3s` or `3m`
      rocketmq.yaml:4:12  client.startup: expected `fail` or `wait`, found `wiat`
          4 |   startup: wiat
            |            ^^^^
            did you mean `wait`?
      rocketmq.yaml:5:14  client.max_frame: expected a size from 64KiB to 1GiB, found `4MB`
          5 |   max_frame: 4MB
            |              ^^^
            `4MB`: the units of a size are B, KiB, MiB and GiB
      rocketmq.yaml:6:14  client.serialize: expected `json` or `rocketmq`, found a list
          6 |   serialize: [json]
            |              ^
      rocketmq.yaml:7:13  client.instance: expected text, found keys with values
          7 |   instance: { a: 1 }
            |             ^
      rocketmq.yaml:8:48  acl.secret_key: `${RMQ_SK}` is not set and has no default
            set the environment variable RMQ_SK, or a key RMQ_SK under `vars:`
      rocketmq.yaml:9:12  vars.a: the variables name each other in a circle: a → b → a
      rocketmq.yaml:9:23  vars.b: the variables name each other in a circle: b → a → b
      rocketmq.yaml:9:34  vars.c: `${MISSING}` is not set and has no default
            set the environment variable MISSING, or a key MISSING under `vars:`
      rocketmq.yaml:11:3  defaults.concurency: unknown key; did you mean `concurrency`?
         11 |   concurency: 64
            |   ^^^^^^^^^^
      rocketmq.yaml:12:16  defaults.concurrency: expected a whole number from 1 to 65535, found `"64"`
         12 |   concurrency: "64"
            |                ^^^^
            write it without quotes
      rocketmq.yaml:13:10  defaults.batch: expected a whole number from 1 to 1024, found `0`
         13 |   batch: 0
            |          ^
      rocketmq.yaml:14:12  defaults.suspend: expected a duration from 10ms to 30s, found `31s`
         14 |   suspend: 31s
            |            ^^^
      rocketmq.yaml:15:12  defaults.enabled: expected `true` or `false`, found `yes`
         15 |   enabled: yes
            |            ^^^
      rocketmq.yaml:16:17  defaults.consume_from: expected `last`, `first` or a time such as `2026-01-31T00:00:00Z`, found `yesterday`
         16 |   consume_from: yesterday
            |                 ^^^^^^^^^
      rocketmq.yaml:20:3  groups.DEFAULT_CONSUMER: `DEFAULT_CONSUMER` is reserved; choose a group name that belongs to this application
         20 |   DEFAULT_CONSUMER: {}
            |   ^^^^^^^^^^^^^^^^
      rocketmq.yaml:21:3  groups.my group: ' ' cannot be in a group name; it may hold a-z A-Z 0-9 _ - % |
         21 |   "my group": {}
            |   ^^^^^^^^^^
      rocketmq.yaml:22:9  groups.bulk: expected keys with values, found `5`
         22 |   bulk: 5
            |         ^
      rocketmq.yaml:23:3  groups.orders: is here twice; the first is in line 19
         23 |   orders: {}
            |   ^^^^^^
      rocketmq.yaml:25:21  producers.default.group: '.' cannot be in a group name; it may hold a-z A-Z 0-9 _ - % |
         25 |   default: { group: a.b, transaction: maybe }
            |                     ^^^
      rocketmq.yaml:25:39  producers.default.transaction: expected `true` or `false`, found `maybe`
         25 |   default: { group: a.b, transaction: maybe }
            |                                       ^^^^^
      rocketmq.yaml:26:22  producers.tx.transaction: needs a `group` of this application: brokers ask its members about open transactions
         26 |   tx: { transaction: true, cluster: rd }
            |                      ^^^^
      rocketmq.yaml:26:37  producers.tx.cluster: there is no `rd` under `clusters:`; did you mean `dr`?
         26 |   tx: { transaction: true, cluster: rd }
            |                                     ^^
      rocketmq.yaml:28:19  health.listen: expected an address and port such as `127.0.0.1:8086`, found `localhost`
         28 | health: { listen: localhost }
            |                   ^^^^^^^^^
      rocketmq.yaml:29:1  tls.key: is missing; `cert` and `key` belong together
         29 | tls: { cert: a.pem }
            | ^^^
      rocketmq.yaml:31:3  clusters.dr.name_servers: is missing; write `host:9876`, or `embedded` for a server in this process
         31 |   dr: { client: { pull_suspend: 30s } }
            |   ^^
      rocketmq.yaml:31:9  clusters.dr.client.pull_timeout: must be at least `pull_suspend` and 5s, 35s: an idle pull would time out
         31 |   dr: { client: { pull_suspend: 30s } }
            |         ^^^^^^
      rocketmq.yaml:32:3  clusters.default: this is the cluster of the top level; write its keys there
         32 |   default: { name_servers: embedded }
            |   ^^^^^^^
      rocketmq.yaml:33:1  listeners: unknown key; the keys here are vars, name_servers, client, acl, tls, trace, health, defaults, groups, clusters, producers
         33 | listeners: {}
            | ^^^^^^^^^
      ROCKETMQ__GROUPS__ORDRES__CONCURRENCY (environment): there is no group `ordres`; did you mean `orders`?
      ROCKETMQ__CLIENT__CONNECT_TIMEOUT (environment): client.connect_timeout: expected a duration from 1ms to 10m, found `8`
            write the unit: `8ms`, `8s` or `8m`
      ROCKETMQ__CLIENT__REQUEST_TIMOUT (environment): client.request_timout: unknown key; did you mean `request_timeout`?
      ROCKETMQ__CLUSTERS__DR__TLS (environment): clusters.dr.tls: expected keys with values, found `on`

    nothing was started
    "#);
}

#[test]
fn text_that_is_no_configuration_is_refused_at_its_place() {
    insta::assert_snapshot!(errors("client:\n  a: [1, 2\n  b: 3\n"), @r"
    rocketmq cannot start: 1 problem

      rocketmq.yaml:3:4  this is not YAML: illegal placement of ':' indicator
          3 |   b: 3
            |    ^

    nothing was started
    ");
    insta::assert_snapshot!(errors("trace: { topic: ${TOPIC} }"), @r#"
    rocketmq cannot start: 1 problem

      rocketmq.yaml:1:18  this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'
          1 | trace: { topic: ${TOPIC} }
            |                  ^
            inside { } and [ ], quote it: "${…}"

    nothing was started
    "#);
    insta::assert_snapshot!(errors("client: { a: b: c }"), @r"
    rocketmq cannot start: 1 problem

      rocketmq.yaml:1:15  this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'
          1 | client: { a: b: c }
            |               ^

    nothing was started
    ");
    insta::assert_snapshot!(errors("- 1\n- 2\n"), @r"
    rocketmq cannot start: 1 problem

      rocketmq.yaml:1:1  expected keys with values, such as `client:`
          1 | - 1
            | ^

    nothing was started
    ");
    insta::assert_snapshot!(errors("a: 1\n---\nb: 2\n"), @r"
    rocketmq cannot start: 1 problem

      rocketmq.yaml:2:1  a second document; one file holds one configuration
          2 | ---
            | ^^^

    nothing was started
    ");
    insta::assert_snapshot!(errors("# nothing yet\n"), @r"
    rocketmq cannot start: 1 problem

      rocketmq.yaml  name_servers: is missing; write `host:9876`, or `embedded` for a server in this process

    nothing was started
    ");
}

#[test]
fn a_misspelt_key_is_one_mistake_not_also_one_that_is_missing() {
    for text in ["name_server: a:1", "nameServers: a:1"] {
        let problems = errors(text);
        assert!(
            problems.contains("1 problem\n") && problems.contains("did you mean `name_servers`?"),
            "{problems}"
        );
    }
}

#[test]
fn an_address_is_written_without_a_scheme() {
    let problems = errors("name_servers: http://10.0.0.1:9876");
    assert!(problems.contains("leave `http://` out: `10.0.0.1:9876`"), "{problems}");
}

#[test]
fn variables_that_lead_nowhere_say_how_they_are_written() {
    const FILE: &str = "name_servers: a:1\ngroups: { my-orders: {} }";
    let no_groups = "name_servers: a:1";
    for (text, variable, words) in [
        (
            no_groups,
            "ROCKETMQ__CLIENT_REQUEST_TIMEOUT",
            "between one key and the next: `CLIENT__REQUEST_TIMEOUT`",
        ),
        (FILE, "ROCKETMQ__GROUPS__MY_ORDERS_BATCH", "between one key and the next: `MY_ORDERS__BATCH`"),
        (FILE, "ROCKETMQ__DEFAULTS__FLOW_SPAN", "between one key and the next: `FLOW__SPAN`"),
        (
            no_groups,
            "ROCKETMQ__GROUPS__ORDERS__BATCH",
            "no group `orders`; name it in the file first, under `groups:`",
        ),
        (no_groups, "ROCKETMQ__", "a key has to follow, as in `ROCKETMQ__CLIENT__REQUEST_TIMEOUT`"),
    ] {
        let problems = load(text, &[(variable, "8")]).unwrap_err().to_string();
        assert!(problems.contains("1 problem\n") && problems.contains(words), "{variable}: {problems}");
    }
}

#[test]
fn clusters_with_the_same_servers_have_clients_of_different_names() {
    let text = "name_servers: a:1;b:1
client: { instance: orders }
clusters:
  inherits: { name_servers: b:1, tls: { enabled: true } }
  other: { name_servers: c:1 }
  same: { name_servers: [d:1, c:1], client: { instance: orders } }
  unit: { name_servers: c:1, client: { unit: north } }
";
    insta::assert_snapshot!(errors(text), @r"
    rocketmq cannot start: 2 problems

      rocketmq.yaml:4:3  clusters.inherits.client.instance: `orders` is `client.instance`, too, at the same name servers: brokers could not tell the two apart; give each a name of its own
          4 |   inherits: { name_servers: b:1, tls: { enabled: true } }
            |   ^^^^^^^^
      rocketmq.yaml:6:57  clusters.same.client.instance: `orders` is `clusters.other.client.instance`, too, at the same name servers: brokers could not tell the two apart; give each a name of its own
          6 |   same: { name_servers: [d:1, c:1], client: { instance: orders } }
            |                                                         ^^^^^^

    nothing was started
    ");
}

#[test]
fn a_missing_file_names_the_ways_to_give_one() {
    let sources =
        Sources { env: env(&[("ROCKETMQ_CONFIG", "/no/such/rocketmq.yaml")]), ..Sources::default() };
    let error = sources.load().unwrap_err().to_string();
    let folder = std::env::current_dir().unwrap().display().to_string();
    insta::assert_snapshot!(error.replace(&folder, "[folder]"), @r#"
    rocketmq cannot start: 1 problem

      /no/such/rocketmq.yaml  there is no such file
            looked for it from [folder]
            name it with the environment variable ROCKETMQ_CONFIG, or with `App::builder().config("…")`

    nothing was started
    "#);
}

#[test]
fn a_value_that_may_be_secret_is_never_shown() {
    for text in [
        "acl: { access_key: a, secret_key: hunter2, oops: 1 }",
        "acl:\n  secret_kye: hunter2",
        "acl:\n  access_key: a\n  secret_key: [hunter2]",
        "vars: { password: hunter2, x: \"${NO}\" }",
        "acl: { secret_key: hunter2",
        "acl: { secret_key: hunter2 }",
    ] {
        let shown = errors(text);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let loaded = load(DOCUMENTED, &KEYS).unwrap();
    let all: Vec<String> = loaded.effective().iter().map(ToString::to_string).collect();
    let shown = format!("{loaded:?} {all:?} {:?}", Sources { env: env(&KEYS), ..Sources::default() });
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn flow_control_that_is_out_of_range_is_told_what_is_permitted() {
    for (key, values, permitted) in [
        ("flow.messages_per_queue", ["0", "65536"], "a whole number from 1 to 65535"),
        ("flow.mib_per_queue", ["0", "1025"], "a whole number from 1 to 1024"),
        ("flow.span", ["0", "65536"], "a whole number from 1 to 65535"),
        ("flow.messages_per_topic", ["0", "6553501"], "a whole number from 1 to 6553500, or null"),
        ("flow.mib_per_topic", ["-1", "102401"], "a whole number from 1 to 102400, or null"),
        ("concurrency", ["0", "65536"], "a whole number from 1 to 65535"),
        ("batch", ["0", "1025"], "a whole number from 1 to 1024"),
        ("pull_batch", ["0", "1025"], "a whole number from 1 to 1024"),
        ("pull_batch_bytes", ["1023B", "65MiB"], "a size from 1KiB to 64MiB"),
        ("pull_interval", ["-1s", "65536ms"], "a duration from 0s to 65535ms"),
        ("pop.messages_per_queue", ["0", "65536"], "a whole number from 1 to 65535"),
    ] {
        for value in values {
            let text = match key.split_once('.') {
                Some((section, key)) => format!("defaults: {{ {section}: {{ {key}: {value} }} }}"),
                None => format!("defaults: {{ {key}: {value} }}"),
            };
            let error = errors(&text);
            let expected = format!("defaults.{key}: expected {permitted}, found `{value}`");
            assert!(error.contains(&expected), "{expected} is not in: {error}");
        }
    }
}

#[test]
fn what_a_cluster_takes_over_is_told_of_where_it_was_said() {
    let wrong = "namespace: a, namespace_v2: b, pull_suspend: 30s, idle_timeout: 30s";
    insta::assert_snapshot!(errors(&format!("name_servers: a:1
client: {{ {wrong} }}
clusters:
  inherits: {{ name_servers: b:1 }}
  mends: {{ name_servers: c:1, client: {{ namespace: null, pull_suspend: 10s }} }}
  other: {{ name_servers: d:1, client: {{ namespace_v2: c, unit: north }} }}
  itself: {{ name_servers: e:1, client: {{ namespace: c, namespace_v2: d }} }}
")), @r##"
    rocketmq cannot start: 4 problems

      rocketmq.yaml:2:1  client.pull_timeout: must be at least `pull_suspend` and 5s, 35s: an idle pull would time out
          2 | client: { namespace: a, namespace_v2: b, pull_suspend: 30s, idle_timeout: 30s }
            | ^^^^^^
      rocketmq.yaml:2:39  client.namespace_v2: excludes `namespace`; remove one of them
          2 | client: { namespace: a, namespace_v2: b, pull_suspend: 30s, idle_timeout: 30s }
            |                                       ^
      rocketmq.yaml:2:75  client.idle_timeout: must be longer than `heartbeat_interval`, or every connection is closed between two
          2 | client: { namespace: a, namespace_v2: b, pull_suspend: 30s, idle_timeout: 30s }
            |                                                                           ^^^
      rocketmq.yaml:7:70  clusters.itself.client.namespace_v2: excludes `namespace`; remove one of them
          7 |   itself: { name_servers: e:1, client: { namespace: c, namespace_v2: d } }
            |                                                                      ^

    nothing was started
    "##);
    let shown = errors(
        "name_servers: a:1
client: { namespace: a, pull_timeout: 30s }
clusters:
  dr: { name_servers: b:1, client: { namespace_v2: b, pull_suspend: 30s } }
",
    );
    for words in
        ["2 problems\n", "clusters.dr.client.namespace_v2: excludes", "clusters.dr.client.pull_timeout: must"]
    {
        assert!(shown.contains(words), "{words} is not in {shown}");
    }
}
