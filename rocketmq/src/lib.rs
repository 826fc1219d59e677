//! Annotate a function, call [`run`], receive messages.

mod app;
pub mod client;
pub mod config;
mod consumer;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod listener;
mod manager;
pub mod message;
mod producer;
mod protocol;
mod remoting;
mod tasks;

pub use app::{App, AppBuilder, check, run};
pub use bytes::Bytes;
pub use config::Config;
pub use consumer::{Conflict, PushConsumer, PushConsumerBuilder};
pub use error::{Error, Result};
pub use listener::{
    BadPayload, ConsumeConcurrentlyResult, ConsumeConcurrentlyStatus, ConsumeContext, ConsumeResult,
    DelayLevel, DelayLevelError, Delivery, ExpressionType, Filter, FilterError, FromMessage,
    IntoConsumeResult, Json, Next, Outcome, Shape, State, StateKey,
};
pub use message::{Message, MessageExt, MessageQueue};
pub use producer::{Producer, ProducerBuilder, SendError, SendResult, SendStatus};
pub use protocol::{RequestCode, ResponseCode};
pub use remoting::RequestError;
pub use rocketmq_macros::listener;

/// What code written by `#[listener]` calls. Not public API.
#[doc(hidden)]
pub mod __private {
    pub use crate::listener::{Argument, Arguments, FromMessage, IntoConsumeResult, ListenerDef, Outcome};
    pub use inventory;
    pub use std::boxed::Box;
    pub use std::option::Option;
    pub use std::result::Result;
    pub use std::{concat, file, line, module_path};
}
