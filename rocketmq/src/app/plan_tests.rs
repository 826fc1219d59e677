use insta::assert_snapshot;

use super::*;
use crate::listener::{Argument, Arguments, ConsumeResult, FromMessage, Outcome, State};
use crate::message::MessageExt;

const MESSAGE: Argument = <&MessageExt as FromMessage<'_>>::ARGUMENT;

const fn listener(name: &'static str, line: u32, group: &'static str, topic: &'static str) -> ListenerDef {
    ListenerDef {
        name,
        file: "src/main.rs",
        line,
        group,
        topic,
        tag: None,
        sql: None,
        orderly: false,
        broadcast: false,
        cluster: None,
        arguments: Arguments::of(&[MESSAGE]),
        call: |_| Box::pin(async { Outcome::Done(ConsumeResult::Success) }),
    }
}

/// What is wrong with these listeners and this file, as it is printed.
fn problems(yaml: &str, annotated: &[&'static ListenerDef]) -> String {
    match plan(yaml, annotated) {
        Ok(plan) => panic!("nothing was found wrong: {plan:?}"),
        Err(error) => error.to_string(),
    }
}

fn plan(yaml: &str, annotated: &[&'static ListenerDef]) -> Result<Plan> {
    plan_with(yaml, annotated, Vec::new())
}

fn plan_with(yaml: &str, annotated: &[&'static ListenerDef], by_hand: Vec<Listener>) -> Result<Plan> {
    let Draft { loaded, mut problems } = Draft::from_yaml(yaml)?;
    let (annotated, state) = (annotated.to_vec(), Some(Arc::default()));
    let (checks, arounds, group_arounds) = (Checks::default(), Vec::new(), Vec::new());
    let listeners = Listeners { by_hand, annotated, state, arounds, group_arounds, chosen: None, checks };
    check_config(&loaded, &mut problems);
    let plan = make(&loaded, listeners, true, &mut problems);
    problems.into_result()?;
    Ok(plan)
}

#[test]
fn a_listener_of_the_builder_can_be_all_that_an_annotated_one_can() {
    static LEDGER: ListenerDef =
        ListenerDef { orderly: true, cluster: Some("dr"), ..listener("app::ledger", 1, "ledger", "a") };
    const CLUSTERS: &str = "name_servers: a:1\nclusters: { dr: { name_servers: b:1 } }\nvars: { far: dr }";
    let by_hand = |topic: &str| Listener::new("ledger", topic, "*", |_| async {});
    let ordered = || by_hand("b").orderly().cluster("${far}");
    let told = Listener::new("told", "c", Filter::sql("a > 1"), |_| async {}).broadcast();
    let plan = plan_with(CLUSTERS, &[&LEDGER], vec![ordered(), told]).unwrap();
    let groups: Vec<_> =
        plan.groups.iter().map(|group| (&*group.name, group.orderly, group.broadcast)).collect();
    assert_eq!(groups, [("told", false, true), ("ledger", true, false)]);
    assert_eq!((&*plan.groups[1].cluster, plan.groups[1].subscriptions.len()), ("dr", 2));

    for (listener, words) in [
        (by_hand("b").cluster("dr"), "its listeners disagree on `orderly`"),
        (by_hand("b").orderly().cluster("rd"), "there is no cluster `rd`"),
        (ordered().broadcast(), "a broadcast listener cannot be orderly"),
        (by_hand("b").orderly().cluster("${near}"), "`${near}` is not set"),
    ] {
        let error = plan_with(CLUSTERS, &[&LEDGER], vec![listener]).unwrap_err().to_string();
        let place = "the listener of b for *, given to the builder at rocketmq/src/app/plan_tests.rs:";
        for part in [words, place] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}

#[test]
fn listeners_of_a_group_become_one_consumer() {
    static PAID: ListenerDef =
        ListenerDef { tag: Some("paid"), ..listener("app::paid", 1, "orders", "events") };
    static REST: ListenerDef = listener("app::rest", 2, "orders", "events");
    static OTHER: ListenerDef = listener("app::other", 3, "other", "${topic:events}");
    let yaml = "name_servers: a:1\ngroups: { orders: { concurrency: 3 }, other: {} }";
    let plan = plan(yaml, &[&OTHER, &REST, &PAID]).unwrap();
    let groups: Vec<_> =
        plan.groups.iter().map(|group| (group.name.as_str(), group.subscriptions.len())).collect();
    assert_eq!(groups, [("orders", 2), ("other", 1)]);
    assert_eq!(plan.groups[0].config.concurrency, 3);
    assert_eq!(plan.groups[1].subscriptions[0].topic.as_ref(), "events");
}

#[test]
fn what_brokers_hand_out_one_by_one_has_no_order() {
    static LEDGER: ListenerDef = ListenerDef { orderly: true, ..listener("app::ledger", 1, "ledger", "a") };
    assert_snapshot!(problems("name_servers: a:1\ndefaults: { mode: pop }", &[&LEDGER]), @"
    rocketmq cannot start: 1 problem

      app::ledger (src/main.rs:1)  group `ledger`: `mode: pop` is for concurrent groups, and this one is orderly: set `mode: pull` for it

    nothing was started
    ");
    assert_snapshot!(problems("name_servers: a:1\ngroups: { ledger: { rebalance: broker } }", &[&LEDGER]), @"
    rocketmq cannot start: 1 problem

      app::ledger (src/main.rs:1)  group `ledger`: `rebalance: broker` is for concurrent groups, and this one is orderly: set `rebalance: client` for it

    nothing was started
    ");
}

#[test]
fn a_group_consumes_in_order_if_all_of_its_listeners_want_that() {
    static FIRST: ListenerDef = ListenerDef { orderly: true, ..listener("app::first", 1, "ledger", "a") };
    static SECOND: ListenerDef = ListenerDef { orderly: true, ..listener("app::second", 2, "ledger", "b") };
    static OTHER: ListenerDef = listener("app::other", 3, "other", "a");
    let plan = plan("name_servers: a:1", &[&FIRST, &SECOND, &OTHER]).unwrap();
    let groups: Vec<_> = plan.groups.iter().map(|group| (group.name.as_str(), group.orderly)).collect();
    assert_eq!(groups, [("ledger", true), ("other", false)]);

    static STRAY: ListenerDef = listener("app::stray", 4, "ledger", "c");
    assert_snapshot!(problems("name_servers: a:1", &[&FIRST, &STRAY]), @r"
    rocketmq cannot start: 1 problem

      group `ledger`: its listeners disagree on `orderly`
            app::first (src/main.rs:1)  orderly
            app::stray (src/main.rs:4)  not orderly
            a group is one consumer: let them agree, or give them different groups

    nothing was started
    ");
}

#[test]
fn an_expression_that_cannot_be_read_is_shown_with_the_place_of_the_mistake_and_of_the_listener() {
    static EQUALS: ListenerDef =
        ListenerDef { sql: Some("region = '${region}' AND a == 1"), ..listener("app::equals", 12, "a", "t") };
    static OPEN: ListenerDef = ListenerDef { sql: Some("(a > 1"), ..listener("app::open", 40, "b", "t") };
    static TAGS: ListenerDef = ListenerDef { tag: Some("${tags}"), ..listener("app::tags", 50, "c", "t") };
    let shown = problems("name_servers: a:1\nvars: { region: eu, tags: a b }", &[&EQUALS, &OPEN, &TAGS]);
    for (listener, text, mistake) in [
        ("app::equals (src/main.rs:12)", "region = 'eu' AND a == 1", "at column 22: expected"),
        ("app::open (src/main.rs:40)", "(a > 1", "at column 7: expected"),
        ("app::tags (src/main.rs:50)", "a b", "one word"),
    ] {
        let of_listener = shown.lines().find(|line| line.contains(listener)).unwrap_or_default();
        for part in [text, mistake] {
            assert!(of_listener.contains(part), "{part} of {listener} is not in {shown}");
        }
    }
    assert!(shown.contains("3 problems"), "{shown}");
}

#[test]
fn two_listeners_that_could_take_the_same_message_are_named_with_their_places() {
    static FIRST: ListenerDef =
        ListenerDef { tag: Some("paid || refunded"), ..listener("app::on_order", 12, "orders", "events") };
    static SECOND: ListenerDef =
        ListenerDef { tag: Some("paid"), ..listener("app::on_paid", 40, "orders", "events") };
    assert_snapshot!(problems("name_servers: a:1", &[&FIRST, &SECOND]), @r#"
    rocketmq cannot start: 1 problem

      group `orders`: two listeners can take the same message of events
            app::on_order (src/main.rs:12)  tag = "paid || refunded"
            app::on_paid (src/main.rs:40)  tag = "paid"
            give them different tags, or different groups if both must see every message

    nothing was started
    "#);
}

#[test]
fn a_group_that_is_not_listed_and_one_without_a_listener_are_both_found() {
    static STRAY: ListenerDef = listener("app::stray", 7, "odrers", "events");
    let yaml = "name_servers: a:1\ngroups:\n  orders: {}\n  off: { enabled: false }";
    assert_snapshot!(problems(yaml, &[&STRAY]), @r#"
    rocketmq cannot start: 2 problems

      app::stray (src/main.rs:7)  the group `odrers` of this listener is not listed under `groups:`
            add `odrers: {}` there, or use one of: off, orders
      <yaml>:3  group orders is listed but no listener of it is in this program
            if it lives in another crate, add `use that_crate as _;` to main.rs, or set enabled: false

    nothing was started
    "#);
}

#[test]
fn a_program_without_listeners_is_told_how_to_make_one() {
    assert_snapshot!(problems("name_servers: a:1", &[]), @r#"
    rocketmq cannot start: 1 problem

      there is no listener in this program
            annotate a function: #[rocketmq::listener(group = "testGroup", topic = "testTopic")]
            if it is in another crate, add `use that_crate as _;` to main.rs: a crate that is not named is not linked

    nothing was started
    "#);
}

#[test]
fn what_cannot_be_resolved_and_what_is_no_name_then_is_found() {
    static UNSET: ListenerDef = listener("app::unset", 3, "g", "${no.such}");
    static BAD: ListenerDef = listener("app::bad", 9, "g", "${topic:a b}");
    static ELSEWHERE: ListenerDef = ListenerDef { cluster: Some("dr"), ..listener("app::far", 15, "g", "t") };
    assert_snapshot!(problems("name_servers: a:1", &[&UNSET, &BAD, &ELSEWHERE]), @r#"
    rocketmq cannot start: 3 problems

      app::unset (src/main.rs:3)  `${no.such}` is not set and has no default
            set the environment variable no.such, or a key no.such under `vars:`
      app::bad (src/main.rs:9)  ' ' cannot be in a topic name; it may hold a-z A-Z 0-9 _ - % |
      app::far (src/main.rs:15)  there is no cluster `dr`
            under `clusters:` there are: default

    nothing was started
    "#);
}

#[test]
fn state_that_nobody_gave_is_found_with_its_listener() {
    static NEEDY: ListenerDef = ListenerDef {
        arguments: Arguments::of(&[MESSAGE, <State<u32> as FromMessage<'_>>::ARGUMENT]),
        ..listener("app::needy", 5, "g", "t")
    };
    assert_snapshot!(problems("name_servers: a:1", &[&NEEDY]), @r#"
    rocketmq cannot start: 1 problem

      app::needy (src/main.rs:5) takes State<u32>, but there is no such state
            give it to the builder: App::builder().state(value)

    nothing was started
    "#);
}

#[cfg(feature = "embedded")]
#[test]
fn a_setting_that_cannot_have_an_effect_is_refused() {
    static ONE: ListenerDef = listener("app::one", 5, "g", "t");
    assert_snapshot!(problems("name_servers: embedded\nclient:\n  vip_channel: true", &[&ONE]), @r#"
    rocketmq cannot start: 1 problem

      <yaml>:3  client.vip_channel: the embedded server has no second port; remove it

    nothing was started
    "#);
}

const SENDS_ZSTD: &str = "name_servers: a:1\nproducers:\n  default: {}\n  bulk:\n    compression: zstd";

#[cfg(feature = "zstd")]
#[test]
fn zstd_may_be_sent() {
    static ONE: ListenerDef = listener("app::one", 5, "g", "t");
    plan(SENDS_ZSTD, &[&ONE]).unwrap();
}

#[cfg(not(feature = "zstd"))]
#[test]
fn zstd_is_not_sent_without_its_feature() {
    static ONE: ListenerDef = listener("app::one", 5, "g", "t");
    assert_snapshot!(problems(SENDS_ZSTD, &[&ONE]), @r#"
    rocketmq cannot start: 1 problem

      <yaml>:5  producers.bulk.compression: `zstd` needs the feature `zstd`: `cargo add rocketmq --features zstd`

    nothing was started
    "#);
}

#[test]
fn a_producer_is_alone_in_its_group() {
    let yaml = "name_servers: a:1\nclusters: { dr: { name_servers: [b:1] } }\nproducers:\n  default: {}\n  \
                orders: { group: default }\n  far: { group: default, cluster: dr }\n  my orders: {}";
    let loaded = Config::from_yaml(yaml).unwrap();
    let mut problems = ConfigErrors::new();
    check_producers(&loaded, &mut problems);
    assert_snapshot!(problems, @r"
    rocketmq cannot start: 2 problems

      <yaml>:7  producers.my orders: ' ' cannot be in a group name; it may hold a-z A-Z 0-9 _ - % |
            the group is the producer's name unless it has a `group:`
      <yaml>:5  producers.orders: the producer `default` is of the group default already
            give it a `group:` of its own, or use that producer for both

    nothing was started
    ");
}

#[test]
fn listeners_and_state_find_producers_by_name() {
    let yaml = "name_servers: a:1\nproducers: { default: {}, orders: { group: orders_tx } }";
    let loaded = Config::from_yaml(yaml).unwrap();
    let producers = producers(&loaded, |_| Hooks::default()).unwrap();
    assert_eq!(producers.names().collect::<Vec<_>>(), ["default", "orders"]);
    assert_eq!(producers.get("orders").unwrap().group(), "orders_tx");
}

#[cfg(feature = "tls")]
#[test]
fn a_mistake_in_the_file_hides_no_other() {
    static LEDGER: ListenerDef = ListenerDef { orderly: true, ..listener("app::ledger", 1, "ledger", "a") };
    static QUOTES: ListenerDef = ListenerDef { broadcast: true, ..listener("app::quotes", 2, "quotes", "a") };
    let yaml = "name_servers: a:1
client: { request_timeout: 3 }
tls: { enabled: true, ca: /no/such/ca.pem, cert: /no/such/cert.pem }
defaults: { mode: pop, batch: 0 }
groups:
  ledger: { concurrency: 0 }
  quotes: {}
producers:
  bills: { group: bills, transaction: true, retries: 17 }
  more: { group: bills, retries: 17 }
";
    assert_snapshot!(problems(yaml, &[&LEDGER, &QUOTES]), @r##"
    rocketmq cannot start: 11 problems

      <yaml>:2:28  client.request_timeout: expected a duration from 1ms to 10m, found `3`
          2 | client: { request_timeout: 3 }
            |                            ^
            write the unit: `3ms`, `3s` or `3m`
      <yaml>:3:1  tls.key: is missing; `cert` and `key` belong together
          3 | tls: { enabled: true, ca: /no/such/ca.pem, cert: /no/such/cert.pem }
            | ^^^
      <yaml>:4:31  defaults.batch: expected a whole number from 1 to 1024, found `0`
          4 | defaults: { mode: pop, batch: 0 }
            |                               ^
      <yaml>:6:26  groups.ledger.concurrency: expected a whole number from 1 to 65535, found `0`
          6 |   ledger: { concurrency: 0 }
            |                          ^
      <yaml>:9:54  producers.bills.retries: expected a whole number from 0 to 16, found `17`
          9 |   bills: { group: bills, transaction: true, retries: 17 }
            |                                                      ^^
      <yaml>:10:34  producers.more.retries: expected a whole number from 0 to 16, found `17`
         10 |   more: { group: bills, retries: 17 }
            |                                  ^^
      <yaml>:3  tls: /no/such/ca.pem cannot be read as certificates in PEM: I/O error: No such file or directory (os error 2)
      <yaml>:10  producers.more: the producer `bills` is of the group bills already
            give it a `group:` of its own, or use that producer for both
      <yaml>:9  producers.bills.transaction: the producer has no check to tell brokers what has become of its transactions
            annotate one: #[rocketmq::transaction(producer = "bills")]
            if it is in another crate, add `use that_crate as _;` to main.rs: a crate that is not named is not linked
      app::ledger (src/main.rs:1)  group `ledger`: `mode: pop` is for concurrent groups, and this one is orderly: set `mode: pull` for it
      app::quotes (src/main.rs:2)  group `quotes`: `mode: pop` is for concurrent groups, and this one is broadcast: set `mode: pull` for it

    nothing was started
    "##);
}

#[test]
fn of_what_has_a_mistake_nothing_more_is_said() {
    static ORDERLY: [ListenerDef; 1] =
        [ListenerDef { orderly: true, ..listener("app::ledger", 1, "ledger", "a") }];
    static FAR: [ListenerDef; 1] = [ListenerDef { cluster: Some("dr"), ..listener("app::far", 1, "g", "a") }];
    static NONE: [ListenerDef; 0] = [];
    for (yaml, listeners) in [
        ("name_server: a:1\nclient: { vip_channel: true }", &ORDERLY[..]),
        ("name_servers: a\nclient: { vip_channel: true }", &ORDERLY),
        ("name_servers: a:1\ntls: { enabled: true, ca: [] }", &ORDERLY),
        ("name_servers: a:1\ntls: { enabled: true, ca: /no/such, insecur: true }", &ORDERLY),
        ("name_servers: a:1\ntls: 5\ndefaults: { mode: pull }", &ORDERLY),
        ("name_servers: a:1\ndefaults: { mode: pop }\ngroups: { ledger: { mode: pul } }", &ORDERLY),
        ("name_servers: a:1\ndefaults: { mode: pop }\ngroups: { ledger: { mod: pull } }", &ORDERLY),
        ("name_servers: a:1\ndefaults: { mode: pop }\ngroups: { ledger: 5 }", &ORDERLY),
        ("name_servers: a:1\ndefaults: { mode: pop }\ngroups: 5", &ORDERLY),
        ("name_servers: a:1\ngroups: { ledger: {} }\ngroups: {}", &ORDERLY),
        ("name_servers: a:1\ngroups: { ledger: {}, other: { enabled: no } }", &ORDERLY),
        (
            "name_servers: a:1\nvars: { x: \"${no}\" }\nproducers: { a: { group: \"${x}\" }, b: { group: a } }",
            &ORDERLY,
        ),
        ("name_servers: a:1\nproducers: { a: { group: a.b }, b: { group: a } }", &ORDERLY),
        (
            "name_servers: a:1\nproducers: { a: { clustr: dr }, b: { group: a } }\nclusters: { dr: { name_servers: b:1 } }",
            &ORDERLY,
        ),
        ("name_servers: a:1\nclusters: 5", &FAR),
    ] {
        let shown = problems(yaml, &listeners.iter().collect::<Vec<_>>());
        assert!(shown.contains("1 problem\n"), "{yaml}\n{shown}");
    }
    let shown = problems("name_server: a:1", &NONE.iter().collect::<Vec<_>>());
    assert!(shown.contains("2 problems") && shown.contains("there is no listener"), "{shown}");
}

#[cfg(not(any(feature = "embedded", feature = "health", feature = "tls", feature = "zstd")))]
#[test]
fn what_needs_a_feature_is_refused_beside_other_mistakes() {
    static ONE: ListenerDef = listener("app::one", 5, "g", "t");
    let yaml = "name_servers: embedded
client: { request_timeout: 3 }
health: { listen: 127.0.0.1:0 }
tls: { enabled: true, cert: a.pem }
producers: { bulk: { compression: zstd } }
clusters:
  dr:
    name_servers: embedded
    tls: { enabled: true }
";
    let shown = problems(yaml, &[&ONE]);
    for words in [
        "8 problems\n",
        "<yaml>:1  name_servers: `embedded` needs the feature `embedded`: `cargo add rocketmq --features embedded`",
        "<yaml>:3  health.listen: needs the feature `health`",
        "<yaml>:4  tls: TLS needs the feature `tls`",
        "<yaml>:5  producers.bulk.compression: `zstd` needs the feature `zstd`",
        "<yaml>:8  clusters.dr.name_servers: `embedded` needs the feature `embedded`",
        "<yaml>:9  clusters.dr.tls: TLS needs the feature `tls`",
    ] {
        assert!(shown.contains(words), "{words} is not in {shown}");
    }
}

/// As the whole start says it: nothing is made of such a file before all of it is looked at.
#[cfg(feature = "testing")]
#[tokio::test]
async fn a_start_tells_all_mistakes_of_file_and_listeners_together() {
    let yaml =
        "name_servers: a:1\nproducers:\n  bills: { group: g, transaction: true }\n  more: { group: g }\n";
    let start = |yaml: &str| {
        let draft = Draft::from_yaml(yaml).unwrap();
        let ledger = Listener::new("ledger", "a", "*", |_| async {}).orderly();
        let app = crate::App::builder().without_linked_listeners().listener_with(ledger);
        app.under_test(draft, crate::app::Instruments::default(), None).start()
    };
    for (mistake, count) in [("", 3), ("client: { request_timeout: 3 }", 4)] {
        let yaml = format!("{yaml}defaults: {{ mode: pop }}\n{mistake}");
        let shown = start(&yaml).await.unwrap_err().to_string();
        for words in ["is of the group g already", "has no check", "this one is orderly"] {
            assert!(shown.contains(words), "{words} is not in {shown}");
        }
        assert!(shown.contains(&format!("{count} problems\n")), "{shown}");
    }
}
