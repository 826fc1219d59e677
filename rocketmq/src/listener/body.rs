//! The body, decoded: `Json`, `String`, `Bytes`, and a `Vec` of each.

use std::error::Error;

use bytes::Bytes;
use serde::Deserialize;

use super::{BadPayload, Delivery, FromMessage, Shape};
use crate::message::MessageExt;

/// The body as a value in JSON.
///
/// `T` may borrow from the message: `Json<Order<'_>>` copies no text. A body that cannot be decoded never reaches
/// the listener; the group's `on_bad_payload` says what becomes of the message. Of a batch, `Vec<Json<T>>`, that is the one
/// message alone: the listener has the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<'a, T: Deserialize<'a>> FromMessage<'a> for Json<T> {
    const SHAPE: Shape = Shape::One;
    const DECODES_BODY: bool = true;

    fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload> {
        only(delivery, json)
    }
}

impl<'a, T: Deserialize<'a>> FromMessage<'a> for Vec<Json<T>> {
    const SHAPE: Shape = Shape::Batch;
    const DECODES_BODY: bool = true;

    fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload> {
        each(delivery, json)
    }
}

/// Each body, or why it does not decode: the listener has the whole batch, whatever is in it.
impl<'a, T: Deserialize<'a>> FromMessage<'a> for Vec<Result<Json<T>, BadPayload>> {
    const SHAPE: Shape = Shape::Batch;
    const DECODES_BODY: bool = true;

    fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload> {
        let messages = delivery.messages().iter().enumerate();
        let each = |(index, message)| json(message).map_err(|error| BadPayload::new(error).at(index));
        Ok(messages.map(each).collect())
    }
}

/// The body as text: UTF-8, or a bad payload.
impl FromMessage<'_> for String {
    const SHAPE: Shape = Shape::One;
    const DECODES_BODY: bool = true;

    fn from_message(delivery: &Delivery) -> Result<Self, BadPayload> {
        only(delivery, text)
    }
}

impl FromMessage<'_> for Vec<String> {
    const SHAPE: Shape = Shape::Batch;
    const DECODES_BODY: bool = true;

    fn from_message(delivery: &Delivery) -> Result<Self, BadPayload> {
        each(delivery, text)
    }
}

/// The body as it is, without a copy.
impl FromMessage<'_> for Bytes {
    const SHAPE: Shape = Shape::One;
    const DECODES_BODY: bool = true;

    fn from_message(delivery: &Delivery) -> Result<Self, BadPayload> {
        Ok(delivery.message().body().clone())
    }
}

impl FromMessage<'_> for Vec<Bytes> {
    const SHAPE: Shape = Shape::Batch;
    const DECODES_BODY: bool = true;

    fn from_message(delivery: &Delivery) -> Result<Self, BadPayload> {
        Ok(delivery.messages().iter().map(|message| message.body().clone()).collect())
    }
}

fn json<'a, T: Deserialize<'a>>(message: &'a MessageExt) -> serde_json::Result<Json<T>> {
    serde_json::from_slice(message.body()).map(Json)
}

fn text(message: &MessageExt) -> Result<String, std::str::Utf8Error> {
    message.body_utf8().map(str::to_owned)
}

fn only<'a, T, E: Error + Send + Sync + 'static>(
    delivery: &'a Delivery,
    decode: fn(&'a MessageExt) -> Result<T, E>,
) -> Result<T, BadPayload> {
    decode(delivery.message()).map_err(BadPayload::new)
}

fn each<'a, T, E: Error + Send + Sync + 'static>(
    delivery: &'a Delivery,
    decode: fn(&'a MessageExt) -> Result<T, E>,
) -> Result<Vec<T>, BadPayload> {
    let messages = delivery.messages().iter().enumerate();
    messages
        .map(|(index, message)| decode(message).map_err(|error| BadPayload::new(error).at(index)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    fn one(body: &'static [u8]) -> Delivery {
        Delivery::from(MessageExt::from(Message::new("t").body(body)))
    }

    fn batch(bodies: &[&'static [u8]]) -> Delivery {
        let messages = bodies.iter().map(|body| MessageExt::from(Message::new("t").body(*body)));
        Delivery::detached(messages.collect()).unwrap()
    }

    #[test]
    fn a_body_is_decoded() {
        assert_eq!(Json::<Vec<u8>>::from_message(&one(b"[1,2]")).unwrap(), Json(vec![1, 2]));
        assert_eq!(String::from_message(&one(b"x")).unwrap(), "x");
        assert_eq!(Bytes::from_message(&one(b"\xff")).unwrap(), &b"\xff"[..]);
    }

    #[test]
    fn json_may_borrow_from_the_message() {
        let delivery = one(b"\"text\"");
        let Json(text) = Json::<&str>::from_message(&delivery).unwrap();
        assert!(delivery.message().body().as_ptr_range().contains(&text.as_ptr()));
    }

    #[test]
    fn the_bodies_of_a_batch_are_decoded() {
        let delivery = batch(&[b"1", b"2"]);
        assert_eq!(Vec::<Json<u8>>::from_message(&delivery).unwrap(), [Json(1), Json(2)]);
        assert_eq!(Vec::<String>::from_message(&delivery).unwrap(), ["1", "2"]);
        assert_eq!(Vec::<Bytes>::from_message(&delivery).unwrap(), [&b"1"[..], b"2"]);
    }

    #[test]
    fn a_batch_may_be_taken_with_what_does_not_decode() {
        type Wanted = Vec<Result<Json<u8>, BadPayload>>;
        let delivery = batch(&[b"1", b"x", b"3"]);
        let bodies = Wanted::from_message(&delivery).unwrap();
        assert_eq!((bodies[0].as_ref().unwrap(), bodies[2].as_ref().unwrap()), (&Json(1), &Json(3)));
        assert_eq!(bodies[1].as_ref().unwrap_err().index(), 1);
    }

    #[test]
    fn a_bad_payload_says_which_message_and_why() {
        let error = Json::<u8>::from_message(&one(b"not json")).unwrap_err();
        assert_eq!(error.index(), 0);
        assert_eq!(error.to_string(), "bad payload: expected ident at line 1 column 2");

        let error = Vec::<Json<u8>>::from_message(&batch(&[b"1", b"300"])).unwrap_err();
        assert_eq!(error.index(), 1);
        assert!(error.to_string().contains("expected u8"), "{error}");

        let error = Vec::<String>::from_message(&batch(&[b"1", b"2", b"\xff"])).unwrap_err();
        assert_eq!(error.index(), 2);
        assert!(error.to_string().contains("utf-8"), "{error}");
    }
}
