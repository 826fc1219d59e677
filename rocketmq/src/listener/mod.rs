//! What a handler is: how it is declared, what it may take and return, and how it is called.
//!
//! `#[rocketmq::listener]` files a [`ListenerDef`] for each annotated function; the app collects them with
//! [`listeners`] and makes a [`Handler`] of each. A consumer packs messages into a [`Delivery`] and calls the handler
//! with it: arguments are taken out of the delivery by [`FromMessage`], what the function returns becomes an
//! [`Outcome`] by [`IntoConsumeResult`]. What an outcome means for the broker is decided by the consumer, from the
//! group's policy; nothing here knows a broker.

mod around;
mod body;
mod consume_result;
mod context;
mod definition;
mod delay_level;
mod delivery;
mod filter;
mod from_message;
mod handler;
mod outcome;
mod reply;
mod state;

pub use around::Next;
pub use body::Json;
pub use consume_result::{
    ConsumeConcurrentlyResult, ConsumeConcurrentlyStatus, ConsumeResult, IntoConsumeResult,
};
pub use context::ConsumeContext;
pub use delay_level::{DelayLevel, DelayLevelError};
pub use delivery::Delivery;
pub use filter::{ExpressionType, Filter, FilterError};
pub use from_message::{FromMessage, Shape};
pub use outcome::{BadPayload, Outcome};
pub use reply::{IntoReply, Reply};
pub use state::{State, StateKey};

// For `__private` alone: what the macro writes.
pub use consume_result::IntoError;
pub use definition::{Arguments, ListenerDef, Needs};
pub use from_message::Argument;
pub use state::SharedState;

// For the app, the consumers and the test kit.
pub(crate) use around::Around;
pub(crate) use definition::listeners;
pub(crate) use delivery::Origin;
pub(crate) use handler::{BoxFuture, Handler};
pub(crate) use state::StateMap;
