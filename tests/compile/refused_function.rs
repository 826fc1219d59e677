//! A function that cannot be a listener.

#![allow(unused)]

use rocketmq::{FromMessage, MessageExt};

#[rocketmq::listener(group = "g", topic = "t")]
fn blocking(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t")]
async unsafe fn dangerous(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn generic<T: for<'a> FromMessage<'a>>(message: T) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn named_lifetime<'a>(message: &'a MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn opaque(message: impl Into<MessageExt>) {}

#[rocketmq::listener(group = "g", topic = "t")]
struct Listener;

impl Listener {
    #[rocketmq::listener(group = "g", topic = "t")]
    async fn method(&self, message: MessageExt) {}
}

#[rocketmq::listener(group = "g", topic = "t")]
const fn constant(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t")]
const async fn constant_and_async(message: MessageExt) {}

fn main() {}
