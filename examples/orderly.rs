//! cargo run --example orderly
//!
//! In order: the messages of a queue are handled one after the other, each until it succeeds. A message that fails holds up
//! its own queue, which pauses and goes on with the same message; the other queues do not wait for it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rocketmq::config::{Config, ConsumeFrom, NameServers};
use rocketmq::{App, ConsumeContext, Error, Message, MessageExt, Result};
use tokio::time;

static HANDLED: AtomicU32 = AtomicU32::new(0);

#[rocketmq::listener(group = "ledger", topic = "transfers", orderly)]
async fn on_transfer(message: &MessageExt, context: ConsumeContext) -> Result<()> {
    let (transfer, queue, attempt) = (message.body_utf8()?, message.queue_id(), context.attempt());
    if transfer == "transfer 5" && attempt < 3 {
        println!("queue {queue}: {transfer}, attempt {attempt}: the account is closed for the moment");
        return Err(Error::other("closed"));
    }
    println!("queue {queue}: {transfer}, attempt {attempt}: booked");
    HANDLED.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let mut config = Config::default();
    config.cluster.name_servers = NameServers::Embedded;
    config.defaults.consume_from = ConsumeFrom::First;
    config.defaults.suspend = Duration::from_millis(500);
    let app = App::builder().config_value(config).start().await?;

    let producer = app.producer("default")?;
    for number in 1..=24 {
        // A producer goes through the queues in turn.
        let sent = producer.send(Message::new("transfers").body(format!("transfer {number}"))).await?;
        println!("queue {}: transfer {number} sent", sent.queue.queue_id);
    }
    while HANDLED.load(Ordering::Relaxed) < 24 {
        time::sleep(Duration::from_millis(100)).await;
    }
    app.shutdown().await
}
