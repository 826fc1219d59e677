//! cargo run --example quickstart
//!
//! One listener, and a producer that gives it something to do. With the `rocketmq.yaml` of this repository both talk to
//! the embedded server, so that nothing has to be installed; `NAMESRV_ADDR=host:9876` lets them talk to a cluster.

use std::time::Duration;

use rocketmq::{App, Message, MessageExt, Result};
use tokio::time;

#[rocketmq::listener(group = "testGroup", topic = "testTopic", tag = "*")]
async fn on_message(message: MessageExt) -> Result<()> {
    let (queue, offset) = (message.queue_id(), message.queue_offset());
    println!("received {:?} (queue {queue}, offset {offset})", message.body_utf8()?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let app = App::builder().start().await?;
    let producer = app.producer("default")?;
    println!("sending three messages a second; Ctrl-C stops");
    let mut pace = time::interval(Duration::from_millis(333));
    for number in 1_u64.. {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = pace.tick() => {}
        }
        let greeting = Message::new("testTopic").tag("greeting").body(format!("hello number {number}"));
        if let Err(error) = producer.send(greeting).await {
            println!("{:?}", rocketmq::Error::from(error));
        }
    }
    app.shutdown().await
}
