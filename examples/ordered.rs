//! cargo run --example ordered
//!
//! Messages that have to stay in order share a key: those of a key go to one queue, one after the other. Send the next
//! one when the last one has succeeded; other keys need not wait. The example `orderly` is the other side: handlers that
//! keep the order.

use rocketmq::client::MqClientManager;
use rocketmq::embedded::Server;
use rocketmq::{Error, Message, Producer, Result};
use tokio::task::JoinSet;

const STEPS: [&str; 3] = ["created", "paid", "shipped"];

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let server = Server::builder().start().await.map_err(Error::other)?;
    server.create_topic("order-steps", 4).map_err(Error::other)?;
    let manager = MqClientManager::with_name_servers([server.name_server()])?;
    let producer = Producer::builder("orders").build(&manager)?;
    manager.start().await?;

    let mut orders = JoinSet::new();
    for order in 1..=5 {
        let producer = producer.clone();
        orders.spawn(async move {
            for step in STEPS {
                let message = Message::new("order-steps").tag(step).body(format!("order {order} {step}"));
                // What fails is not sent to another queue: it may be sent again here, before the next step.
                producer.send_ordered(message, order.to_string()).await?;
            }
            Ok::<_, rocketmq::SendError>(())
        });
    }
    while let Some(done) = orders.join_next().await {
        done.map_err(Error::other)??;
    }

    let mut messages = server.messages("order-steps");
    messages.sort_by_key(|message| (message.queue_id(), message.queue_offset()));
    for message in &messages {
        println!("queue {} offset {}: {}", message.queue_id(), message.queue_offset(), message.body_str());
    }

    // For another rule than that of the key's hash: choose the queue.
    let by_hand = Message::new("order-steps").body("order 6 created");
    let sent = producer.send_with(by_hand, |queues, _| queues.last()).await?;
    println!("chosen by hand: {}", sent.queue);
    manager.shutdown().await?;
    server.shutdown().await;
    Ok(())
}
