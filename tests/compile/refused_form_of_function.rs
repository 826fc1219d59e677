//! Functions that other frameworks take.

#![allow(unused)]

use std::future::Future;
use std::pin::Pin;

use rocketmq::{Json, MessageExt, State};

#[rocketmq::listener(group = "g", topic = "t")]
fn future(message: MessageExt) -> impl Future<Output = ()> {
    async {}
}

#[rocketmq::listener(group = "g", topic = "t")]
fn boxed(message: MessageExt) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async {})
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn tuple((Json(number), State(text)): (Json<u32>, State<String>)) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn nothing_of_the_message(topic: &'static str, attempt: u32) {}

#[rocketmq::listener(group = "g", topic = "t", tag = ["a", "b"])]
async fn list(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "a,b")]
async fn two_topics(message: MessageExt) {}

#[rocketmq::listener(group = "g", topic = "t")]
const LISTENER: u32 = 1;

#[rocketmq::listener(group = "g", topic = "t")]
trait Listener {
    async fn on_message(&self, message: MessageExt);
}

fn main() {}
