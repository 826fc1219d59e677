//! In an `impl` the macro cannot tell where it is; the compiler can.

#![allow(unused)]

use rocketmq::MessageExt;

struct Listener;

impl Listener {
    #[rocketmq::listener(group = "g", topic = "t")]
    async fn associated(message: MessageExt) {}
}

fn main() {}
