//! A body is decoded once.

#![allow(unused)]

use rocketmq::Json;

#[rocketmq::listener(group = "g", topic = "t")]
async fn two_bodies(number: Json<u32>, text: String) {}

fn main() {}
