//! `main` starts the program, it is no listener: one error, and none about its arguments.

#![allow(unused)]

use rocketmq::MessageExt;

#[rocketmq::listener(group = "g", topic = "t")]
#[tokio::main]
async fn main(message: MessageExt) {}
