//! cargo run --example delayed
//!
//! Messages that are delivered later: after a delay level, which all brokers know; after a time or at a time, which
//! those of 5.x know. The latter can be taken back before they are delivered.

use std::time::{Duration, Instant, SystemTime};

use rocketmq::client::MqClientManager;
use rocketmq::embedded::Server;
use rocketmq::{ConsumeResult, Error, Message, MessageExt, Producer, PushConsumer, Result};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let server = Server::builder().start().await.map_err(Error::other)?;
    server.create_topic("reminders", 1).map_err(Error::other)?;
    let manager = MqClientManager::with_name_servers([server.name_server()])?;
    let (delivered, mut reminders) = mpsc::channel(16);
    PushConsumer::builder("reminders")
        .subscribe("reminders", "*", move |messages: Vec<MessageExt>| {
            let delivered = delivered.clone();
            async move {
                for message in messages {
                    // The receiver is gone once the program ends.
                    let _ = delivered.send(message.body_str().into_owned()).await;
                }
                ConsumeResult::Success
            }
        })
        .build(&manager)?;
    let producer = Producer::builder("reminders").build(&manager)?;
    manager.start().await?;
    let reminder = |text: &str| Message::new("reminders").body(text.to_owned());
    let start = Instant::now();

    producer.send(reminder("level 1: one second").delay_level(1)).await?;
    producer.send(reminder("after two seconds").delay(Duration::from_secs(2))).await?;
    let in_three = SystemTime::now() + Duration::from_secs(3);
    producer.send(reminder("at a time").deliver_at(in_three)).await?;

    // On Apache's brokers taking back has to be switched on: recallMessageEnable=true.
    let sent = producer.send(reminder("never").delay(Duration::from_secs(2))).await?;
    if let Some(handle) = sent.recall_handle {
        println!("taken back: {}", producer.recall(&handle).await?);
    }

    for _ in 0..3 {
        if let Some(text) = reminders.recv().await {
            println!("{:4.1} s  {text}", start.elapsed().as_secs_f64());
        }
    }
    manager.shutdown().await?;
    server.shutdown().await;
    Ok(())
}
