//! The library is not where it is said to be.

#![allow(unused)]

use rocketmq::{Json, MessageExt, State};

#[rocketmq::listener(group = "g", topic = "t", crate = "company::queue")]
async fn elsewhere(Json(number): Json<u32>, message: MessageExt, State(state): State<u32>) -> Result<(), String> {
    Ok(())
}

#[rocketmq::listener(group = "g", topic = "t", crate = "std")]
async fn another(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", crate = 7)]
async fn number(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", crate = "a b")]
async fn no_path(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", crate)]
async fn nothing(message: MessageExt) {}

fn main() {}
