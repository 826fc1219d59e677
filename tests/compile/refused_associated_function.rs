//! What stands in an `impl` or a `trait` is no free function, also without `self`.

#![allow(unused)]

use rocketmq::{MessageExt, listener};

struct Listener;

impl Listener {
    #[rocketmq::listener(group = "g", topic = "t")]
    async fn associated(message: MessageExt) {}

    #[listener(group = "g", topic = "t")]
    pub async fn imported(message: MessageExt) {}
}

mod inner {
    trait Check {
        #[rocketmq::transaction(producer = "p")]
        async fn check(message: rocketmq::MessageExt) -> rocketmq::Transaction {
            rocketmq::Transaction::Commit
        }
    }
}

fn main() {}
