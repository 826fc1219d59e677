//! A start that cannot succeed, or not yet.

use std::time::{Duration, Instant};

use anyhow::Result;
use rocketmq::client::MqClientManager;
use rocketmq::config::{Config, ConsumeFrom, ConsumeMode};
use rocketmq::{App, ConsumeResult, PushConsumer};

use crate::fake::{Fake, nobody};
use crate::log;
use crate::seen::Seen;
use crate::sending::{send, send_numbers};
use crate::server::{Server, block_on, cluster, consumer_config, unique};

on_each_server! { Shared:
    a_consumer_of_a_missing_topic_begins_once_it_is_created,
    what_is_sent_once_a_group_is_ready_is_not_missed,
}

/// With `consume_from: last` a queue is read from where it ends when somebody asks for that.
async fn what_is_sent_once_a_group_is_ready_is_not_missed(server: Server) -> Result<()> {
    let topic = unique("orders");
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    // So many that the embedded server drops the oldest: a queue that is still whole is read from its beginning.
    send_numbers(&producer, &topic, if server.is_embedded() { 2_500 } else { 10 }).await?;
    let modes = [ConsumeMode::Pull, ConsumeMode::Pop].into_iter();
    for mode in modes.filter(|mode| *mode == ConsumeMode::Pull || !server.is_4_9()) {
        for round in 0..4 {
            let (manager, seen) = (server.manager(), Seen::default());
            let mut config = consumer_config();
            (config.mode, config.consume_from) = (mode, ConsumeFrom::Last);
            let consumer = PushConsumer::builder(unique("group"))
                .config(config)
                .subscribe(topic.as_str(), "*", seen.listener())
                .build(&manager)?;
            manager.start().await?;
            consumer.ready().await;
            let body = format!("new {mode:?} {round}");
            send(&producer, &topic, [body.as_str()]).await?;
            seen.until("the new one was handled", |handled| handled.times.contains_key(&body)).await?;
            manager.shutdown().await?;
        }
    }
    sender.shutdown().await?;
    Ok(())
}

async fn a_consumer_of_a_missing_topic_begins_once_it_is_created(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    let (sender, producer) = server.producer().await?;
    let manager = server.manager();
    let consumer = PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    log::until_logged(&["WARN", &topic, "it is looked for all the time"]).await?;
    assert!(!consumer.is_ready(), "a consumer without its topic is not ready");

    server.create_topic(&topic, 4).await?;
    let sent = send_numbers(&producer, &topic, 100).await?;

    seen.until_within(Duration::from_secs(10), "all were handled", |handled| handled.times.len() == 100)
        .await?;
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    consumer.ready().await;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// Neither one that refuses connections nor one that takes them and says nothing holds up the start for long.
#[test]
fn a_start_without_a_name_server_fails_in_time_and_names_its_address() -> Result<()> {
    block_on(async {
        let silent = Fake::silent().await?;
        for address in [nobody().await?, silent.addr()] {
            let mut cluster = cluster(&address.to_string());
            cluster.client.startup_timeout = Duration::from_millis(500);
            cluster.client.request_timeout = Duration::from_millis(500);
            let manager = MqClientManager::new(cluster);
            PushConsumer::builder("group")
                .subscribe("topic", "*", |_| async { ConsumeResult::Success })
                .build(&manager)?;
            let start = Instant::now();
            let error = manager.start().await.expect_err("there is no name server");
            assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
            assert!(error.to_string().contains(&address.to_string()), "{error:?}");
        }
        Ok(())
    })
}

#[test]
fn a_program_without_listeners_does_not_run() -> Result<()> {
    block_on(async {
        let app = App::builder().without_linked_listeners().config_value(Config::default());
        let error = app.run().await.expect_err("there is nothing to listen").to_string();
        assert!(error.contains("there is no listener in this program"), "{error}");
        assert!(error.contains("#[rocketmq::listener("), "it does not say what to write: {error}");
        Ok(())
    })
}

#[test]
fn two_listeners_that_want_the_same_message_are_refused_with_both_places() -> Result<()> {
    block_on(async {
        let listener = |_| async { ConsumeResult::Success };
        let app = App::builder()
            .without_linked_listeners()
            .config_value(Config::default())
            .listener("group", "orders", "paid || new", listener)
            .listener("group", "orders", "paid", listener);
        let error = app.start().await.expect_err("`paid` is wanted twice").to_string();
        for part in ["group `group`", "paid || new", "the listener of orders for paid,"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        Ok(())
    })
}
