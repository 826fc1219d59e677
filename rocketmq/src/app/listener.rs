//! A listener that is not annotated.

use std::panic::Location;

use crate::listener::{Filter, Handler, IntoConsumeResult};
use crate::message::MessageExt;

/// A listener that is given to the [builder](crate::AppBuilder::listener_with), with all that the attribute can say of one:
/// for programs that know only when they run what they listen to.
///
/// ```
/// use rocketmq::{App, ConsumeResult, Listener};
///
/// let transfers = Listener::new("ledger", "transfers", "booked", |messages| async move {
///     println!("{} in order", messages.len());
///     ConsumeResult::Success
/// });
/// let app = App::builder().listener_with(transfers.orderly().cluster("dr"));
/// ```
#[derive(Debug)]
#[must_use = "a listener does nothing until it is given to a builder"]
pub struct Listener {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) filter: Filter,
    pub(super) orderly: bool,
    pub(super) broadcast: bool,
    pub(super) cluster: Option<String>,
    pub(super) handler: Handler,
    pub(super) place: String,
}

impl Listener {
    /// A function from a list of messages (at most the group's `batch`) to what became of them, for the messages of `topic`
    /// that match `filter`.
    ///
    /// Strings may hold `${name}` and `${name:default}`, as in the attribute. Other listeners of the group, annotated ones
    /// too, are part of the same consumer and have to agree with it on [`orderly`](Self::orderly) and
    /// [`broadcast`](Self::broadcast).
    #[track_caller]
    pub fn new<F, Fut>(
        group: impl Into<String>,
        topic: impl Into<String>,
        filter: impl Into<Filter>,
        function: F,
    ) -> Self
    where
        F: Fn(Vec<MessageExt>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoConsumeResult> + Send + 'static,
    {
        let (group, topic, filter) = (group.into(), topic.into(), filter.into());
        let name = format!("the listener of {topic} for {filter}, given to the builder");
        let place = format!("{name} at {}", Location::caller());
        let handler = Handler::from_fn(name, function);
        Self { group, topic, filter, orderly: false, broadcast: false, cluster: None, handler, place }
    }

    /// The messages of a queue are handled one after the other, each until it succeeds: the flag `orderly` of the attribute.
    pub fn orderly(mut self) -> Self {
        self.orderly = true;
        self
    }

    /// Every instance of the group gets every message: the flag `broadcast` of the attribute; not with
    /// [`orderly`](Self::orderly).
    pub fn broadcast(mut self) -> Self {
        self.broadcast = true;
        self
    }

    /// Listens to another cluster: a name under `clusters:` in the configuration.
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = Some(name.into());
        self
    }
}
