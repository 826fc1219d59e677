//! Annotate a function, call `run`, receive messages.
#![allow(dead_code, missing_docs, unused_imports)]

pub mod message;
mod protocol;
mod remoting;
mod tasks;
pub use message::{Message, MessageExt, MessageQueue};
