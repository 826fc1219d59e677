//! `main` is no listener without `#[tokio::main]`, either.

#![allow(unused)]

use rocketmq::MessageExt;

#[rocketmq::listener(group = "g", topic = "t")]
async fn main(message: MessageExt) {}
