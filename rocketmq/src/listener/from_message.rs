//! What a listener may take, and the check of a producer's transactions.

use std::fmt;

use super::{BadPayload, Delivery, StateKey};
use crate::message::MessageExt;

/// A type that a listener may take as an argument; a check (`#[rocketmq::transaction]`), too, if it is not a batch.
///
/// | Argument | Gives |
/// |---|---|
/// | [`MessageExt`], `&MessageExt` | the message |
/// | [`Json<T>`](crate::listener::Json), [`String`], [`Bytes`](bytes::Bytes) | its body, decoded; where that fails, the message is a bad payload |
/// | `Vec<MessageExt>`, `&[MessageExt]` | a batch, of as many as there are and at most the group's `batch` |
/// | `Vec<Json<T>>`, `Vec<String>`, `Vec<Bytes>` | the bodies of a batch |
/// | [`State<T>`](crate::listener::State) | a value that was given to the builder |
/// | [`Producers`](crate::Producers) | the producers that the file declares |
/// | [`ConsumeContext`](crate::listener::ConsumeContext) | group, topic, queue, attempt, the signal to stop |
/// | [`Producer`](crate::Producer) | the default producer; [`State<Producers>`](crate::Producers) has all of them |
/// | `Result<T, BadPayload>` of any of these | the same, and where it cannot be had, why: `on_bad_payload` is then the listener's own business |
///
/// Implement it for what your listeners would otherwise repeat:
///
/// ```
/// use rocketmq::{BadPayload, Delivery, FromMessage, Message, MessageExt, Shape};
///
/// struct Tenant<'a>(&'a str);
///
/// impl<'a> FromMessage<'a> for Tenant<'a> {
///     const SHAPE: Shape = Shape::One;
///
///     fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload> {
///         let tenant = delivery.message().property("tenant").map(Tenant);
///         tenant.ok_or_else(|| BadPayload::new("the property `tenant` is missing"))
///     }
/// }
///
/// let message = MessageExt::from(Message::new("orders").property("tenant", "acme").body("{}"));
/// assert_eq!(Tenant::from_message(&Delivery::from(message))?.0, "acme");
/// # Ok::<(), BadPayload>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a `#[rocketmq::listener]` or a `#[rocketmq::transaction]`",
    label = "cannot be taken out of a message",
    note = "both take MessageExt, &MessageExt, Json<T>, String, Bytes, State<T>, ConsumeContext, Producer, Producers or Result<…, BadPayload>; a listener also a batch: Vec<MessageExt>, &[MessageExt] or Vec<Json<T>>",
    note = "take it as `Json<{Self}>` if it is the body, as `State<{Self}>` if it is shared application state, or implement `rocketmq::FromMessage` for a type of your own"
)]
pub trait FromMessage<'a>: Sized {
    /// What the type needs of the delivery: one message, a batch, or neither.
    const SHAPE: Shape;

    /// Whether it decodes the body; a listener takes at most one such argument. `false` unless set.
    const DECODES_BODY: bool = false;

    /// For the macro: what is checked before the first message.
    #[doc(hidden)]
    const ARGUMENT: Argument =
        Argument { shape: Self::SHAPE, decodes_body: Self::DECODES_BODY, requires: Self::requires };

    /// Takes the value out of `delivery`, or borrows from it.
    ///
    /// # Errors
    ///
    /// Where the message can never give such a value, however often it is delivered.
    fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload>;

    /// The state that the type reads, so that its presence is checked at start; none unless written.
    ///
    /// A type that is built on `State<T>` passes on `State::<T>::requires()`.
    fn requires() -> Vec<StateKey> {
        Vec::new()
    }
}

/// Whether something needs one message or a batch; decides how a listener is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Neither: goes with both.
    Neutral,
    /// Exactly one message.
    One,
    /// As many as there are, at most the group's `batch`.
    Batch,
}

/// An argument's type, as far as it matters before the first message.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Argument {
    pub(super) shape: Shape,
    pub(super) decodes_body: bool,
    pub(super) requires: fn() -> Vec<StateKey>,
}

impl Argument {
    pub(crate) const fn decodes_body(&self) -> bool {
        self.decodes_body
    }

    pub(crate) fn requires(&self) -> Vec<StateKey> {
        (self.requires)()
    }
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Argument")
            .field("shape", &self.shape)
            .field("decodes_body", &self.decodes_body)
            .field("requires", &(self.requires)())
            .finish()
    }
}

impl<'a> FromMessage<'a> for &'a MessageExt {
    const SHAPE: Shape = Shape::One;

    fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload> {
        Ok(delivery.message())
    }
}

/// A clone: it shares the body.
impl FromMessage<'_> for MessageExt {
    const SHAPE: Shape = Shape::One;

    fn from_message(delivery: &Delivery) -> Result<Self, BadPayload> {
        Ok(delivery.message().clone())
    }
}

impl<'a> FromMessage<'a> for &'a [MessageExt] {
    const SHAPE: Shape = Shape::Batch;

    fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload> {
        Ok(delivery.messages())
    }
}

/// Clones: they share the bodies.
impl FromMessage<'_> for Vec<MessageExt> {
    const SHAPE: Shape = Shape::Batch;

    fn from_message(delivery: &Delivery) -> Result<Self, BadPayload> {
        Ok(delivery.messages().to_vec())
    }
}

/// What does not decode comes to the listener, too, which decides what becomes of it.
impl<'a, T: FromMessage<'a>> FromMessage<'a> for Result<T, BadPayload> {
    const SHAPE: Shape = T::SHAPE;
    const DECODES_BODY: bool = T::DECODES_BODY;

    fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload> {
        match T::from_message(delivery) {
            Err(bad) if bad.is_of_the_application() => Err(bad),
            result => Ok(result),
        }
    }

    fn requires() -> Vec<StateKey> {
        T::requires()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{Json, State};
    use crate::message::Message;

    #[test]
    fn what_does_not_decode_is_a_result_where_one_is_wanted() {
        type Wanted = Result<Json<u8>, BadPayload>;
        let delivery = |body: &str| Delivery::from(MessageExt::from(Message::new("t").body(body.to_owned())));
        assert_eq!(Wanted::from_message(&delivery("1")).unwrap().unwrap(), Json(1));
        assert!(Wanted::from_message(&delivery("x")).unwrap().is_err());
        assert_eq!((Wanted::SHAPE, Wanted::DECODES_BODY), (Shape::One, true));
        // That state is missing is no fault of the message.
        assert!(<Result<State<u8>, BadPayload>>::from_message(&delivery("1")).is_err());
        assert_eq!(<Result<State<u8>, BadPayload>>::requires().len(), 1);
    }

    #[test]
    fn the_message_is_taken_owned_or_borrowed() {
        let delivery = Delivery::from(MessageExt::from(Message::new("t").tag("a").body("x")));
        let borrowed = <&MessageExt>::from_message(&delivery).unwrap();
        let owned = MessageExt::from_message(&delivery).unwrap();
        assert_eq!((borrowed.tag(), owned.tag()), (Some("a"), Some("a")));
        assert_eq!(borrowed.body().as_ptr(), owned.body().as_ptr());
    }

    #[test]
    fn a_batch_is_taken_owned_or_borrowed() {
        let messages = ["x", "y"].map(|body| MessageExt::from(Message::new("t").body(body))).to_vec();
        let delivery = Delivery::detached(messages).unwrap();
        let bodies =
            |messages: &[MessageExt]| messages.iter().map(|m| m.body_str().into()).collect::<Vec<String>>();
        assert_eq!(bodies(<&[MessageExt]>::from_message(&delivery).unwrap()), ["x", "y"]);
        assert_eq!(bodies(&<Vec<MessageExt>>::from_message(&delivery).unwrap()), ["x", "y"]);
    }
}
