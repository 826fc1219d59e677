//! State is cloned, by any thread.

#![allow(unused)]

use std::rc::Rc;
use std::sync::Arc;

use rocketmq::{MessageExt, State};

struct NoClone;

#[rocketmq::listener(group = "g", topic = "t")]
async fn no_clone(message: MessageExt, state: State<NoClone>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn no_send(message: MessageExt, state: State<Rc<u32>>) {}

trait Prices {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn of_a_trait(message: MessageExt, state: State<Arc<dyn Prices>>) {}

fn main() {}
