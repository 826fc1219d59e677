//! cargo run --example producer
//!
//! The ways of sending: one message, many at the same time, several as a batch, one without an answer; and what to make
//! of an error.

use std::env;

use rocketmq::config::Config;
use rocketmq::{App, Error, Message, Result, SendError, SendStatus};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    // The cluster that NAMESRV_ADDR names, or a server in this process.
    let mut config = Config::default();
    let name_servers = env::var("NAMESRV_ADDR").unwrap_or_else(|_| "embedded".to_owned());
    config.cluster.name_servers = name_servers.parse().map_err(Error::other)?;
    let app = App::builder().config_value(config).start().await?;
    let producer = app.producer("default")?;
    let order = |number: u32| {
        Message::new("order-events").tag("paid").key(number.to_string()).body(format!("order {number}"))
    };

    // One message: it is stored when this returns.
    let sent = producer.send(order(1)).await?;
    println!("{} stands in {} at offset {}", sent.message_id, sent.queue, sent.queue_offset);
    if sent.status != SendStatus::SendOk {
        println!("stored, but not as safely as the broker is configured to: {:?}", sent.status);
    }

    // Many at the same time: a producer is shared. Beyond `max_in_flight`, the next one waits for its turn.
    let mut sends = JoinSet::new();
    for number in 2..100 {
        let (producer, message) = (producer.clone(), order(number));
        sends.spawn(async move { producer.send(message).await });
    }
    while let Some(sent) = sends.join_next().await {
        sent.map_err(Error::other)??;
    }

    // Several in one request: all of them are stored, next to each other, or none.
    let sent = producer.send_batch((100..110).map(order)).await?;
    println!("{} messages stand in {} from offset {} on", sent.len(), sent[0].queue, sent[0].queue_offset);

    // Without an answer: for what may be lost.
    producer.send_oneway(order(110)).await?;

    // An error says what was tried, and whether it is worth trying again.
    match producer.send(Message::new("order events").body("x")).await {
        Err(SendError::Message(rule)) => println!("nothing was sent: {rule}"),
        Err(error) if error.is_retryable() => println!("again, later: {error}"),
        other => println!("{other:?}"),
    }

    for (topic, stats) in producer.stats() {
        println!(
            "{topic}: {} sent, {} one way, {:?} on average",
            stats.sent,
            stats.oneway,
            stats.mean_latency()
        );
    }
    // Waits for what is on its way.
    app.shutdown().await
}
