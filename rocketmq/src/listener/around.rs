//! Middleware: a function around every delivery.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use super::{BoxFuture, Delivery, FromMessage, Handler, Outcome, SharedState, State, StateKey, StateMap};

type Function = dyn Fn(Delivery, Next) -> BoxFuture<Outcome> + Send + Sync;

/// A function that runs around every delivery: for trace ids, metrics, idempotency.
#[derive(Clone)]
pub(crate) struct Around {
    function: Arc<Function>,
    requires: Option<StateKey>,
    /// Where it was given to a builder.
    place: &'static Location<'static>,
}

/// The rest of the way to the listener.
///
/// An `around` that does not run it keeps the message from the listener, and says itself what came of it.
#[derive(Debug, Clone)]
pub struct Next {
    handler: Handler,
    /// How many `around`s lie behind.
    passed: usize,
}

impl Around {
    /// What `function` does before and after `next.run(delivery).await`.
    #[track_caller]
    pub(crate) fn new<F, Fut>(function: F) -> Self
    where
        F: Fn(Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let function = Arc::new(function);
        let function = move |delivery, next| -> BoxFuture<Outcome> {
            // The function is called inside of the future, where the consumer catches its panic.
            let function = Arc::clone(&function);
            Box::pin(async move { function(delivery, next).await })
        };
        Self { function: Arc::new(function), requires: None, place: Location::caller() }
    }

    /// The same with a value of the application's state.
    #[track_caller]
    pub(crate) fn with_state<T, F, Fut>(function: F) -> Self
    where
        T: SharedState,
        F: Fn(State<T>, Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let function = Arc::new(function);
        let function = move |delivery: Delivery, next| -> BoxFuture<Outcome> {
            let function = Arc::clone(&function);
            Box::pin(async move {
                match State::from_message(&delivery) {
                    Ok(state) => function(state, delivery, next).await,
                    Err(missing) => missing.into(),
                }
            })
        };
        Self { function: Arc::new(function), requires: Some(StateKey::of::<T>()), place: Location::caller() }
    }

    /// The state that it takes and `state` does not hold.
    pub(crate) fn missing_state(&self, state: &StateMap) -> Option<StateKey> {
        self.requires.filter(|key| !state.contains(key))
    }
}

impl Next {
    pub(super) fn first(handler: Handler) -> Self {
        Self { handler, passed: 0 }
    }

    /// Runs the `around`s that were added later, then the listener.
    pub fn run(self, delivery: Delivery) -> impl Future<Output = Outcome> + Send {
        self.run_boxed(delivery)
    }

    pub(super) fn run_boxed(self, delivery: Delivery) -> BoxFuture<Outcome> {
        match self.handler.arounds().get(self.passed) {
            Some(around) => {
                (around.function)(delivery, Self { handler: self.handler.clone(), passed: self.passed + 1 })
            }
            None => self.handler.call_function(delivery),
        }
    }
}

/// Its place in the source.
impl fmt::Display for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.place.file(), self.place.line())
    }
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Around({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::listener::ConsumeResult;
    use crate::message::{Message, MessageExt};

    fn message() -> Delivery {
        Delivery::from(MessageExt::from(Message::new("t").body("x")))
    }

    #[tokio::test]
    async fn the_first_added_is_the_outermost() {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let around = |name: &'static str| {
            let steps = Arc::clone(&steps);
            Around::new(move |delivery, next: Next| {
                let steps = Arc::clone(&steps);
                async move {
                    steps.lock().unwrap().push(format!("{name} before"));
                    let outcome = next.run(delivery).await;
                    steps.lock().unwrap().push(format!("{name} after"));
                    outcome
                }
            })
        };
        let inner = Arc::clone(&steps);
        let handler = Handler::from_fn("f", move |_| {
            inner.lock().unwrap().push("listener".into());
            async {}
        });
        let handler = handler.within(vec![around("first"), around("second")]);
        assert!(handler.call(message()).await.is_success());
        let expected = ["first before", "second before", "listener", "second after", "first after"];
        assert_eq!(*steps.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn an_around_may_keep_the_message_from_the_listener() {
        let handler = Handler::from_fn("f", |_| async { ConsumeResult::DeadLetter });
        let handler = handler.within(vec![Around::new(|_, _| async { ConsumeResult::Success.into() })]);
        assert!(handler.call(message()).await.is_success());
    }

    #[tokio::test]
    async fn an_around_may_try_again() {
        let attempts = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&attempts);
        let handler = Handler::from_fn("f", move |_| {
            let mut attempts = counter.lock().unwrap();
            *attempts += 1;
            let result = if *attempts < 3 { Err("not yet") } else { Ok(()) };
            async move { result }
        });
        let handler = handler.within(vec![Around::new(|delivery: Delivery, next: Next| async move {
            loop {
                let outcome = next.clone().run(delivery.clone()).await;
                if outcome.is_success() {
                    return outcome;
                }
            }
        })]);
        assert!(handler.call(message()).await.is_success());
        assert_eq!(*attempts.lock().unwrap(), 3);
    }
}
