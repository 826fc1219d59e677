//! A type that is no result is named, at its place.

#![allow(unused)]

use rocketmq::MessageExt;

#[rocketmq::listener(group = "g", topic = "t")]
async fn number(message: MessageExt) -> u32 {
    1
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn number_or_error(message: MessageExt) -> Result<u32, String> {
    Ok(1)
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn truth(message: MessageExt) -> bool {
    true
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn optional(message: MessageExt) -> Option<()> {
    Some(())
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn opaque(message: MessageExt) -> impl std::fmt::Display {
    "done"
}

fn main() {}
