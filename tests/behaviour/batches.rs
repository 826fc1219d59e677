//! Messages that travel together: put together by their sender, or by the producer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use rocketmq::config::{ByteSize, ProducerConfig};
use rocketmq::{Message, Producer, PushConsumer, SendHook, SendResult, Sending};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::seen::Seen;
use crate::server::{Server, consumer_config, producer_config, unique};
use crate::wait;

on_each_server! { Shared:
    a_batch_arrives_whole_and_each_message_of_it_is_its_own,
    messages_sent_at_the_same_time_travel_together_and_each_caller_gets_its_own_result,
    a_batch_leaves_when_it_is_full_when_its_time_is_over_and_when_the_producer_stops,
}

async fn a_batch_arrives_whole_and_each_message_of_it_is_its_own(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 4).await?;
    let (sender, producer) = server.producer().await?;
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&sender)?
        .start()
        .await?;
    let message = |number: usize| {
        let message = Message::new(&topic).body(number.to_string()).key(format!("k{number}"));
        message.tag(["even", "odd"][number % 2]).property("n", number.to_string()).flag(number as i32)
    };
    let results = producer.send_batch((0..100).map(message)).await?;
    let sent: BTreeSet<_> = (0..100).map(|number| number.to_string()).collect();
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    let mut received = seen.messages();
    received.sort_by_key(|message| message.queue_offset());
    assert_eq!(results.len(), 100);
    for (number, (result, received)) in results.iter().zip(&received).enumerate() {
        assert_eq!(received.body_str(), number.to_string(), "in the order of the batch");
        assert_eq!(result.queue, results[0].queue);
        assert_eq!(
            (result.queue.queue_id, result.queue_offset),
            (received.queue_id(), received.queue_offset())
        );
        assert_eq!(result.message_id, received.message_id());
        assert_eq!(result.offset_message_id, received.offset_message_id());
        assert_eq!(received.tag(), Some(["even", "odd"][number % 2]));
        assert_eq!(received.keys().collect::<Vec<_>>(), [format!("k{number}")]);
        assert_eq!((received.property("n"), received.flag()), (Some(&*number.to_string()), number as i32));
    }
    let ids: BTreeSet<_> = results.iter().map(|result| &result.message_id).collect();
    assert_eq!(ids.len(), 100);
    let ordered = [0, 1].map(|number| message(number).sharding_key("a"));
    let ordered = producer.send_batch(ordered).await?;
    let alone = producer.send_ordered(message(2), "a").await?;
    assert_eq!(ordered[0].queue, alone.queue, "a batch of one key goes to its queue");
    assert_eq!(producer.stats()[&topic].sent, 103);
    sender.shutdown().await?;
    Ok(())
}

/// Counts requests.
#[derive(Default, Clone)]
struct Requests(Arc<AtomicUsize>);

impl SendHook for Requests {
    fn before(&self, _: &Sending<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn batching(set: impl FnOnce(&mut ProducerConfig)) -> ProducerConfig {
    let mut config = producer_config();
    config.auto_batch.enabled = true;
    set(&mut config);
    config
}

async fn messages_sent_at_the_same_time_travel_together_and_each_caller_gets_its_own_result(
    server: Server,
) -> Result<()> {
    const COUNT: usize = 500;
    let (topic, seen, requests) = (unique("orders"), Seen::default(), Requests::default());
    server.create_topic(&topic, 4).await?;
    let manager = server.manager();
    let producer = Producer::builder(unique("producer"))
        .config(batching(|config| config.auto_batch.linger = Duration::from_millis(20)))
        .hook(requests.clone())
        .build(&manager)?;
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    let mut sends = JoinSet::new();
    for number in 0..COUNT {
        let (producer, topic) = (producer.clone(), topic.clone());
        sends.spawn(async move {
            let message = Message::new(topic).body(number.to_string()).tag(["a", "b"][number % 2]);
            // Some want an order, one is delayed, one is large: it travels alone.
            let message = match number {
                7 => message.delay_level(1),
                8 => message.body(format!("{number} {}", "x".repeat(5_000))),
                _ if number % 3 == 0 => message.sharding_key("one"),
                _ => message,
            };
            let body = String::from_utf8_lossy(message.payload()).into_owned();
            producer.send(message).await.map(|result| (body, result))
        });
    }
    let mut results: Vec<(String, SendResult)> = Vec::new();
    while let Some(sent) = sends.join_next().await {
        results.push(sent??);
    }
    seen.until_all(&results.iter().map(|(body, _)| body.clone()).collect()).await?;
    seen.ensure_once()?;
    for message in seen.messages() {
        let (_, result) =
            results.iter().find(|(body, _)| *body == message.body_str()).expect("it was sent by this test");
        assert_eq!(result.message_id, message.message_id());
        if message.body_str() != "7" {
            let place = (message.queue_id(), message.queue_offset(), message.offset_message_id());
            let told = (result.queue.queue_id, result.queue_offset, result.offset_message_id.clone());
            assert_eq!(place, told, "{}", message.body_str());
        }
    }
    let ordered: BTreeSet<_> = results
        .iter()
        .filter(|(body, _)| body.parse().is_ok_and(|number: usize| number.is_multiple_of(3)))
        .map(|(_, result)| result.queue.clone())
        .collect();
    assert_eq!(ordered.len(), 1, "an order is kept");
    let requests = requests.0.load(Ordering::Relaxed);
    assert!(requests < COUNT / 5, "{requests} requests for {COUNT} messages");
    assert_eq!(producer.stats()[&topic].sent, COUNT as u64);
    manager.shutdown().await?;
    Ok(())
}

async fn a_batch_leaves_when_it_is_full_when_its_time_is_over_and_when_the_producer_stops(
    server: Server,
) -> Result<()> {
    const LONG: Duration = Duration::from_secs(10);
    let topic = unique("orders");
    server.create_topic(&topic, 1).await?;
    let send = |producer: &Producer, count: usize| {
        let mut sends = JoinSet::new();
        for _ in 0..count {
            let (producer, message) = (producer.clone(), Message::new(&topic).body(vec![b'x'; 100]));
            sends.spawn(async move { producer.send(message).await });
        }
        sends
    };
    let linger = |time| move |config: &mut ProducerConfig| config.auto_batch.linger = time;
    let full: [(ProducerConfig, usize); 3] = [
        (batching(|config| (linger(LONG)(config), config.auto_batch.messages = 10).1), 10),
        (batching(|config| (linger(LONG)(config), config.auto_batch.bytes = ByteSize::kib(2)).1), 20),
        (batching(linger(Duration::from_millis(50))), 3),
    ];
    for (config, count) in full {
        let (manager, requests) = (server.manager(), Requests::default());
        let builder = Producer::builder(unique("producer")).config(config).hook(requests.clone());
        let producer = builder.build(&manager)?;
        manager.start().await?;
        let start = Instant::now();
        let mut sends = send(&producer, count);
        while let Some(sent) = sends.join_next().await {
            sent??;
            if requests.0.load(Ordering::Relaxed) == 1 && start.elapsed() < LONG / 2 {
                break;
            }
        }
        assert!(start.elapsed() < LONG / 2, "{count} messages took {:?}", start.elapsed());
        manager.shutdown().await?;
        while let Some(sent) = sends.join_next().await {
            sent??;
        }
    }
    let manager = server.manager();
    let producer = Producer::builder(unique("producer")).config(batching(linger(LONG))).build(&manager)?;
    manager.start().await?;
    let mut sends = send(&producer, 5);
    wait::until("they wait", async || Ok(producer.stats().contains_key(&topic))).await?;
    tokio::task::yield_now().await;
    let start = Instant::now();
    manager.shutdown().await?;
    assert!(start.elapsed() < LONG / 2, "it took {:?}", start.elapsed());
    while let Some(sent) = sends.join_next().await {
        match sent? {
            Ok(_) | Err(rocketmq::SendError::NotRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
