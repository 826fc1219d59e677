//! Commands over sockets: frames, connections, and the requests that wait on them.
//!
//! [`RemotingClient`] keeps one connection per address, made when it is first needed and again when it was lost. A
//! connection is one task that owns the socket ([`connection`]); others hold a [`Peer`], by which they send requests
//! and wait for answers. A [`Line`] is a connection beside them, whose owner can end it. Both ends of a connection may ask,
//! so the embedded server is made of the same parts.

mod channel;
mod connection;
mod error;
mod frame;
mod line;
mod peer;
mod rpc_hook;
mod signer;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;

#[cfg(test)]
pub(crate) use channel::tests::client as test_client;
pub(crate) use channel::{RemotingClient, RemotingSettings, RequestType, refused};
pub(crate) use connection::{Answer, Inbound, Limits, serve};
pub use error::RequestError;
pub(crate) use line::Line;
pub(crate) use peer::{Peer, TimeLimit};
pub(crate) use rpc_hook::RpcHooks;
pub use rpc_hook::{RpcAnswer, RpcCall, RpcHook, RpcRequest};
pub(crate) use signer::Signer;
pub(crate) use tls::{Tls, TlsSettings};

/// An address as the name server announced it or the user wrote it: `host:port`.
pub(crate) type Address = std::sync::Arc<str>;
