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

#[rocketmq::listener(group = "g", topic = "t")]
async fn lent_bytes(body: &[u8]) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn lent_bodies(bodies: &[Json<u32>]) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn lent_one_by_one(messages: Vec<&MessageExt>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn shared(message: std::sync::Arc<MessageExt>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn lasting_state(message: MessageExt, state: &'static Pool) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn producers(message: MessageExt, producers: &rocketmq::Producers) {}

#[rocketmq::transaction(producer = "p")]
async fn check(message: Option<MessageExt>) -> rocketmq::Transaction {
    rocketmq::Transaction::Commit
}

struct Pool;

fn main() {}
