//! Messages for those who ask for them.

mod offsets;
mod poll;
mod queues;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::config::{ClusterConfig, ConsumeFrom, LitePullConfig};
use rocketmq::{Error, LitePullConsumer, Message, MessageExt, MessageQueue, Producer};

use crate::server::{Server, unique};

const QUEUES: u32 = 4;
/// How long a poll waits for what is there.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a poll waits for what should not come.
const A_WHILE: Duration = Duration::from_millis(700);

fn config() -> LitePullConfig {
    let mut config = LitePullConfig::default();
    config.consume_from = ConsumeFrom::First;
    config.auto_commit_interval = Duration::from_secs(1);
    config
}

fn by_hand() -> LitePullConfig {
    let mut config = config();
    config.auto_commit = false;
    config
}

/// A consumer at work, and the process that it is in.
struct Member {
    manager: MqClientManager,
    consumer: LitePullConsumer,
}

impl Member {
    /// One that has subscribed to a topic, and has its queues.
    async fn join(server: &Server, group: &str, topic: &str, config: LitePullConfig) -> Result<Self> {
        let member = Self::start(server.cluster(), group, config, async |consumer| {
            consumer.subscribe(topic, "*").await
        });
        let member = member.await?;
        member.consumer.ready().await;
        Ok(member)
    }

    async fn start(
        cluster: ClusterConfig,
        group: &str,
        config: LitePullConfig,
        select: impl AsyncFnOnce(&LitePullConsumer) -> rocketmq::Result<()>,
    ) -> Result<Self> {
        let manager = MqClientManager::new(cluster);
        let consumer = LitePullConsumer::builder(group).config(config).build(&manager)?;
        select(&consumer).await?;
        manager.start().await?;
        Ok(Self { manager, consumer })
    }

    /// Polls until there were `count` messages.
    async fn poll(&mut self, count: usize) -> Result<Vec<MessageExt>> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let polled = self.consumer.poll(PATIENCE).await?;
            ensure!(!polled.is_empty(), "only {} of {count} messages came", messages.len());
            messages.extend(polled);
        }
        Ok(messages)
    }

    /// That nothing comes.
    async fn ensure_silence(&mut self) -> Result<()> {
        let polled = bodies(&self.consumer.poll(A_WHILE).await?);
        ensure!(polled.is_empty(), "polled, but not expected: {polled:?}");
        Ok(())
    }

    async fn stop(self) -> Result<()> {
        Ok(self.manager.shutdown().await?)
    }
}

/// The error of what should not have succeeded.
fn refusal<T>(result: rocketmq::Result<T>) -> Result<Error> {
    result.err().context("it should have been refused")
}

fn bodies(messages: &[MessageExt]) -> Vec<String> {
    messages.iter().map(|message| message.body_str().into_owned()).collect()
}

fn set(messages: &[MessageExt]) -> BTreeSet<String> {
    bodies(messages).into_iter().collect()
}

/// The offset that follows the last of these messages, for each queue.
fn ends(messages: &[MessageExt]) -> BTreeMap<MessageQueue, i64> {
    let mut ends = BTreeMap::new();
    for message in messages {
        let end = ends.entry(message.message_queue()).or_default();
        *end = (message.queue_offset() + 1).max(*end);
    }
    ends
}

/// One queue with the messages `0` to `count`, in their order.
async fn one_queue(server: &Server, producer: &Producer, count: u32) -> Result<(String, MessageQueue)> {
    let topic = unique("orders");
    server.create_topic(&topic, 1).await?;
    for number in 0..count {
        producer.send(Message::new(&topic).body(number.to_string())).await?;
    }
    let queue = MessageQueue::new(topic.as_str(), "broker-a", 0);
    Ok((topic, queue))
}
