//! A listener may be moved between threads at each `await`.

#![allow(unused)]

use std::rc::Rc;

use rocketmq::MessageExt;

#[rocketmq::listener(group = "g", topic = "t")]
async fn not_send(message: MessageExt) {
    let number = Rc::new(1);
    tokio::task::yield_now().await;
    drop((message, number));
}

fn main() {}
