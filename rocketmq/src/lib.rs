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
//! server is in the process ([`embedded`](#features)).
//!
//! # From nothing to a tested consumer
//!
//! ```sh
//! cargo add rocketmq
//! cargo add tokio --features full
//! cargo add rocketmq --dev --features testing
//! ```
//!
//! The program above is `src/main.rs`. Beside `Cargo.toml` stands its `rocketmq.yaml`, for which one line is enough:
//!
//! ```yaml
//! name_servers: ${NAMESRV_ADDR:embedded}    # in production NAMESRV_ADDR=10.0.0.1:9876;10.0.0.2:9876
//! ```
//!
//! `cargo run` starts it, and Ctrl-C or SIGTERM stops it when its handlers have finished. What it does, and why a message comes
//! again, is logged with [`tracing`](https://docs.rs/tracing): nothing is seen of it without a subscriber, such as
//! `tracing_subscriber::fmt::init()` at the beginning of `main`. A test delivers a message to the listener, on a server of its
//! own and with time that can be moved ([`testing`](#features)):
//!
#![cfg_attr(feature = "testing", doc = "```standalone_crate")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use rocketmq::{ConsumeResult, Message, testing};
//!
//! # #[rocketmq::listener(group = "testGroup", topic = "testTopic", tag = "*")]
//! # async fn on_message(message: rocketmq::MessageExt) -> rocketmq::Result<()> {
//! #     message.body_utf8()?;
//! #     Ok(())
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() { a_message_is_handled().await }
//! # /*
//! #[tokio::test]
//! # */
//! async fn a_message_is_handled() {
//!     let app = testing::App::builder().start().await.unwrap();
//!     let delivered = app.deliver(Message::new("testTopic").body("hello")).await;
//!     assert_eq!(delivered.only(), ConsumeResult::Success);
//!
//!     app.deliver(Message::new("testTopic").body(vec![0xff])).await; // no text: the handler fails
//!     app.advance(std::time::Duration::from_secs(60)).await; // and has it again after 10 s, then 30 s
//!     assert_eq!(app.attempts("testGroup"), 4);
//! }
//! ```
//!
//! From here on: let the handler take what it needs (below), give it [state](AppBuilder::state), and say in the file how many of
//! a group run at once, how often a message is tried, what a bad payload becomes ([`config`] has a table of every key).
//!
//! # Handlers
//!
//! A listener takes what it needs, in any order, and returns what came of it. A message is acknowledged when its handler has
//! finished, never before; an error or a panic lets it come again, by the policy of its group.
//!
//! | Argument | Gives |
//! |---|---|
//! | [`MessageExt`], `&MessageExt` | the message |
//! | [`Json<T>`](Json), [`String`], [`Bytes`] | its body, decoded; where that fails, `on_bad_payload` decides |
//! | `Vec` of these, `&[MessageExt]` | a batch, of at most the group's `batch` |
//! | [`State<T>`](State) | a value that was given to the [builder](AppBuilder::state); a missing one stops the start |
//! | [`ConsumeContext`] | group, topic, queue, attempt, times, the signal to stop |
//! | [`Producer`], [`Producers`] | the default producer, all of them by name |
//! | `Result<T, `[`BadPayload`]`>` | any of these, or why it cannot be had |
//! | a type of yours | whatever [`FromMessage`] takes out of the message |
//!
//! | Result | Means |
//! |---|---|
//! | `()` | done |
//! | [`ConsumeResult`] | done, again later, a dead letter, the first so many of a batch are done |
//! | [`Reply<T>`](Reply) | the answer to a [request](Producer::request) |
//! | `Result` of these | `Err` with any error: again later |
//! | a type of yours | whatever [`IntoConsumeResult`] makes of it |
//!
//! The options of [`listener`] say which messages, and in which way: `tag`, `sql`, `orderly`, `broadcast`, `cluster`. What runs
//! around each delivery, such as a timeout, a trace or a rate limit, is an [`around`](AppBuilder::around).
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
//! - `embedded` (default): a name server and broker in this process, `rocketmq::embedded`, for development and tests.
//! - `health`: the status page (`health.listen`): `/livez`, `/readyz`, `/metrics` for Prometheus.
//! - `testing`: the kit for the tests of an application, `rocketmq::testing`; for `dev-dependencies`.
//! - `tls`: TLS on the connections to name servers and brokers.
//! - `zstd`: sending bodies compressed with zstd (`compression: zstd`), by the library in C; they are read without it.

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

pub use app::{App, AppBuilder, GroupHealth, Health, Listener, check, run};
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
pub use remoting::{RequestError, RpcAnswer, RpcCall, RpcHook, RpcRequest};
pub use rocketmq_macros::{listener, transaction};
pub use trace::Tracer;

/// What code written by `#[listener]` and `#[transaction]` calls. Not public API.
#[doc(hidden)]
pub mod __private {
    pub use crate::listener::{
        Argument, Arguments, FromMessage, IntoConsumeResult, IntoError, ListenerDef, Needs, Outcome,
        SharedState,
    };
    pub use crate::producer::{CheckArguments, IntoTransaction, TransactionDef, undecided};
    pub use inventory;
    pub use std::boxed::Box;
    pub use std::option::Option;
    pub use std::result::Result;
    pub use std::{concat, file, line, module_path};
}
