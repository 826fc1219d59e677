//! cargo run --example ordered
//!
//! Messages that have to stay in order share a key: those of a key go to one queue, one after the other. Send the next
//! one when the last one has succeeded; other keys need not wait. The example `orderly` is the other side: handlers that
//! keep the order.

use std::env;

use rocketmq::config::Config;
use rocketmq::{App, Error, Message, Result};
use tokio::task::JoinSet;

const STEPS: [&str; 3] = ["created", "paid", "shipped"];

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    // The cluster that NAMESRV_ADDR names, or a server in this process.
    let mut config = Config::default();
    let name_servers = env::var("NAMESRV_ADDR").unwrap_or_else(|_| "embedded".to_owned());
    config.cluster.name_servers = name_servers.parse().map_err(Error::other)?;
    let app = App::builder().config_value(config).start().await?;
    let producer = app.producer("default")?;

    let mut orders = JoinSet::new();
    for order in 1..=5 {
        let producer = producer.clone();
        orders.spawn(async move {
            for step in STEPS {
                let message = Message::new("order-steps").tag(step).body(format!("order {order} {step}"));
                // What fails is not sent to another queue: it may be sent again here, before the next step.
                let sent = producer.send_ordered(message, order.to_string()).await?;
                println!("order {order} {step}: queue {}, offset {}", sent.queue.queue_id, sent.queue_offset);
            }
            Ok::<_, rocketmq::SendError>(())
        });
    }
    while let Some(done) = orders.join_next().await {
        done.map_err(Error::other)??;
    }

    // For another rule than that of the key's hash: choose the queue.
    let by_hand = Message::new("order-steps").body("order 6 created");
    let sent = producer.send_with(by_hand, |queues, _| queues.last()).await?;
    println!("chosen by hand: {}", sent.queue);
    app.shutdown().await
}
