//! An option that there is not: what was meant, or where it belongs.

#![allow(unused)]

use rocketmq::MessageExt;

#[rocketmq::listener(group = "g", topic = "t", tags = "a")]
async fn near(message: MessageExt) {}

#[rocketmq::listener(consumer_group = "g", topic = "t")]
async fn near_and_missing(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", color = "red")]
async fn far(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", concurrency = 20)]
async fn in_the_file(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", mode = "pop", rate_limit = "100/s")]
async fn also_in_the_file(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", topic = "u")]
async fn twice(message: MessageExt) {}

fn main() {}
