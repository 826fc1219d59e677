//! One message and a batch do not go together, and an alias does not hide it.

#![allow(unused)]

use rocketmq::{Json, MessageExt};

type Rows = Vec<Json<u32>>;

#[rocketmq::listener(group = "g", topic = "t")]
async fn mixed(message: &MessageExt, rows: Rows) {}

fn main() {}
