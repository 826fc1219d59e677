//! A type that is no argument is named, at its place, with what to do about it.

#![allow(unused)]

use rocketmq::MessageExt;

struct Pool;

#[rocketmq::listener(group = "g", topic = "t")]
async fn pool(message: MessageExt, pool: Pool) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn borrowed(message: MessageExt, pool: &mut Pool) {}

fn main() {}
