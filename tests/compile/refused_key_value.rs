//! Options stand in brackets. That the compiler knows no other form it says for itself; what to write is said beside it.

#![allow(unused)]

use rocketmq::{MessageExt, Transaction};

#[rocketmq::listener = "g"]
async fn listener(message: MessageExt) {}

#[rocketmq::transaction = "p"]
async fn check(message: MessageExt) -> Transaction {
    Transaction::Commit
}

fn main() {}
