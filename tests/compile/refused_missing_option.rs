//! Group and topic are needed.

#![allow(unused)]

use rocketmq::MessageExt;

#[rocketmq::listener(topic = "t")]
async fn no_group(message: MessageExt) {}

#[rocketmq::listener(group = "g")]
async fn no_topic(message: MessageExt) {}

#[rocketmq::listener]
async fn neither(message: MessageExt) {}

fn main() {}
