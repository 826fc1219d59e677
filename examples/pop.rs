//! cargo run --example pop
//!
//! POP (5.x brokers): messages are handed out one by one, to any member of the group, and each is acknowledged. Two
//! members share a topic with a single queue; one of them is slow, and the other one does what it does not get to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rocketmq::client::MqClientManager;
use rocketmq::config::{ConsumeFrom, ConsumeMode, ConsumerConfig};
use rocketmq::embedded::Server;
use rocketmq::{ConsumeResult, Error, Message, MessageExt, Producer, PushConsumer, Result};
use tokio::time;

const MESSAGES: u32 = 12;

/// A member of the group, with a client of its own as in a process of its own.
async fn join(
    server: &Server,
    name: &'static str,
    pause: Duration,
    handled: &Arc<AtomicU32>,
) -> Result<MqClientManager> {
    let manager = MqClientManager::with_name_servers([server.name_server()])?;
    let mut config = ConsumerConfig::default();
    // In a file: `mode: pop`.
    config.mode = ConsumeMode::Pop;
    config.consume_from = ConsumeFrom::First;
    config.concurrency = 1;
    config.pop.batch = 1;
    let handled = Arc::clone(handled);
    PushConsumer::builder("workers")
        .config(config)
        .subscribe("jobs", "*", move |messages: Vec<MessageExt>| {
            let handled = Arc::clone(&handled);
            async move {
                time::sleep(pause).await;
                println!("{name}: {} is done", messages[0].body_str());
                handled.fetch_add(1, Ordering::Relaxed);
                ConsumeResult::Success
            }
        })
        .build(&manager)?;
    manager.start().await?;
    Ok(manager)
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let server = Server::builder().start().await.map_err(Error::other)?;
    server.create_topic("jobs", 1).map_err(Error::other)?;
    let handled = Arc::new(AtomicU32::new(0));
    let slow = join(&server, "slow", Duration::from_secs(2), &handled).await?;
    let quick = join(&server, "quick", Duration::from_millis(200), &handled).await?;

    let sender = MqClientManager::with_name_servers([server.name_server()])?;
    let producer = Producer::builder("sender").build(&sender)?;
    sender.start().await?;
    for number in 1..=MESSAGES {
        producer.send(Message::new("jobs").body(format!("job {number}"))).await?;
    }
    while handled.load(Ordering::Relaxed) < MESSAGES {
        time::sleep(Duration::from_millis(50)).await;
    }
    slow.shutdown().await?;
    quick.shutdown().await?;
    sender.shutdown().await?;
    server.shutdown().await;
    Ok(())
}
