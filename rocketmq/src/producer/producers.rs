//! The producers of an application, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Producer;
use crate::error::{Error, Result};
use crate::listener::{BadPayload, Delivery, FromMessage, Shape, State, StateKey};

/// The producers that the file declares under `producers:`, by name.
///
/// A listener takes them as they are, or as `State<Producers>`; state that has producers of its own is made with
/// [`AppBuilder::state_with`](crate::AppBuilder::state_with), which finds out at the start whether they are there. A
/// clone is another handle to the same ones.
///
/// ```
/// use rocketmq::{MessageExt, Producers, Result};
///
/// #[rocketmq::listener(group = "mail", topic = "mails")]
/// async fn mail(message: MessageExt, producers: Producers) -> Result<()> {
///     producers.get("archive")?.send(message.forward_to("old-mails")).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone, Default)]
pub struct Producers(Arc<BTreeMap<String, Producer>>);

impl Producers {
    pub(crate) fn new(by_name: BTreeMap<String, Producer>) -> Self {
        Self(Arc::new(by_name))
    }

    /// The producer of that name; `default` is always there.
    ///
    /// # Errors
    ///
    /// Where there is no such producer.
    pub fn get(&self, name: &str) -> Result<Producer> {
        self.0.get(name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.names().collect();
            Error::producer(
                name,
                format_args!("there is no such key under `producers:`; there are: {}", known.join(", ")),
            )
        })
    }

    /// The names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Producer)> {
        self.0.iter().map(|(name, producer)| (name.as_str(), producer))
    }
}

impl<'a> FromMessage<'a> for Producers {
    const SHAPE: Shape = Shape::Neutral;

    fn from_message(delivery: &'a Delivery) -> Result<Self, BadPayload> {
        State::from_message(delivery).map(|State(producers)| producers)
    }

    fn requires() -> Vec<StateKey> {
        vec![StateKey::of::<Self>()]
    }
}

impl fmt::Debug for Producers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_answered_with_those_that_are() {
        let producer = |name: &str| (name.to_owned(), Producer::builder(name).create().unwrap());
        let producers = Producers::new(["default", "orders"].map(producer).into());
        assert_eq!(producers.get("orders").unwrap().group(), "orders");
        let error = producers.get("ordres").unwrap_err().to_string();
        assert!(error.contains("ordres") && error.contains("default, orders"), "{error}");
    }
}
