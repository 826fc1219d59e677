//! An option that is not written as it must be.

#![allow(unused)]

use rocketmq::MessageExt;

const GROUP: &str = "g";

#[rocketmq::listener(group = GROUP, topic = 1, tag)]
async fn no_strings(message: MessageExt) {}

#[rocketmq::listener("g", topic = "t")]
async fn no_name(message: MessageExt) {}

#[rocketmq::listener(group = , topic = "t")]
async fn no_value(message: MessageExt) {}

#[rocketmq::listener(group("g"), topic: "t")]
async fn no_equals(message: MessageExt) {}

#[rocketmq::listener(group = "g" topic = "t")]
async fn no_comma(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", orderly = true)]
async fn no_flag(message: MessageExt) {}

fn main() {}
