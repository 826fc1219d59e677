//! A reply is sent when the message is gone.

#![allow(unused)]

use rocketmq::{MessageExt, Reply};

#[rocketmq::listener(group = "g", topic = "t")]
async fn text(message: &MessageExt) -> Reply<&str> {
    Reply("x")
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn bytes(message: &MessageExt) -> Result<Reply<&[u8]>, String> {
    Ok(Reply(message.body()))
}

fn main() {}
