//! Options that exclude each other.

#![allow(unused)]

use rocketmq::MessageExt;

#[rocketmq::listener(group = "g", topic = "t", tag = "a", sql = "b = 1")]
async fn tag_and_sql(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", orderly, broadcast)]
async fn orderly_and_broadcast(message: MessageExt) {}

fn main() {}
