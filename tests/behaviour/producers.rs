//! Producers that a configuration declares: shared connections, an order of start and stop, a clear end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rocketmq::config::{ClusterConfig, ProducerConfig};
use rocketmq::{App, Message, MessageExt, SendError};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::seen::Seen;
use crate::server::{Server, block_on, config, producer_config, unique};
use crate::wait;

on_each_server! { Shared:
    a_handler_may_send_to_another_cluster_until_it_has_ended,
    a_closed_producer_has_sent_what_was_on_its_way,
}

/// Producers and consumers of two clusters, which are the same server under two names.
async fn a_handler_may_send_to_another_cluster_until_it_has_ended(server: Server) -> Result<()> {
    let (topic, forwarded, group) = (unique("orders"), unique("forwarded"), unique("group"));
    for topic in [&topic, &forwarded] {
        server.create_topic(topic, 1).await?;
    }
    let mut config = config(&server);
    let mut far: ClusterConfig = server.cluster();
    // Otherwise it would be the same client.
    far.client.heartbeat_interval = Duration::from_secs(29);
    config.clusters.insert("a-far-one".to_owned(), far);
    let mut producer: ProducerConfig = producer_config();
    producer.group = Some(unique("producer"));
    // Managers are kept by the names of their clusters: this one comes first.
    producer.cluster = Some("a-far-one".to_owned());
    config.producers.insert("far".to_owned(), producer);
    let (seen, may_send) = (Seen::default(), Arc::new(Notify::new()));
    let (noted, awaited) = (seen.clone(), Arc::clone(&may_send));
    let far = Arc::new(std::sync::OnceLock::new());
    let given = Arc::clone(&far);
    let target = forwarded.clone();
    let app = App::builder()
        .config_value(config)
        .without_linked_listeners()
        .listener(group.as_str(), topic.as_str(), "*", move |messages: Vec<MessageExt>| {
            messages.iter().for_each(|message| noted.note(message));
            let (far, may_send, target) = (Arc::clone(&given), Arc::clone(&awaited), target.clone());
            async move {
                may_send.notified().await;
                let producer: &rocketmq::Producer = far.get().context("it was set before")?;
                for message in messages {
                    producer.send(message.forward_to(target.as_str())).await?;
                }
                Ok::<_, anyhow::Error>(())
            }
        })
        .start()
        .await?;
    far.set(app.producer("far")?).map_err(|_| anyhow::anyhow!("it was set twice"))?;
    let sender = app.producer("default")?;
    sender.send(Message::new(&topic).body("x")).await?;
    seen.until_count(1).await?;
    let mut stopping = JoinSet::new();
    let stopped = app.clone();
    stopping.spawn(async move { stopped.shutdown().await });
    // Shorter than `shutdown_timeout`, long enough for a producer that would not wait.
    tokio::select! {
        stopped = stopping.join_next() => stopped.context("it was begun")???,
        () = tokio::time::sleep(Duration::from_millis(300)) => {}
    }
    may_send.notify_one();
    stopping.join_next().await.context("it was begun")???;
    assert_eq!(server.admin().max_offset(&forwarded, 0).await?, 1, "the handler could send to the end");
    assert_eq!(server.committed(&group, &topic, 1).await?, 1);
    let error = sender.send(Message::new(&topic).body("y")).await.expect_err("it is closed");
    assert!(matches!(error, SendError::NotRunning { .. }), "{error:?}");
    assert!(error.to_string().contains("is shut down"), "{error}");
    Ok(())
}

async fn a_closed_producer_has_sent_what_was_on_its_way(server: Server) -> Result<()> {
    const COUNT: usize = 200;
    let topic = unique("orders");
    server.create_topic(&topic, 4).await?;
    let (manager, producer) = server.producer().await?;
    producer.send(Message::new(&topic).body("first")).await?;
    let mut sends = JoinSet::new();
    for number in 0..COUNT {
        let (producer, message) = (producer.clone(), Message::new(&topic).body(number.to_string()));
        sends.spawn(async move { producer.send(message).await });
    }
    wait::until("some have been sent", async || Ok(producer.stats()[&topic].sent > 1)).await?;
    producer.shutdown().await;
    let mut confirmed = 1;
    while let Some(sent) = sends.join_next().await {
        match sent? {
            Ok(_) => confirmed += 1,
            // It came after the end.
            Err(SendError::NotRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut stored = 0;
    for queue in 0..4 {
        stored += server.admin().max_offset(&topic, queue).await?;
    }
    assert_eq!(stored, confirmed, "what was accepted is confirmed, what was not is not there");
    manager.shutdown().await?;
    Ok(())
}

#[test]
fn a_producer_that_is_not_there_stops_the_start() -> Result<()> {
    block_on(async {
        let mut config = rocketmq::Config::default();
        config.cluster.name_servers = rocketmq::config::NameServers::Embedded;
        let started = App::builder()
            .config_value(config)
            .without_linked_listeners()
            .state_with(|producers| producers.get("ordres"))
            .start()
            .await;
        let error = started.err().context("there is no such producer")?.to_string();
        assert!(error.contains("ordres") && error.contains("default"), "{error}");
        Ok(())
    })
}
