//! The ways of sending: to the queue of a key, to a given or chosen queue, one way; with hooks, and given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rocketmq::client::MqClientManager;
use rocketmq::config::Compression;
use rocketmq::message::properties;
use rocketmq::{
    Message, MessageQueue, Producer, PushConsumer, RequestError, SendError, SendHook, SendResult, Sending,
};
use tokio::time;

use crate::seen::Seen;
use crate::sending::send_numbers;
use crate::server::{Server, consumer_config, producer_config, unique};
use crate::wait;

on_each_server! { Shared:
    messages_of_a_key_stay_in_order,
    a_message_goes_to_the_queue_that_is_given_or_chosen,
    oneway_messages_arrive,
    a_message_keeps_what_its_sender_set,
    a_large_body_is_compressed_as_it_is_configured_and_arrives_whole,
    hooks_complete_watch_and_forbid,
    sends_that_are_given_up_harm_no_other,
    a_namespace_is_on_the_wire_only,
    everything_works_over_the_second_port,
}

const QUEUES: u32 = 4;

async fn messages_of_a_key_stay_in_order(server: Server) -> Result<()> {
    const KEYS: usize = 10;
    const EACH: usize = 20;
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let queues = producer.queues(&topic).await?;
    let mut sent = BTreeSet::new();
    let mut queue_of: BTreeMap<usize, BTreeSet<MessageQueue>> = BTreeMap::new();
    for number in 0..EACH {
        for key in 0..KEYS {
            let body = format!("{key}/{number}");
            let result =
                producer.send_ordered(Message::new(&topic).body(body.clone()), key.to_string()).await?;
            queue_of.entry(key).or_default().insert(result.queue);
            sent.insert(body);
        }
    }
    for (key, used) in &queue_of {
        // Java's `"7".hashCode()` is the number of the character.
        let hash = 48 + key;
        let expected = BTreeSet::from([queues[hash % queues.len()].clone()]);
        assert_eq!(used, &expected, "key {key}");
    }
    PushConsumer::builder(unique("group"))
        .orderly()
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&sender)?
        .start()
        .await?;
    seen.until_all(&sent).await?;
    let handled = seen.messages();
    for key in 0..KEYS {
        let own = |message: &&rocketmq::MessageExt| {
            message.property(properties::SHARDING_KEY) == Some(&key.to_string())
        };
        let numbers: Vec<_> =
            handled.iter().filter(own).map(|message| message.body_str().into_owned()).collect();
        let expected: Vec<_> = (0..EACH).map(|number| format!("{key}/{number}")).collect();
        assert_eq!(numbers, expected);
    }
    sender.shutdown().await?;
    Ok(())
}

async fn a_message_goes_to_the_queue_that_is_given_or_chosen(server: Server) -> Result<()> {
    let topic = unique("orders");
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let queues = producer.queues(&topic).await?;
    assert_eq!(queues.len(), QUEUES as usize);
    let message = || Message::new(&topic).body("x").sharding_key("does not count here");
    for queue in &queues {
        let sent = producer.send_to(queue, message()).await?;
        assert_eq!((&sent.queue, sent.queue_offset), (queue, 0));
        let sent = producer.send_with(message(), |all, _| all.iter().find(|other| *other == queue)).await?;
        assert_eq!((&sent.queue, sent.queue_offset), (queue, 1));
    }
    let error = producer.send_with(message(), |_, _| None).await.expect_err("none was chosen");
    assert!(matches!(error, SendError::NoQueueSelected { queues: 4, .. }), "{error:?}");
    let far = MessageQueue::new(topic.as_str(), queues[0].broker_name.as_ref(), 99);
    let error = producer.send_to(&far, message()).await.expect_err("there is no such queue");
    assert!(matches!(error, SendError::Refused { attempts: 1, .. }), "{error:?}");
    for queue in 0..QUEUES {
        assert_eq!(server.admin().max_offset(&topic, queue).await?, 2);
    }
    sender.shutdown().await?;
    Ok(())
}

async fn oneway_messages_arrive(server: Server) -> Result<()> {
    const COUNT: u32 = 500;
    let topic = unique("orders");
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    for number in 0..COUNT {
        producer.send_oneway(Message::new(&topic).body(number.to_string())).await?;
    }
    // The last of them has left when what follows it on the same connection is answered.
    let last = producer.send(Message::new(&topic).body("last")).await?;
    wait::until("all have arrived", async || {
        let mut stored = 0;
        for queue in 0..QUEUES {
            stored += server.admin().max_offset(&topic, queue).await?;
        }
        Ok(stored == i64::from(COUNT) + 1)
    })
    .await?;
    let stats = producer.stats()[&topic];
    assert_eq!((stats.oneway, stats.sent, stats.failed), (u64::from(COUNT), 1, 0));
    assert_eq!(last.queue.topic.as_ref(), topic);
    sender.shutdown().await?;
    Ok(())
}

async fn a_message_keeps_what_its_sender_set(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&sender)?
        .start()
        .await?;
    // Large enough to be compressed.
    let body = "the same again and again ".repeat(1_000);
    let message = Message::new(&topic)
        .body(body.clone())
        .tag("paid")
        .keys(["k1", "k2"])
        .flag(7)
        .property("user", "it's me")
        .wait_store(false);
    let sent = producer.send(message).await?;
    seen.until_all(&BTreeSet::from([body])).await?;
    let [received] = &seen.messages()[..] else { panic!("not one message") };
    assert_eq!((received.tag(), received.flag()), (Some("paid"), 7));
    assert_eq!(received.keys().collect::<Vec<_>>(), ["k1", "k2"]);
    assert_eq!(received.property("user"), Some("it's me"));
    assert_eq!(received.message_id(), sent.message_id);
    assert_eq!(received.offset_message_id(), sent.offset_message_id);
    assert_eq!((received.queue_offset(), received.topic()), (sent.queue_offset, topic.as_str()));
    sender.shutdown().await?;
    Ok(())
}

/// Notes how long bodies are as they travel.
#[derive(Default, Clone)]
struct Lengths(Arc<Mutex<Vec<usize>>>);

impl SendHook for Lengths {
    fn before(&self, sending: &Sending<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sending.body_len);
    }
}

async fn a_large_body_is_compressed_as_it_is_configured_and_arrives_whole(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let manager = server.manager();
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    // The larger one is compressed on a thread of its own.
    let text = |words: u32| (0..words).map(|word| format!("{} ", word * word % 977)).collect::<String>();
    let (small, large) = (text(3_000), text(60_000));
    let (mut sent, mut travelled) = (BTreeSet::new(), BTreeMap::new());
    for compression in [Compression::Zlib, Compression::Lz4, Compression::Zstd] {
        for level in [1, 9] {
            let (mut config, lengths) = (producer_config(), Lengths::default());
            (config.compression, config.compress_level) = (compression, level);
            let builder = Producer::builder(unique("producer")).config(config).hook(lengths.clone());
            let producer = builder.build(&manager)?;
            producer.start().await?;
            for body in [&small, &large] {
                let body = format!("{compression:?} {level} {body}");
                producer.send(Message::new(&topic).body(body.clone())).await?;
                sent.insert(body);
            }
            let lengths = std::mem::take(&mut *lengths.0.lock().unwrap_or_else(PoisonError::into_inner));
            assert!(
                lengths[0] < small.len() / 2 && lengths[1] < large.len() / 2,
                "{compression:?}: {lengths:?}"
            );
            travelled.insert((format!("{compression:?}"), level), lengths[1]);
        }
    }
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    let length = |level| travelled[&("Zlib".to_owned(), level)];
    assert!(length(9) < length(1), "{travelled:?}");
    manager.shutdown().await?;
    Ok(())
}

/// Notes what it sees, and forbids what says so.
#[derive(Default, Clone)]
struct Watch(Arc<Mutex<Vec<String>>>);

impl Watch {
    fn note(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SendHook for Watch {
    fn prepare(&self, message: Message) -> Message {
        message.property("traceparent", "00-1-2-01")
    }

    fn check(&self, sending: &Sending<'_>) -> Result<(), String> {
        match sending.properties.contains("secret") {
            true => Err("secrets stay here".to_owned()),
            false => Ok(()),
        }
    }

    fn before(&self, sending: &Sending<'_>) {
        let Sending { messages, attempt, oneway, queue, .. } = sending;
        self.note(format!("before {messages} {attempt} {oneway} {}", queue.broker_name));
    }

    fn after(&self, sending: &Sending<'_>, outcome: Result<Option<&SendResult>, &RequestError>) {
        let same_id =
            outcome.map(|result| result.is_none_or(|result| result.message_id == sending.message_id));
        self.note(format!("after {} {same_id:?}", sending.body_len));
    }
}

async fn hooks_complete_watch_and_forbid(server: Server) -> Result<()> {
    let (topic, seen, watch) = (unique("orders"), Seen::default(), Watch::default());
    server.create_topic(&topic, 1).await?;
    let manager = server.manager();
    let producer = Producer::builder(unique("producer"))
        .config(producer_config())
        .hook(watch.clone())
        .build(&manager)?;
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    let message = |body: &str| Message::new(&topic).body(body.to_owned());
    producer.send(message("one")).await?;
    assert_eq!(watch.seen(), ["before 1 1 false broker-a", "after 3 Ok(true)"]);
    producer.send_oneway(message("two")).await?;
    assert_eq!(watch.seen(), ["before 1 1 true broker-a", "after 3 Ok(true)"]);
    producer.send_batch([message("three"), message("four")]).await?;
    assert_eq!(watch.seen().len(), 2);
    let error = producer.send(message("five").tag("secret")).await.expect_err("it is forbidden");
    assert!(matches!(&error, SendError::Forbidden { .. }), "{error:?}");
    assert!(error.to_string().contains("secrets stay here"), "{error}");
    assert!(watch.seen().is_empty());
    seen.until_all(&["one", "two", "three", "four"].map(str::to_owned).into()).await?;
    let messages = seen.messages();
    assert!(messages.iter().all(|message| message.property("traceparent") == Some("00-1-2-01")));
    manager.shutdown().await?;
    Ok(())
}

async fn sends_that_are_given_up_harm_no_other(server: Server) -> Result<()> {
    let topic = unique("orders");
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    producer.send(Message::new(&topic).body("first")).await?;
    let mut given_up = tokio::task::JoinSet::new();
    for number in 0..300_u64 {
        let (producer, message) = (producer.clone(), Message::new(&topic).body(vec![b'x'; 5_000]));
        given_up.spawn(async move {
            // In every state that a send has.
            let patience = Duration::from_micros(number * 10);
            time::timeout(patience, producer.send(message)).await.is_ok()
        });
    }
    let sent = send_numbers(&producer, &topic, 300).await?;
    assert_eq!(sent.len(), 300, "every send that was waited for succeeded");
    let mut confirmed = 1 + sent.len() as i64;
    while let Some(ended) = given_up.join_next().await {
        confirmed += i64::from(ended?);
    }
    let mut stored = 0;
    for queue in 0..QUEUES {
        stored += server.admin().max_offset(&topic, queue).await?;
    }
    assert!(confirmed <= stored, "{confirmed} were confirmed, {stored} are stored");
    let start = time::Instant::now();
    sender.shutdown().await?;
    assert!(start.elapsed() < Duration::from_secs(5), "what was given up is waited for");
    Ok(())
}

async fn a_namespace_is_on_the_wire_only(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&format!("ns%{topic}"), QUEUES).await?;
    let mut cluster = server.cluster();
    cluster.client.namespace = Some("ns".to_owned());
    let manager = MqClientManager::new(cluster);
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    let queues = producer.queues(&topic).await?;
    assert!(queues.iter().all(|queue| queue.topic.as_ref() == topic), "{queues:?}");
    let message = |body: &str| Message::new(&topic).body(body.to_owned());
    let sent = producer.send_to(&queues[1], message("to")).await?;
    assert_eq!(sent.queue, queues[1]);
    let first = |all: &[MessageQueue]| all[0].topic.as_ref() == topic;
    let sent = producer.send_with(message("with"), |all, _| all.first().filter(|_| first(all))).await?;
    assert_eq!(sent.queue, queues[0]);
    producer.send_batch([message("three"), message("four")]).await?;
    seen.until_all(&["to", "with", "three", "four"].map(str::to_owned).into()).await?;
    assert!(seen.messages().iter().all(|message| message.topic() == topic));
    assert_eq!(producer.stats()[&topic].sent, 4);
    manager.shutdown().await?;
    Ok(())
}

/// Apache's brokers have it; the embedded one has not, and is not asked.
async fn everything_works_over_the_second_port(server: Server) -> Result<()> {
    if server.is_embedded() {
        return Ok(());
    }
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, QUEUES).await?;
    let mut cluster = server.cluster();
    cluster.client.vip_channel = true;
    let manager = MqClientManager::new(cluster);
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    let group = unique("group");
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    let sent = send_numbers(&producer, &topic, 100).await?;
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    wait::until(
        "the offsets are stored",
        async || Ok(server.committed(&group, &topic, QUEUES).await? == 100),
    )
    .await?;
    manager.shutdown().await?;
    Ok(())
}
