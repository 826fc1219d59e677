//! A name server and a broker in this process, for development and tests: never for production.
//!
//! Everything is in memory and on loopback, and gone when the [`Server`] is: but clients, this crate's and Apache's
//! own, speak to it over the same protocol as to a real one.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), rocketmq::embedded::ServerError> {
//! use std::time::Duration;
//!
//! use rocketmq::embedded::Server;
//!
//! let server = Server::builder()
//!     .queues(4)
//!     // Messages that are delivered again come back after milliseconds, not minutes.
//!     .delay_levels([10, 20, 50, 100].map(Duration::from_millis))
//!     .start()
//!     .await?;
//! server.create_topic("orders", 4)?;
//! println!("rocketmq.name-server: {}", server.name_server());
//!
//! // … produce, consume, and look at what is left:
//! assert!(server.messages("orders").is_empty());
//! assert_eq!(server.dead_letters("orders-group"), 0);
//!
//! // A broker that is killed, and one that comes back with its store.
//! server.stop_broker().await;
//! server.start_broker().await?;
//!
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! What a request passes on its way in: [`endpoint`] (a port and its connections), [`broker`] (which request is
//! which), then one lock around [`state`]; what the state decided is carried out after the lock is free
//! ([`effects`]). [`sending`], [`retrying`], [`pulling`], [`popping`] and [`assigning`] are the decisions, [`store`],
//! [`delay`], [`held_pulls`], [`held_pops`], [`leases`], [`groups`], [`offsets`] and [`locks`] what they are about.
//! [`name_server`] tells where all this is. [`admin`], [`relay`] and [`resetting`] are for operators.
//!
//! Source: `protocol.md` sections 2 and 6, the processors of Apache's broker.

mod admin;
mod assigning;
mod broker;
mod clock;
mod delay;
mod effects;
mod endpoint;
mod groups;
mod held_pops;
mod held_pulls;
mod leases;
mod locks;
mod name_server;
mod names;
mod offsets;
mod pop_requests;
mod popping;
mod pulling;
mod relay;
mod replying;
mod resetting;
mod retrying;
mod sending;
mod server;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod transactions;

pub use server::{Server, ServerBuilder, ServerError};
