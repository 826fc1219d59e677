//! What was sent, and confirmed: the other side of every count.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rocketmq::{Message, Producer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;

/// Sends that are on their way at the same time.
const IN_FLIGHT: usize = 64;

/// Sends messages with these bodies to a topic; returns the bodies once all are confirmed.
pub(crate) async fn send(
    producer: &Producer,
    topic: &str,
    bodies: impl IntoIterator<Item = impl Into<String>>,
) -> Result<BTreeSet<String>> {
    let bodies = bodies.into_iter().map(Into::into);
    send_all(producer, bodies.map(|body| Message::new(topic).body(body))).await
}

/// The bodies `0`, `1` and so on.
pub(crate) async fn send_numbers(producer: &Producer, topic: &str, count: u32) -> Result<BTreeSet<String>> {
    send(producer, topic, (0..count).map(|number| number.to_string())).await
}

/// Sends these messages; returns their bodies once all are confirmed.
pub(crate) async fn send_all(
    producer: &Producer,
    messages: impl IntoIterator<Item = Message>,
) -> Result<BTreeSet<String>> {
    let mut confirmed = BTreeSet::new();
    let mut sends = JoinSet::new();
    for message in messages {
        if IN_FLIGHT <= sends.len() {
            confirmed.insert(sends.join_next().await.context("there are some")???);
        }
        let producer = producer.clone();
        sends.spawn(async move {
            let body = String::from_utf8_lossy(message.payload()).into_owned();
            producer.send(message).await.map(|_| body)
        });
    }
    while let Some(sent) = sends.join_next().await {
        confirmed.insert(sent??);
    }
    Ok(confirmed)
}

/// Sends one message after the other until it is stopped, whatever happens to brokers meanwhile.
pub(crate) struct Stream {
    confirmed: Arc<Mutex<BTreeSet<String>>>,
    count: watch::Receiver<usize>,
    task: JoinSet<()>,
}

impl Stream {
    pub(crate) fn start(producer: Producer, topic: &str, pause: Duration) -> Self {
        let confirmed = Arc::new(Mutex::new(BTreeSet::new()));
        let (counter, count) = watch::channel(0);
        let mut task = JoinSet::new();
        let (stored, topic) = (Arc::clone(&confirmed), topic.to_owned());
        task.spawn(async move {
            for number in 0_u64.. {
                // What is not confirmed may have been stored nevertheless: another number follows.
                if producer.send(Message::new(&topic).body(number.to_string())).await.is_ok() {
                    let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
                    stored.insert(number.to_string());
                    counter.send_replace(stored.len());
                }
                time::sleep(pause).await;
            }
        });
        Self { confirmed, count, task }
    }

    /// How many were confirmed so far.
    pub(crate) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until so many were confirmed.
    pub(crate) async fn until_count(&self, count: usize) -> Result<()> {
        let mut counts = self.count.clone();
        time::timeout(crate::wait::LIMIT, counts.wait_for(|sent| count <= *sent))
            .await
            .with_context(|| format!("only {} of {count} messages were confirmed", self.count()))??;
        Ok(())
    }

    /// Stops, and returns the bodies that were confirmed.
    pub(crate) async fn stop(mut self) -> BTreeSet<String> {
        self.task.shutdown().await;
        std::mem::take(&mut *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
