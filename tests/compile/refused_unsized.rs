//! What has no size is no argument: the error says in what it has one, and the compiler says nothing of sizes.

#![allow(unused)]

use rocketmq::{Json, MessageExt, State};

trait Prices: Send + Sync {
    fn of(&self, id: u32) -> u32;
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn state_of_a_trait(message: MessageExt, prices: State<dyn Prices>) {
    prices.0.of(1);
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn taken_apart(message: MessageExt, State(prices): State<dyn Prices + Send>) {
    prices.of(1);
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn text(message: MessageExt, State(text): State<str>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn slice(message: MessageExt, State(numbers): State<[u32]>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn json(Json(text): Json<str>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn batch(messages: [MessageExt]) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn no_state(message: MessageExt, prices: dyn Prices) {}

#[rocketmq::transaction(producer = "p")]
async fn check(message: MessageExt, prices: State<dyn Prices>) -> rocketmq::Transaction {
    rocketmq::Transaction::Commit
}

fn main() {}
