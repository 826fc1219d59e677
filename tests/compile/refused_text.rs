//! A text that a broker would refuse, or that no message could match.

#![allow(unused)]

use rocketmq::MessageExt;

#[rocketmq::listener(group = "", topic = "order events", tag = "paid | refunded")]
async fn names(message: MessageExt) {}

#[rocketmq::listener(
    group = "g1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901",
    topic = "订单",
    tag = "paid || *"
)]
async fn longer_names(message: MessageExt) {}

#[rocketmq::listener(group = "${GROUP", topic = "${:t}", tag = "${TAG:${OTHER}}", cluster = "")]
async fn placeholders(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", tag = "a b")]
async fn words(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", sql = " ")]
async fn sql(message: MessageExt) {}

fn main() {}
