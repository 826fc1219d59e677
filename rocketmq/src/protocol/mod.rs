//! RocketMQ's remoting protocol as values: commands, codes, headers and bodies, with no I/O.
//!
//! A [`RemotingCommand`] is one request or answer. A typed [`Request`] says what it asks, under which code, and what
//! its answer is, so that callers never look up a field by name. [`json`] reads what Java servers write that is not
//! quite JSON. The embedded broker reads the same types that the client writes.

pub(crate) mod body;
pub(crate) mod broker_calls;
mod code;
mod command;
mod ext_fields;
pub(crate) mod header;
pub(crate) mod json;
mod json_header;
mod json_text;
pub(crate) mod pop;
pub(crate) mod transactions;

pub use code::{RequestCode, ResponseCode};
pub(crate) use command::{DecodeError, HeaderForm, RemotingCommand, encode_request};
pub(crate) use ext_fields::{ExtFields, Field, HeaderError, PutField};
pub(crate) use header::{Header, Request};
