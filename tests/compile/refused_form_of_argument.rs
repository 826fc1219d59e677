//! Types that are nearly right: what to write in their place.

#![allow(unused)]

use rocketmq::{Json, Message, MessageExt, State};

#[rocketmq::listener(group = "g", topic = "t")]
async fn text(body: &str) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn borrowed(body: &Json<u32>, state: &State<u32>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn mutable(message: &mut MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn optional(body: Option<Json<u32>>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn nested(message: MessageExt, state: State<State<u32>>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn outgoing(message: Message) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn bytes(body: Vec<u8>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn batch(messages: &Vec<MessageExt>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn lasting(message: &'static MessageExt) {}

fn main() {}
