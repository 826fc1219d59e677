//! The producer as an argument of a listener.

use super::Producer;
use crate::listener::{BadPayload, Delivery, FromMessage, Shape, State, StateKey};

/// The default producer of the application.
impl<'a> FromMessage<'a> for Producer {
    const SHAPE: Shape = Shape::Neutral;

    fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload> {
        State::from_message(delivery).map(|State(producer)| producer)
    }

    fn requires() -> Vec<StateKey> {
        vec![StateKey::of::<Self>()]
    }
}
