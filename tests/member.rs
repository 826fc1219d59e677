//! A program as users write it, for the tests to kill and to stop: one listener and `run()`.

use std::env;
use std::time::Duration;

use rocketmq::{MessageExt, Result};
use tokio::time;

/// Takes its time, then says which message it has handled.
#[rocketmq::listener(group = "${member.group}", topic = "${member.topic}")]
async fn on_message(message: &MessageExt) -> Result<()> {
    let pause = env::var("MEMBER_PAUSE_MS").ok().and_then(|pause| pause.parse().ok()).unwrap_or_default();
    time::sleep(Duration::from_millis(pause)).await;
    println!("{}", message.body_utf8()?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    rocketmq::run().await
}
