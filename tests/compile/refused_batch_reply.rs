//! A reply answers one message: there is nobody to whom that to a batch could go.

#![allow(unused)]

use rocketmq::{MessageExt, Reply};

#[rocketmq::listener(group = "g", topic = "t")]
async fn batch(messages: Vec<MessageExt>) -> Result<Reply<String>, String> {
    Ok(Reply(String::new()))
}

#[rocketmq::listener(group = "g", topic = "u")]
async fn number(message: MessageExt) -> Reply<u32> {
    Reply(1)
}

fn main() {}
