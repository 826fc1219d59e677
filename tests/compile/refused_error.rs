//! An error that cannot be handed on says which ones can.

#![allow(unused)]

use std::error::Error;
use std::rc::Rc;

use rocketmq::MessageExt;

struct NoError;

#[rocketmq::listener(group = "g", topic = "t")]
async fn no_error(message: MessageExt) -> Result<(), NoError> {
    Ok(())
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn bound_to_its_thread(message: MessageExt) -> Result<(), Box<dyn Error>> {
    Ok(())
}

#[rocketmq::listener(group = "g", topic = "t")]
async fn number(message: MessageExt) -> Result<(), u32> {
    Ok(())
}

fn main() {}
