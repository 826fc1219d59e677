//! All mistakes are shown at once, and the function is still there.

#![allow(unused)]

use rocketmq::MessageExt;

#[rocketmq::listener(topics = "t", group = 1, orderly, broadcast, tag = "a |")]
fn everything<T>(message: impl Into<MessageExt>) {}

#[rocketmq::listener(group = "g")]
async fn still_there(message: MessageExt) {}

async fn caller(message: MessageExt) {
    still_there(message).await;
}

fn main() {}
