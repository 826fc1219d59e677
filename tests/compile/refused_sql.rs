//! Words of other languages are not SQL92.

#![allow(unused)]

use rocketmq::MessageExt;

#[rocketmq::listener(group = "g", topic = "t", sql = "amount == 5")]
async fn equal(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", sql = "amount != 5")]
async fn unequal(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", sql = "color = '&&' && amount > 5")]
async fn and(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", sql = "paid || refunded")]
async fn tags(message: MessageExt) {}

fn main() {}
