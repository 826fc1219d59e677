//! cargo run --example lite_pull
//!
//! For those who want to ask for messages themselves: a lite pull consumer is polled. What a poll returned counts as
//! consumed when the caller polls again, or says `commit`. Any place in a queue may be sought.

use std::time::Duration;

use rocketmq::client::MqClientManager;
use rocketmq::config::{ConsumeFrom, LitePullConfig};
use rocketmq::embedded::Server;
use rocketmq::{LitePullConsumer, Message, Producer, Result};

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let server = Server::builder().start().await.map_err(rocketmq::Error::other)?;
    server.create_topic("testTopic", 2).map_err(rocketmq::Error::other)?;
    let manager = MqClientManager::with_name_servers([server.name_server()])?;

    let mut config = LitePullConfig::default();
    config.consume_from = ConsumeFrom::First;
    config.auto_commit = false;
    let mut consumer = LitePullConsumer::builder("testGroup").config(config).build(&manager)?;
    consumer.subscribe("testTopic", "*").await?;
    let producer = Producer::builder("testProducer").build(&manager)?;
    manager.start().await?;
    for number in 1..=10 {
        producer.send(Message::new("testTopic").body(format!("hello number {number}"))).await?;
    }

    // As batches, each of one queue.
    let mut count = 0;
    while count < 10 {
        let messages = consumer.poll(Duration::from_secs(5)).await?;
        for message in &messages {
            println!("polled {:?} of {}", message.body_str(), message.message_queue());
        }
        count += messages.len();
        consumer.commit().await?;
    }

    // Once more from the beginning, as a stream.
    for queue in consumer.assignment() {
        println!("{queue}: committed {:?}", consumer.committed(&queue).await?);
        consumer.seek_to_begin(&queue).await?;
    }
    let mut messages = consumer.messages()?;
    for _ in 1..=10 {
        if let Some(message) = messages.next().await {
            println!("streamed {:?} of {}", message.body_str(), message.message_queue());
        }
    }
    manager.shutdown().await?;
    server.shutdown().await;
    Ok(())
}
