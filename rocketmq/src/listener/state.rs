//! Values of the application that listeners share.

use std::any::{self, Any, TypeId};
use std::fmt;

use super::{BadPayload, Delivery, FromMessage, Shape};

/// A clone of the value of type `T` that was given to the builder with `state`.
///
/// `T` should be cheap to clone: a pool or a client is, for your own types use [`Arc`](std::sync::Arc). A listener
/// whose state was not given stops the start of the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State<T>(pub T);

/// What can be state; all that is cloned for each call, by any thread. A trait of its own, so that one error says all of it.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the state of a listener",
    label = "cannot be cloned, or cannot go to other threads",
    note = "state is cloned for each call, on any thread: it is `Clone + Send + Sync + 'static`",
    note = "derive `Clone`, or give it to the builder as `Arc::new(...)` and take it as `State<Arc<...>>`; with `Arc` in the place of `Rc`, with `Mutex` or atomics in the place of `Cell` and `RefCell`, with `dyn Trait + Send + Sync` in the place of `dyn Trait`"
)]
pub trait SharedState: Clone + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Clone + Send + Sync + 'static> SharedState for T {}

impl<T: SharedState> FromMessage<'_> for State<T> {
    const SHAPE: Shape = Shape::Neutral;

    fn from_message(delivery: &Delivery) -> Result<Self, BadPayload> {
        let value = delivery.state::<T>().cloned().map(Self);
        value.ok_or_else(|| BadPayload::new(MissingState(StateKey::of::<T>())))
    }

    fn requires() -> Vec<StateKey> {
        vec![StateKey::of::<T>()]
    }
}

/// A type of state: what a listener needs, and what is looked for at start.
#[derive(Clone, Copy)]
pub struct StateKey {
    id: TypeId,
    name: &'static str,
}

impl StateKey {
    /// The key of `T`.
    pub fn of<T: 'static>() -> Self {
        Self { id: TypeId::of::<T>(), name: any::type_name::<T>() }
    }
}

/// Names are for people: only the types are compared.
impl PartialEq for StateKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for StateKey {}

/// The type's full path, for example `app::Db`.
impl fmt::Display for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateKey({self})")
    }
}

/// The state of an app: at most one value of each type.
///
/// There are a few, and they are looked up for every message: going through a list beats hashing.
#[derive(Default)]
pub(crate) struct StateMap(Vec<(StateKey, Box<dyn Any + Send + Sync>)>);

impl StateMap {
    /// Adds `value`; a value of the same type that is there already is replaced, and `true` returned.
    pub(crate) fn insert<T: Clone + Send + Sync + 'static>(&mut self, value: T) -> bool {
        let key = StateKey::of::<T>();
        let before = self.0.len();
        self.0.retain(|(other, _)| *other != key);
        let replaced = self.0.len() < before;
        self.0.push((key, Box::new(value)));
        replaced
    }

    /// Takes a value of this type to be there, although it is not: for what is only checked.
    pub(crate) fn promise(&mut self, key: StateKey) {
        self.0.push((key, Box::new(())));
    }

    pub(crate) fn get<T: 'static>(&self) -> Option<&T> {
        let key = StateKey::of::<T>();
        let (_, value) = self.0.iter().find(|(other, _)| *other == key)?;
        value.downcast_ref()
    }

    pub(crate) fn contains(&self, key: &StateKey) -> bool {
        self.0.iter().any(|(other, _)| other == key)
    }
}

/// The types: values may hold secrets.
impl fmt::Debug for StateMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

/// State that was not given to the builder, found only when a message came: some argument of the user's own reads
/// it and does not say so in [`FromMessage::requires`].
///
/// It travels as a [`BadPayload`], but the message is not to blame: its outcome is a failure, so that it is retried.
#[derive(Debug, thiserror::Error)]
#[error(
    "no state of type {0} was given to the builder: add `.state(…)`, and name it in `FromMessage::requires`"
)]
pub(super) struct MissingState(StateKey);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Outcome;
    use crate::message::{Message, MessageExt};

    #[test]
    fn there_is_one_value_of_each_type() {
        let mut state = StateMap::default();
        assert!(!state.insert(1_u32));
        assert!(!state.insert("a"));
        assert!(state.insert(2_u32));
        assert_eq!(state.get::<u32>(), Some(&2));
        assert_eq!(state.get::<&str>(), Some(&"a"));
        assert_eq!(state.get::<u64>(), None);
        assert_eq!(format!("{state:?}"), "{StateKey(&str), StateKey(u32)}");
    }

    #[test]
    fn missing_state_is_not_held_against_the_message() {
        let delivery = Delivery::from(MessageExt::from(Message::new("t").body("x")));
        let outcome = Outcome::from(State::<u32>::from_message(&delivery).unwrap_err());
        let Outcome::Failed(error) = outcome else { panic!("{outcome:?}") };
        assert!(error.to_string().starts_with("no state of type u32 was given"), "{error}");
    }
}
