//! Sending: which queue, which broker, how long, and what is refused.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use rocketmq::client::MqClientManager;
use rocketmq::config::ByteSize;
use rocketmq::message::MessageError;
use rocketmq::{Message, Producer, PushConsumer, RequestError, SendError, SendStatus};

use crate::fake::{Fake, nobody};
use crate::log;
use crate::seen::Seen;
use crate::sending::send_numbers;
use crate::server::{Server, block_on, cluster, consumer_config, producer_config, unique};

on_each_server! { Shared:
    queues_take_their_turns,
    a_broker_that_is_down_is_left_for_another,
    a_first_message_creates_its_topic,
}

async fn queues_take_their_turns(server: Server) -> Result<()> {
    const QUEUES: u32 = 8;
    let topic = unique("orders");
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let mut turns: HashMap<i32, u32> = HashMap::new();
    for number in 0..40 {
        let sent = producer.send(Message::new(&topic).body(number.to_string())).await?;
        assert_eq!(sent.status, SendStatus::SendOk);
        *turns.entry(sent.queue.queue_id).or_default() += 1;
    }
    assert_eq!(turns, (0..8).map(|queue| (queue, 5)).collect());
    for queue in 0..QUEUES {
        assert_eq!(server.admin().max_offset(&topic, queue).await?, 5, "queue {queue}");
    }
    sender.shutdown().await?;
    Ok(())
}

/// The route names two brokers, of which one has gone without the name server's noticing.
async fn a_broker_that_is_down_is_left_for_another(server: Server) -> Result<()> {
    let topic = unique("orders");
    server.create_topic(&topic, 2).await?;
    let brokers = [("broker-a", server.broker_addr()), ("broker-gone", nobody().await?)];
    let name_server = Fake::name_server(&topic, &brokers).await?;
    let manager = MqClientManager::new(cluster(&name_server.addr().to_string()));
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    manager.start().await?;
    let sent = send_numbers(&producer, &topic, 40).await?;
    assert_eq!(sent.len(), 40);
    let announced = format!("broker broker-gone announced {}", brokers[1].1);
    log::until_logged(&["WARN", &announced, "set brokerIP1"]).await?;
    let mut stored = 0;
    for queue in 0..2 {
        stored += server.admin().max_offset(&topic, queue).await?;
    }
    assert_eq!(stored, 40);
    manager.shutdown().await?;
    Ok(())
}

async fn a_first_message_creates_its_topic(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    let manager = server.manager();
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    manager.start().await?;
    let sent = send_numbers(&producer, &topic, 20).await?;
    seen.until_all(&sent).await?;
    manager.shutdown().await?;
    Ok(())
}

#[test]
fn a_send_to_a_broker_that_hangs_ends_with_its_time() -> Result<()> {
    block_on(async {
        let hanging = Fake::silent().await?;
        let name_server = Fake::name_server("orders", &[("broker-a", hanging.addr())]).await?;
        let manager = MqClientManager::new(cluster(&name_server.addr().to_string()));
        let mut config = producer_config();
        config.send_timeout = Duration::from_millis(400);
        let producer = Producer::builder("producer").config(config).build(&manager)?;
        manager.start().await?;
        let start = Instant::now();
        let error = producer.send(Message::new("orders").body("x")).await.expect_err("nobody confirmed it");
        let took = start.elapsed();
        assert!(Duration::from_millis(400) <= took && took < Duration::from_secs(2), "it took {took:?}");
        assert!(error.is_retryable(), "{error}");
        let text = format!("{:?}", rocketmq::Error::from(error));
        assert!(text.contains("orders") && text.contains("400ms"), "{text}");
        assert!(text.contains(&hanging.addr().to_string()), "it does not name the broker: {text}");
        manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_send_to_a_broker_that_disconnects_says_so_within_its_time() -> Result<()> {
    block_on(async {
        let cutting = Fake::closing().await?;
        let name_server = Fake::name_server("orders", &[("broker-a", cutting.addr())]).await?;
        let mut cluster = cluster(&name_server.addr().to_string());
        cluster.client.heartbeat_interval = Duration::from_millis(50);
        let manager = MqClientManager::new(cluster);
        let producer = Producer::builder("producer").config(producer_config()).build(&manager)?;
        manager.start().await?;
        let error = producer.send(Message::new("orders").body("x")).await.expect_err("nobody confirmed it");
        let SendError::Failed { attempts: 3, source, .. } = &error else { panic!("{error:?}") };
        assert!(matches!(source, RequestError::Disconnected { .. }), "{source:?}");
        assert!(error.is_retryable() && error.response_code().is_none());
        let text = format!("{:?}", rocketmq::Error::from(error));
        assert!(text.contains(&cutting.addr().to_string()), "it does not name the broker: {text}");
        // That it can be reached is clear, so nobody is sent to look at its address.
        let address = cutting.addr().to_string();
        log::until_logged(&["WARN", &address, "the peer closed the connection", "speak TLS"]).await?;
        manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_send_without_a_reachable_broker_says_what_was_tried() -> Result<()> {
    block_on(async {
        let gone = nobody().await?;
        let name_server = Fake::name_server("orders", &[("broker-a", gone)]).await?;
        let manager = MqClientManager::new(cluster(&name_server.addr().to_string()));
        let producer = Producer::builder("producer").build(&manager)?;
        manager.start().await?;
        let error = producer.send(Message::new("orders").body("x")).await.expect_err("there is nobody");
        assert!(matches!(&error, SendError::Failed { attempts: 3, .. }), "{error:?}");
        let text = format!("{:?}", rocketmq::Error::from(error));
        assert!(text.contains(&gone.to_string()), "{text}");
        manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_producer_that_does_not_run_says_so() -> Result<()> {
    block_on(async {
        let manager = MqClientManager::new(cluster(&nobody().await?.to_string()));
        let producer = Producer::builder("producer").build(&manager)?;
        let error = producer.send(Message::new("orders").body("x")).await.expect_err("not started");
        assert!(matches!(&error, SendError::NotRunning { .. }), "{error:?}");
        manager.start().await?;
        manager.shutdown().await?;
        let error = producer.send(Message::new("orders").body("x")).await.expect_err("shut down");
        assert!(matches!(&error, SendError::NotRunning { .. }), "{error:?}");
        assert!(error.to_string().contains("shut down"), "{error}");
        let error = manager.start().await.expect_err("it cannot be started again").to_string();
        assert!(error.contains("shut down"), "{error}");
        Ok(())
    })
}

#[test]
fn a_body_over_the_limit_is_refused_before_anything_is_sent() -> Result<()> {
    block_on(async {
        // There is nobody to send to: whoever tried would fail otherwise, and later.
        let manager = MqClientManager::new(cluster(&nobody().await?.to_string()));
        let mut config = producer_config();
        config.max_message = ByteSize::kib(1);
        let producer = Producer::builder("producer").config(config).build(&manager)?;
        manager.start().await?;
        let error =
            producer.send(Message::new("orders").body(vec![b'x'; 1025])).await.expect_err("a byte too many");
        let is_too_large =
            matches!(&error, SendError::Message(MessageError::BodyTooLarge { len: 1025, limit: 1024 }));
        assert!(is_too_large && !error.is_retryable(), "{error:?}");
        manager.shutdown().await?;
        Ok(())
    })
}
