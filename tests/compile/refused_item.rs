//! What is no function, and functions of other kinds.

#![allow(unused)]

use rocketmq::MessageExt;

struct Listener;

#[rocketmq::listener(group = "g", topic = "t")]
impl Listener {
    async fn on_message(&self, message: MessageExt) {}
}

#[rocketmq::listener(group = "g", topic = "t")]
mod listeners {}

#[rocketmq::listener(group = "g", topic = "t")]
async extern "C" fn foreign(message: MessageExt) {}

fn main() {}
