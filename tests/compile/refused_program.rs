//! What is run by itself is no listener, whichever attribute stands above the other.

#![allow(unused)]

use rocketmq::{MessageExt, Transaction};

#[rocketmq::listener(group = "g", topic = "t")]
#[tokio::main]
async fn program_below(message: MessageExt) {}

#[tokio::main]
#[rocketmq::listener(group = "g", topic = "t")]
async fn program_above(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t")]
#[tokio::main(flavor = "current_thread")]
async fn with_options(message: MessageExt, text: &str) {}

#[rocketmq::listener(group = "g", topic = "t")]
#[tokio::test]
async fn test_below(message: MessageExt) {}

#[tokio::test]
#[rocketmq::listener(group = "g", topic = "t")]
async fn test_above(message: MessageExt) {}

#[rocketmq::transaction(producer = "p")]
#[tokio::main]
async fn check(message: MessageExt) -> Transaction {
    Transaction::Commit
}

fn main() {}
