//! cargo run --example manual
//!
//! The same without annotations and without a file: a manager is made from a client configuration, a consumer from a
//! consumer configuration; the consumer subscribes, gets a listener and is registered at the manager, which is started.

use rocketmq::client::MqClientManager;
use rocketmq::config::{ConsumeFrom, ConsumerConfig};
use rocketmq::embedded::Server;
use rocketmq::{
    ConsumeConcurrentlyResult, ConsumeConcurrentlyStatus, Message, Producer, PushConsumer, Result,
};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let server = Server::builder().start().await.map_err(rocketmq::Error::other)?;
    let manager = MqClientManager::with_name_servers([server.name_server()])?;

    let mut config = ConsumerConfig::default();
    config.consume_from = ConsumeFrom::First;
    config.batch = 4;
    let consumer = PushConsumer::builder("testGroup").config(config).create()?;
    consumer.subscribe("testTopic", "*").await?;
    let (handled, mut seen) = mpsc::channel(16);
    consumer.register_message_listener(move |messages| {
        let handled = handled.clone();
        async move {
            for message in &messages {
                println!("received {:?}", message.body_str());
                // The receiver is gone once the program ends.
                let _ = handled.send(()).await;
            }
            ConsumeConcurrentlyResult {
                status: ConsumeConcurrentlyStatus::ConsumeSuccess,
                ack_index: messages.len() as i32 - 1,
            }
        }
    })?;
    manager.register_consumer(&consumer)?;
    let producer = Producer::builder("testProducer").build(&manager)?;
    manager.start().await?;

    for number in 1..=10 {
        let sent = producer
            .send(Message::new("testTopic").key(number.to_string()).body(format!("hello number {number}")))
            .await?;
        println!("sent {} to {}", sent.message_id, sent.queue);
    }
    for _ in 1..=10 {
        seen.recv().await;
    }
    manager.shutdown().await?;
    server.shutdown().await;
    Ok(())
}
