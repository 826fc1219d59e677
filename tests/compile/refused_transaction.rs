//! A check that cannot be one: its options and its function.

#![allow(unused)]

use rocketmq::{MessageExt, Transaction};

#[rocketmq::transaction]
async fn no_producer(message: MessageExt) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producr = "orders")]
async fn near(message: MessageExt) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "orders", color = "red")]
async fn far(message: MessageExt) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "orders", timeout = "1m")]
async fn in_the_file(message: MessageExt) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "orders", producer = "bills")]
async fn twice(message: MessageExt) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "")]
async fn empty(message: MessageExt) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = ORDERS)]
async fn no_text(message: MessageExt) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction("orders")]
async fn no_name(message: MessageExt) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "orders")]
fn blocking(message: MessageExt) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "orders")]
async fn generic<T: for<'a> rocketmq::FromMessage<'a>>(message: T) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "orders")]
async fn nothing() -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(producer = "orders")]
struct Check;

impl Check {
    #[rocketmq::transaction(producer = "orders")]
    async fn method(&self, message: MessageExt) -> Transaction {
        Transaction::Commit
    }
}

fn main() {}
