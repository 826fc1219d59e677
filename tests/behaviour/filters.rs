//! Messages chosen by their properties.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rocketmq::config::SkipBefore;
use rocketmq::{App, Error, Filter, Filtering, Message, MessageExt, PushConsumer};

use crate::log;
use crate::seen::Seen;
use crate::sending::{send, send_all, send_numbers};
use crate::server::{Server, block_on, cluster, config, consumer_config, unique};
use crate::wait;

on_each_server! { Shared:
    every_expression_chooses_what_it_chooses_at_a_real_broker,
    an_application_chooses_by_sql_with_values_of_its_configuration,
    an_expression_that_the_broker_cannot_read_is_a_start_error_in_its_words,
    a_part_that_brokers_pass_over_is_warned_of,
    lite_pull_chooses_by_sql,
    a_filter_hook_drops_messages_which_count_as_consumed,
    a_rate_limit_holds_until_it_is_changed,
    a_backlog_is_passed_over_up_to_a_time,
}

/// The properties of a message.
type Properties = &'static [(&'static str, &'static str)];

/// The messages: their bodies, tags and properties.
const MESSAGES: [(&str, &str, Properties); 8] = [
    ("0", "paid", &[("a", "5"), ("region", "eu"), ("vip", "true")]),
    ("1", "paid", &[("a", "5.5"), ("region", "it's"), ("vip", "FALSE")]),
    ("2", "", &[("a", "-3"), ("region", "Eu"), ("x", "5")]),
    ("3", "", &[("region", "europe")]),
    ("4", "other", &[("a", "NaN"), ("x", "1e3")]),
    ("5", "other", &[("a", "99999999999"), ("x", "7")]),
    ("6", "", &[("a", "abc"), ("region", "null")]),
    ("7", "", &[]),
];

/// Expressions and the messages that they choose.
const CHOICES: [(&str, &str); 30] = [
    ("a = 5", "0"),
    ("a <> 5", "2"),
    ("a > 4.5", "0145"),
    ("a >= 5 AND a <= 5", "0"),
    ("a > 5000000000", "5"),
    ("a BETWEEN -3 AND 5.5", "02"),
    ("a NOT BETWEEN 3 AND 6", "2"),
    ("region = 'eu'", "0"),
    ("region <> 'eu'", "1236"),
    ("region IN ('eu', 'it''s')", "01"),
    ("region NOT IN ('eu', 'it''s')", "236"),
    ("region IS NULL", "457"),
    ("region is not null", "01236"),
    ("vip = TRUE", "0"),
    ("vip = false", "1"),
    ("vip", ""),
    ("NOT vip", "01"),
    ("a = x", "37"),
    ("a < x", "2"),
    ("a > 3 OR region = 'null'", "0"),
    ("region = 'null' OR a > 3", "06"),
    ("NOT (region = 'eu')", "1236"),
    ("NOT (a > 3)", "2"),
    ("TRUE", "01234567"),
    ("NULL", ""),
    ("TAGS = 'paid' AND a > 5.1", "1"),
    ("a = 5 ORR region = 'Eu'", "0"),
    ("a /* a comment */ = 5", "0"),
    ("(a = 5) = (region = 'eu')", "027"),
    ("x IS NULL AND (region = 'eu' OR region = 'europe') AND NOT vip = TRUE", "0"),
];

/// The same with words of 5.x.
const CHOICES_5: [(&str, &str); 5] = [
    ("region CONTAINS 'u'", "0236"),
    ("region NOT CONTAINS 'u'", "1"),
    ("region STARTSWITH 'eu'", "03"),
    ("region ENDSWITH 'pe' OR region ENDSWITH 's'", "13"),
    ("region NOT STARTSWITH 'eu'", "126"),
];

fn messages(topic: &str) -> Vec<Message> {
    let message = |(body, tag, properties): &(&str, &str, Properties)| {
        let message = Message::new(topic).body(body.to_string());
        let message = if tag.is_empty() { message } else { message.tag(*tag) };
        properties.iter().fold(message, |message, (key, value)| message.property(*key, *value))
    };
    MESSAGES.iter().map(message).collect()
}

fn chosen(bodies: &str) -> BTreeSet<String> {
    bodies.chars().map(String::from).collect()
}

async fn every_expression_chooses_what_it_chooses_at_a_real_broker(server: Server) -> Result<()> {
    let (topic, name) = (unique("choices"), unique("group"));
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let manager = server.manager();
    let of_5: &[_] = if server.knows_timers() { &CHOICES_5 } else { &[] };
    let mut groups = BTreeMap::new();
    for (at, (sql, expected)) in CHOICES.iter().chain(of_5).enumerate() {
        let (group, seen) = (format!("{name}-{at}"), Seen::default());
        PushConsumer::builder(&group)
            .config(consumer_config())
            .subscribe(topic.as_str(), Filter::sql(*sql), seen.listener())
            .build(&manager)?;
        groups.insert(group, (sql, expected, seen));
    }
    manager.start().await?;

    send_all(&producer, messages(&topic)).await?;

    for (group, (sql, expected, seen)) in &groups {
        // What nobody chose is passed, too.
        wait::until(&format!("{sql} has come to the end"), async || {
            Ok(server.committed(group, &topic, 1).await? == MESSAGES.len() as i64)
        })
        .await?;
        assert_eq!(seen.bodies(), chosen(expected), "{sql}");
        seen.ensure_once()?;
    }
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn an_application_chooses_by_sql_with_values_of_its_configuration(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("filtered"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = config(&server);
    config.vars.insert("filtered.region".to_owned(), "it''s".into());
    let app = App::builder()
        .config_value(config)
        .without_linked_listeners()
        .listener(
            group,
            topic.as_str(),
            Filter::sql("region = '${filtered.region}' AND a > 3.0"),
            seen.listener(),
        )
        .start()
        .await?;
    send_all(&producer, messages(&topic)).await?;

    seen.until_all(&chosen("1")).await?;

    app.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn an_expression_that_the_broker_cannot_read_is_a_start_error_in_its_words(
    server: Server,
) -> Result<()> {
    let topic = unique("refused");
    server.create_topic(&topic, 1).await?;
    let manager = server.manager();
    let consumer = PushConsumer::builder(unique("group"))
        .subscribe(topic.as_str(), Filter::sql("(region LIKE 'e%')"), Seen::default().listener())
        .build(&manager)?;

    let error = consumer.start().await.err().context("the broker reads it")?.to_string();

    let broker = server.broker_addr().to_string();
    for part in [
        &broker,
        &topic,
        "SUBSCRIPTION_PARSE_FAILED",
        "(at column 9: expected an operator or `)`, found `LIKE`)",
    ] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    manager.shutdown().await?;
    Ok(())
}

#[test]
fn a_broker_that_does_not_filter_says_so_to_a_consumer_that_runs() -> Result<()> {
    block_on(async {
        let server = rocketmq::embedded::Server::builder().property_filter(false).start().await?;
        server.create_topic("t", 1)?;
        let manager = rocketmq::client::MqClientManager::new(cluster(&server.name_server()));
        let pulling = rocketmq::LitePullConsumer::builder("pulling").build(&manager)?;
        let pushed = PushConsumer::builder("pushed").subscribe("u", "*", Seen::default().listener());
        let pushed = pushed.build(&manager)?;
        manager.start().await?;
        let sql = Filter::sql("a = 1");
        let listener = Seen::default().listener();
        for refused in
            [pulling.subscribe("t", sql.clone()).await, pushed.subscribe_with("t", sql, listener).await]
        {
            let error = refused.err().context("it filters")?.to_string();
            let words =
                ["does not support consumer to filter message by SQL92", "set enablePropertyFilter=true"];
            words.iter().for_each(|part| assert!(error.contains(part), "{part} is not in: {error}"));
        }
        ensure!(!pushed.unsubscribe("t").await?, "nothing has changed");
        manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_broker_that_does_not_filter_is_a_start_error_that_names_the_setting() -> Result<()> {
    block_on(async {
        let server = rocketmq::embedded::Server::builder().property_filter(false).start().await?;
        server.create_topic("t", 1)?;
        let manager = rocketmq::client::MqClientManager::new(cluster(&server.name_server()));
        let consumer = PushConsumer::builder("g")
            .subscribe("t", Filter::sql("a = 1"), Seen::default().listener())
            .build(&manager)?;
        let error = consumer.start().await.err().context("it filters")?;
        assert!(matches!(error, Error::Consumer { .. }));
        let words = [
            "the listener of t for a = 1",
            "does not support consumer to filter message by SQL92",
            "set enablePropertyFilter=true",
        ];
        words.iter().for_each(|part| assert!(error.to_string().contains(part), "{part} is not in: {error}"));
        ensure!(server.members("g").is_empty());
        manager.shutdown().await?;
        Ok(())
    })
}

async fn a_part_that_brokers_pass_over_is_warned_of(server: Server) -> Result<()> {
    let topic = unique("passed-over");
    server.create_topic(&topic, 1).await?;
    let manager = server.manager();
    PushConsumer::builder(unique("group"))
        .subscribe(topic.as_str(), Filter::sql("a = 5 ORR a CONTAINS '6'"), Seen::default().listener())
        .build(&manager)?;
    PushConsumer::builder(unique("group"))
        .subscribe(topic.as_str(), Filter::sql("a CONTAINS '6'"), Seen::default().listener())
        .build(&manager)?;
    manager.start().await?;

    log::until_logged(&["pass over a part of the expression", &topic, "ORR a CONTAINS '6'"]).await?;
    if !server.knows_timers() {
        log::until_logged(&["does not know CONTAINS", &topic]).await?;
    }

    manager.shutdown().await?;
    Ok(())
}

async fn lite_pull_chooses_by_sql(server: Server) -> Result<()> {
    let topic = unique("polled");
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let manager = server.manager();
    let mut consumer_config = rocketmq::config::LitePullConfig::default();
    consumer_config.consume_from = rocketmq::config::ConsumeFrom::First;
    let mut consumer =
        rocketmq::LitePullConsumer::builder(unique("group")).config(consumer_config).build(&manager)?;
    consumer.subscribe(topic.as_str(), Filter::sql("region IN ('eu', 'Eu')")).await?;
    manager.start().await?;
    send_all(&producer, messages(&topic)).await?;

    let mut polled = BTreeSet::new();
    wait::until("both were polled", async || {
        let messages = consumer.poll(std::time::Duration::from_millis(100)).await?;
        polled.extend(messages.iter().map(|message| message.body_str().into_owned()));
        Ok(2 <= polled.len())
    })
    .await?;

    assert_eq!(polled, chosen("02"));
    let error = consumer.subscribe(topic.as_str(), Filter::sql("(a LIKE 'x')")).await;
    let error = error.err().context("all messages would come")?;
    assert!(error.to_string().contains("at column 4"), "{error}");
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_filter_hook_drops_messages_which_count_as_consumed(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("hooked"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let manager = server.manager();
    let name = topic.clone();
    PushConsumer::builder(&group)
        .config(consumer_config())
        .filter_hook(move |filtering: &Filtering<'_>, message: &MessageExt| {
            assert_ne!(message.body_str(), "3", "a hook that panics lets its message through");
            assert_eq!(filtering.queue.topic.as_ref(), name);
            message.tag() != Some("other")
        })
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    send_all(&producer, messages(&topic)).await?;

    wait::until("all are passed", async || Ok(server.committed(&group, &topic, 1).await? == 8)).await?;

    assert_eq!(seen.bodies(), chosen("012367"));
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_rate_limit_holds_until_it_is_changed(server: Server) -> Result<()> {
    for orderly in [false, true] {
        let (topic, group, seen) = (unique("limited"), unique("group"), Seen::default());
        server.create_topic(&topic, 2).await?;
        let (sender, producer) = server.producer().await?;
        let sent = send_numbers(&producer, &topic, 50).await?;
        let manager = server.manager();
        let mut config = consumer_config();
        config.rate_limit = Some("100/m".parse()?);
        let builder =
            PushConsumer::builder(&group).config(config).subscribe(topic.as_str(), "*", seen.listener());
        let consumer = if orderly { builder.orderly() } else { builder }.build(&manager)?;
        // The first may be handled before the start has come to its end.
        let begun = Instant::now();
        manager.start().await?;

        seen.until_count(4).await?;
        // 600 ms between two of them, however slow this machine is.
        assert!(Duration::from_millis(1_800) <= begun.elapsed(), "{:?}", begun.elapsed());
        assert!(seen.count() < 50);
        // Who waits for its turn hears of it.
        consumer.set_rate_limit(Some("1/h".parse()?));
        wait::until("one is handled, and the next would be in an hour", async || {
            let count = seen.count();
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(count > 4 && seen.count() == count)
        })
        .await?;
        consumer.set_rate_limit(None);

        seen.until_all(&sent).await?;
        manager.shutdown().await?;
        sender.shutdown().await?;
    }
    Ok(())
}

async fn a_backlog_is_passed_over_up_to_a_time(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("backlog"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let (first, handled) = (server.manager(), Seen::default());
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", handled.listener())
        .build(&first)?;
    first.start().await?;
    handled.until_all(&send_numbers(&producer, &topic, 5).await?).await?;
    first.shutdown().await?;
    send(&producer, &topic, (0..15).map(|number| format!("old {number}"))).await?;
    // Brokers and tests have one clock.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let time = SystemTime::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let sent = send(&producer, &topic, ["new 1", "new 2"]).await?;
    let mut config = consumer_config();
    config.skip_before = Some(SkipBefore::Time(time));
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;

    seen.until("the new ones were handled", |handled| {
        sent.iter().all(|body| handled.times.contains_key(body))
    })
    .await?;

    // Brokers before 5.0 may find the last old one.
    assert!(seen.count() <= 3, "{:?}", seen.bodies());
    wait::until("all are done", async || Ok(server.committed(&group, &topic, 1).await? == 22)).await?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}
