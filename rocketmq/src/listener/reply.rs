//! Listeners that answer.

use bytes::Bytes;
use serde::Serialize;

use super::{IntoConsumeResult, Json, Outcome};
use crate::message::Message;

/// What a listener answers a request with: `Reply(Json(quote))`, `Reply(text)`, `Reply(bytes)`, or `Reply(message)` for
/// one with properties.
///
/// The reply is sent, and when the requester has it, the request is acknowledged. A reply that cannot be sent is a
/// failure like any other: the request is delivered again. But where the requester's time is over by then, nobody
/// waits for the reply any more, and the request is done.
///
/// It is sent by a producer that every client has for this, as with rocketmq-spring: the hooks and traces of the program's own
/// producers do not see it. For those, and for their options, answer by hand: [`Producer::reply`](crate::Producer::reply).
///
/// A message whose sender does not wait for a reply is done as well, with a warning. A listener that replies takes one
/// message, not a batch.
///
/// ```
/// use rocketmq::{Json, Reply};
///
/// #[rocketmq::listener(group = "quotes", topic = "quote-requests")]
/// async fn quote(Json(share): Json<String>) -> Result<Reply<Json<f64>>, String> {
///     match share.as_str() {
///         "ACME" => Ok(Reply(Json(42.0))),
///         other => Err(format!("there is no {other}")),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<T>(pub T);

/// What can be a reply: text, bytes, [`Json`], and a [`Message`] whose topic and delay do not count.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a reply",
    label = "not a reply",
    note = "reply with Json(value), a String, Bytes, or a Message",
    note = "for your own type, implement `rocketmq::IntoReply`"
)]
pub trait IntoReply {
    /// The reply as a message. Its topic will be another one.
    fn into_reply(self) -> Message;
}

impl IntoReply for Message {
    fn into_reply(self) -> Message {
        self
    }
}

impl<T: Serialize> IntoReply for Json<T> {
    fn into_reply(self) -> Message {
        Message::new("").json(&self.0)
    }
}

macro_rules! bodies {
    ($($type:ty),*) => {$(
        impl IntoReply for $type {
            fn into_reply(self) -> Message {
                Message::new("").body(self)
            }
        }
    )*};
}

bodies!(String, &'static str, Bytes, Vec<u8>, &'static [u8]);

impl<T: IntoReply> IntoConsumeResult for Reply<T> {
    const REPLIES: bool = true;

    fn into_outcome(self) -> Outcome {
        Outcome::Reply(Box::new(self.0.into_reply()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_bytes_json_and_messages_are_replies() {
        for (outcome, body) in [
            (Reply("x").into_outcome(), "x"),
            (Reply(String::from("x")).into_outcome(), "x"),
            (Reply(Bytes::from("x")).into_outcome(), "x"),
            (Reply(b"x".to_vec()).into_outcome(), "x"),
            (Reply(Json("x")).into_outcome(), "\"x\""),
            (Reply(Message::new("t").body("x")).into_outcome(), "x"),
            (Ok::<_, String>(Reply("x")).into_outcome(), "x"),
        ] {
            assert!(outcome.is_success());
            let Outcome::Reply(reply) = outcome else { panic!("{outcome:?}") };
            assert_eq!(reply.payload(), body);
        }
        assert!(matches!(Err::<Reply<String>, _>("no").into_outcome(), Outcome::Failed(_)));
    }

    #[test]
    fn what_replies_says_so() {
        const {
            assert!(<Reply<String> as IntoConsumeResult>::REPLIES);
            assert!(<Result<Reply<Json<u8>>, String> as IntoConsumeResult>::REPLIES);
            assert!(!<Result<(), String> as IntoConsumeResult>::REPLIES);
        }
    }
}
