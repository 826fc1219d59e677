//! Apache RocketMQ, declared: annotate a function, call [`run`], receive messages.
//!
//! ```no_run
//! use rocketmq::{MessageExt, Result};
//!
//! #[rocketmq::listener(group = "testGroup", topic = "testTopic", tag = "*")]
//! async fn on_message(message: MessageExt) -> Result<()> {
//!     println!("{}", message.body_utf8()?);
//!     Ok(())
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<()> {
//!     rocketmq::run().await
//! }
//! ```
//!
//! [`run`] reads `rocketmq.yaml` ([`config`]), collects the annotated listeners of the program, checks everything, and
//! starts a consumer for each group. [`App`] does the same for programs that have more to do; [`client`] has the
//! manager for those that put [`PushConsumer`] and [`Producer`] together by hand. With `name_servers: embedded` the
//! server is in the process ([`embedded`]).
//!
//! # Handlers
//!
//! A listener takes what it needs, in any order: the message ([`MessageExt`], by value or by reference), its decoded body
//! ([`Json`], [`String`], [`Bytes`]), a batch (`Vec` of these), [`State`], [`ConsumeContext`], the [`Producer`] or one of
//! the [`Producers`], or any type of yours that is [`FromMessage`]. It returns `()`, a [`ConsumeResult`], a [`Reply`] to who
//! asked, or a `Result` of these with any error; see [`IntoConsumeResult`]. A message is acknowledged when its handler
//! has finished, never before. The options of [`listener`] say which messages, and in which way: `orderly`, `broadcast`.
//! What runs around each delivery is an [`around`](AppBuilder::around).
//!
//! # Sending
//!
//! [`Producer`] has a method for each way: [`send`](Producer::send), in order, as a batch, one way, later, as a
//! [request](Producer::request) that is answered, or in a [transaction](Producer::send_in_transaction), whose fate a function
//! with [`transaction`] tells the brokers that ask.
//!
//! # Operating
//!
//! [`config`] has a table of every key. [`App::stats`], [`App::health`], the status page (feature `health`), message traces
//! ([`Tracer`]) and Apache's own tools show what a process does.
//!
//! # The route of a message
//!
//! Bytes come off a socket (`remoting`), become commands (`protocol`) and messages that share their memory
//! ([`message`]); a task for each owned queue holds them and hands them over (`consumer`), a listener of yours handles
//! them (`listener`), and what came of it decides which offset is stored. A sent message goes the other way
//! (`producer`).
//!
//! # Features
//!
//! - `embedded` (default): a name server and broker in this process, for development and tests.
//! - `health`: the status page (`health.listen`): `/livez`, `/readyz`, `/metrics` for Prometheus.
//! - `testing`: the kit for the tests of an application ([`testing`]); for `dev-dependencies`.
//! - `tls`: TLS on the connections to name servers and brokers.

mod app;
pub mod client;
mod clock;
pub mod config;
mod consumer;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod listener;
mod manager;
#[cfg_attr(
    not(feature = "embedded"),
    allow(dead_code, unused_imports, reason = "half of it is the server's")
)]
pub mod message;
mod producer;
#[cfg_attr(
    not(feature = "embedded"),
    allow(dead_code, unused_imports, reason = "half of it is the server's")
)]
mod protocol;
#[cfg_attr(
    not(feature = "embedded"),
    allow(dead_code, unused_imports, reason = "half of it is the server's")
)]
mod remoting;
mod sql;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;

pub use app::{App, AppBuilder, GroupHealth, Health, check, run};
pub use bytes::Bytes;
pub use config::Config;
pub use consumer::allocate;
pub use consumer::{
    Conflict, ConsumeHook, ConsumeStats, ConsumeStatus, Consumed, Consuming, FilterHook, Filtering,
    LitePullConsumer, LitePullConsumerBuilder, LitePullError, Messages, PushConsumer, PushConsumerBuilder,
    QueueChange,
};
pub use error::{Error, Result};
pub use listener::{
    BadPayload, ConsumeConcurrentlyResult, ConsumeConcurrentlyStatus, ConsumeContext, ConsumeResult,
    DelayLevel, DelayLevelError, Delivery, ExpressionType, Filter, FilterError, FromMessage,
    IntoConsumeResult, IntoReply, Json, Next, Outcome, Reply, Shape, State, StateKey,
};
pub use message::{Message, MessageExt, MessageQueue};
pub use producer::{
    BrokerFeature, EndingTransaction, IntoTransaction, Producer, ProducerBuilder, Producers,
    RequestReplyError, SendError, SendHook, SendResult, SendStatus, Sending, TopicStats, Transaction,
    TransactionSendResult,
};
pub use protocol::{RequestCode, ResponseCode};
pub use remoting::RequestError;
pub use rocketmq_macros::{listener, transaction};
pub use trace::Tracer;

/// What code written by `#[listener]` and `#[transaction]` calls. Not public API.
#[doc(hidden)]
pub mod __private {
    pub use crate::listener::{Argument, Arguments, FromMessage, IntoConsumeResult, ListenerDef, Outcome};
    pub use crate::producer::{CheckArguments, IntoTransaction, TransactionDef, undecided};
    pub use inventory;
    pub use std::boxed::Box;
    pub use std::option::Option;
    pub use std::result::Result;
    pub use std::{concat, file, line, module_path};
}
