//! What the library promises: each behaviour once, on the embedded server and on Apache RocketMQ 5.5.0 and 4.9.7.
//!
//! A case is an `async fn(Server) -> Result<()>`; [`on_each_server!`](server) makes three tests of it. Every case counts
//! what was sent against what was handled, and waits for conditions, with a deadline.

#[macro_use]
mod server;
mod fake;
mod log;
mod program;
mod pulled;
mod scripted;
mod seen;
mod sending;
mod wait;

mod attempts;
mod batches;
mod broadcast;
mod consume;
mod damage;
mod declare;
mod delays;
mod faults;
mod filters;
mod flow;
mod java_client;
mod lite_pull;
mod members;
mod operate;
mod orderly;
mod pop;
mod pop_java;
mod produce;
mod producers;
mod replies;
mod retry;
mod rpc_hooks;
mod secured;
mod send_ways;
mod shutdown;
mod slaves;
mod start;
mod status;
mod strategies;
mod subscribe;
mod traces;
mod transactions;
