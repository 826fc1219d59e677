//! The same with the attributes the other way round. That `main` has arguments tokio says for itself.

#![allow(unused)]

use rocketmq::MessageExt;

#[tokio::main]
#[rocketmq::listener(group = "g", topic = "t")]
async fn main(message: MessageExt) {}
