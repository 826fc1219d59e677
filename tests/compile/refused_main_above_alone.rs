//! And without arguments.

#![allow(unused)]

use rocketmq::MessageExt;

#[tokio::main]
#[rocketmq::listener(group = "g", topic = "t")]
async fn main() {}
