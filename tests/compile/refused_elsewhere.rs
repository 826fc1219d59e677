//! The words of the Java client and of Spring: what they are called here, or where they are.

#![allow(unused)]

use rocketmq::MessageExt;

#[rocketmq::listener(consumerGroup = "g", topic = "t", selectorExpression = "a")]
async fn group_and_selector(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", messageModel = MessageModel::BROADCASTING, consumeMode = "ORDERLY")]
async fn modes(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t", consumeThreadMax = 64, maxReconsumeTimes = 3, nameServer = "a:1")]
async fn numbers(message: MessageExt) {}

fn main() {}
