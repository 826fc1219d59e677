//! A listener that can be called.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::{
    Around, ConsumeResult, Delivery, IntoConsumeResult, ListenerDef, Next, Outcome, Shape, StateMap,
};
use crate::message::MessageExt;

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a consumer calls: an annotated function or a closure, with its state and the `around`s before it.
///
/// A clone is another handle to the same one. Calling it does not panic; the future may, as the user's code does.
#[derive(Clone)]
pub(crate) struct Handler(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    /// Where it stands in the source, for example `src/main.rs:12`; `None` for a closure.
    place: Option<Arc<str>>,
    shape: Shape,
    state: Arc<StateMap>,
    /// The outermost first.
    arounds: Vec<Around>,
    function: Arc<dyn Fn(Delivery) -> BoxFuture<Outcome> + Send + Sync>,
}

impl Handler {
    /// The annotated function; its state has been looked for ([`ListenerDef::missing_state`]).
    pub(crate) fn of(definition: &ListenerDef, state: Arc<StateMap>) -> Self {
        let (name, shape, function) = (definition.name.into(), definition.shape(), Arc::new(definition.call));
        let place = Some(format!("{}:{}", definition.file, definition.line).into());
        Self(Arc::new(Inner { name, place, shape, state, arounds: Vec::new(), function }))
    }

    /// A closure that takes a batch: for consumers that are built by hand.
    pub(crate) fn from_fn<F, Fut>(name: impl Into<Arc<str>>, function: F) -> Self
    where
        F: Fn(Vec<MessageExt>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoConsumeResult> + Send + 'static,
    {
        let function = Arc::new(function);
        let function = move |delivery: Delivery| -> BoxFuture<Outcome> {
            // The closure is called inside of the future, where the consumer catches its panic.
            let function = Arc::clone(&function);
            Box::pin(async move { function(delivery.messages().to_vec()).await.into_outcome() })
        };
        Self(Arc::new(Inner {
            name: name.into(),
            place: None,
            shape: Shape::Batch,
            state: Arc::default(),
            arounds: Vec::new(),
            function: Arc::new(function),
        }))
    }

    /// Only a name and state, for a delivery whose function is called by itself: the check of a transaction.
    pub(crate) fn of_state(name: impl Into<Arc<str>>, state: Arc<StateMap>) -> Self {
        let function =
            |_| -> BoxFuture<Outcome> { Box::pin(async { Outcome::Done(ConsumeResult::ReconsumeLater) }) };
        Self(Arc::new(Inner {
            name: name.into(),
            place: None,
            shape: Shape::One,
            state,
            arounds: Vec::new(),
            function: Arc::new(function),
        }))
    }

    /// The same with `arounds` before it, the first of which is the outermost.
    pub(crate) fn within(&self, arounds: Vec<Around>) -> Self {
        let Inner { name, place, shape, state, function, .. } = &*self.0;
        Self(Arc::new(Inner {
            name: Arc::clone(name),
            place: place.clone(),
            shape: *shape,
            state: Arc::clone(state),
            arounds,
            function: Arc::clone(function),
        }))
    }

    /// The same with this state, for its `around`s.
    pub(crate) fn with_state(&self, state: Arc<StateMap>) -> Self {
        let Inner { name, place, shape, arounds, function, .. } = &*self.0;
        Self(Arc::new(Inner {
            name: Arc::clone(name),
            place: place.clone(),
            shape: *shape,
            state,
            arounds: arounds.clone(),
            function: Arc::clone(function),
        }))
    }

    /// Handles `delivery`, which was made for this handler.
    pub(crate) fn call(&self, delivery: Delivery) -> BoxFuture<Outcome> {
        if self.0.arounds.is_empty() {
            self.call_function(delivery)
        } else {
            Next::first(self.clone()).run_boxed(delivery)
        }
    }

    /// For example `app::on_order`.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// For example `src/main.rs:12`.
    pub(super) fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }

    /// How many messages a delivery may have: one, or up to the group's `batch`.
    pub(crate) fn shape(&self) -> Shape {
        self.0.shape
    }

    pub(super) fn state(&self) -> &StateMap {
        &self.0.state
    }

    pub(super) fn arounds(&self) -> &[Around] {
        &self.0.arounds
    }

    pub(super) fn call_function(&self, delivery: Delivery) -> BoxFuture<Outcome> {
        (self.0.function)(delivery)
    }
}

/// Whether both are handles to the same one.
impl PartialEq for Handler {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("name", &self.name())
            .field("shape", &self.shape())
            .field("state", &self.state())
            .field("arounds", &self.arounds().len())
            .finish_non_exhaustive()
    }
}
