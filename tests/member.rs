//! A program as users write it, for the tests to kill and to stop: one listener and `run()`.

use std::env;
use std::time::Duration;

use rocketmq::{MessageExt, Result};
use tokio::time;

/// Says which message it begins with, takes its time, then says which one it has handled.
#[rocketmq::listener(group = "${member.group}", topic = "${member.topic}")]
async fn on_message(message: &MessageExt) -> Result<()> {
    let pause = env::var("MEMBER_PAUSE_MS").ok().and_then(|pause| pause.parse().ok()).unwrap_or_default();
    println!("begin {}", message.body_utf8()?);
    time::sleep(Duration::from_millis(pause)).await;
    println!("{}", message.body_utf8()?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    rocketmq::run().await
}
