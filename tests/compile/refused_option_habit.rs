//! What other languages and libraries have in the place of `name = "value", ...`.

#![allow(unused)]

use rocketmq::{MessageExt, Transaction};

#[rocketmq::listener("g", "t")]
async fn by_order(message: MessageExt) {}

#[rocketmq::listener(group == "g", topic => "t")]
async fn other_signs(message: MessageExt) {}

#[rocketmq::listener(consumer-group = "g", topic = "t")]
async fn of_properties(message: MessageExt) {}

#[rocketmq::listener(group = "g",, topic = "t")]
async fn two_commas(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", orderly(true))]
async fn flag_in_brackets(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", broadcast = true, orderly = false)]
async fn flags_with_values(message: MessageExt) {}

#[rocketmq::listener(group = "g", topics = ["t", "u"])]
async fn topics(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = ["t", "u"])]
async fn topic_list(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", tag = "a" || "b")]
async fn two_tags(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", tag = "a", tag = "b")]
async fn tag_twice(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", orderly, orderly)]
async fn flag_twice(message: MessageExt) {}

#[rocketmq::listener(group = concat!("g", "h"), topic = "t".to_string())]
async fn computed(message: MessageExt) {}

#[rocketmq::listener(group = "$GROUP", topic = "#{topic}")]
async fn other_placeholders(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", consumeTimeout = "15q", timeout = 30, suspend = 5s)]
async fn numbers(message: MessageExt) {}

#[rocketmq::transaction(group = "orders")]
async fn producer_group(message: MessageExt) -> Transaction {
    Transaction::Commit
}

#[rocketmq::transaction(name = "orders")]
async fn producer_name(message: MessageExt) -> Transaction {
    Transaction::Commit
}

fn main() {}
