//! Of what a generic function takes and returns nothing is known: that it is generic is its one mistake.

#![allow(unused)]

use rocketmq::{MessageExt, State, Transaction};

struct Pool;

#[rocketmq::listener(group = "g", topic = "t")]
async fn with_a_wrong_type<T>(message: T, pool: Pool) -> u32 {
    1
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn with_a_form_that_is_none<T: Clone>(message: &mut T, text: &str, state: Option<State<T>>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn with_an_opaque_type<T>(message: impl Into<T>) {}

#[rocketmq::listener(group = "g", topic = "t")]
async fn of_a_number<const N: usize>(messages: [MessageExt; N]) {}

#[rocketmq::listener(group = "g", topic = "t")]
#[rocketmq::listener(group = "g", topic = "u")]
async fn twice<T>(message: T) {}

#[rocketmq::transaction(producer = "p")]
async fn check<T>(message: T, text: &str) -> T {
    message
}

struct Listener<T>(T);

impl<T> Listener<T> {
    #[rocketmq::listener(group = "g", topic = "t")]
    async fn method<U>(&self, message: U, text: &str) {}
}

fn main() {}
