//! What serde cannot read is named, at its place.

#![allow(unused)]

use rocketmq::Json;

struct NoSerde;

#[rocketmq::listener(group = "g", topic = "t")]
async fn one(value: Json<NoSerde>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn batch(values: Vec<Json<NoSerde>>) {}

fn main() {}
