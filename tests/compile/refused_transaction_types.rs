//! What a check cannot take or return is named, at its place.

#![allow(unused)]

use rocketmq::{ConsumeContext, ConsumeResult, MessageExt, Reply, State, Transaction};

struct Pool;

#[rocketmq::transaction(producer = "a")]
async fn batch(messages: Vec<MessageExt>) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "b")]
async fn no_message(context: ConsumeContext, text: State<String>) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "c")]
async fn two_bodies(text: String, again: rocketmq::Bytes) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "d")]
async fn pool(message: MessageExt, pool: Pool) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "e")]
async fn no_result(message: MessageExt) {}

#[rocketmq::transaction(producer = "f")]
async fn listener_result(message: MessageExt) -> Result<ConsumeResult, String> {
    Ok(ConsumeResult::Success)
}

#[rocketmq::transaction(producer = "g")]
async fn reply(message: MessageExt) -> Reply<String> {
    Reply(String::new())
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn the_other_way_round(message: MessageExt) -> Transaction {
    Transaction::Commit
}

fn main() {}
