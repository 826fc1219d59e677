//! Of an argument without a type the compiler says what is to be written, and nothing else is said.

#![allow(unused)]

#[rocketmq::listener(group = "g", topic = "t")]
async fn untyped(message) {}

#[rocketmq::transaction(producer = "p")]
async fn check(message) -> rocketmq::Transaction {
    rocketmq::Transaction::Commit
}

fn main() {}
