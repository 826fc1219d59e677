//! A listener takes the message, even if it does not look at it.

#![allow(unused)]

use rocketmq::{ConsumeContext, State};

#[rocketmq::listener(group = "g", topic = "t")]
async fn nothing() {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn only_state(State(number): State<u32>, context: ConsumeContext) {}

fn main() {}
