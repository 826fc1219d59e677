//! A listener as it stands in the source: what `#[rocketmq::listener]` writes down.

use std::fmt;

use super::{Argument, BoxFuture, Delivery, Outcome, Shape, StateKey, StateMap};

/// Everything that is known of a listener when the program is compiled.
///
/// The texts are those of the attribute: their `${…}` are not resolved yet.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct ListenerDef {
    /// The function's path, for example `app::orders::on_order`.
    pub name: &'static str,
    /// The source file, as `file!` names it.
    pub file: &'static str,
    /// The line of the attribute in that file: a function may have two.
    pub line: u32,
    /// The consumer group.
    pub group: &'static str,
    /// The topic.
    pub topic: &'static str,
    /// The tag expression, where the attribute has one; never together with `sql`.
    pub tag: Option<&'static str>,
    /// The SQL92 expression, where the attribute has one.
    pub sql: Option<&'static str>,
    /// Whether messages of a queue are handled one after the other.
    pub orderly: bool,
    /// Whether every instance of the group gets every message.
    pub broadcast: bool,
    /// The name under `clusters:`, where it is not the default one.
    pub cluster: Option<&'static str>,
    /// What the function takes.
    pub arguments: Arguments,
    /// Takes the arguments out of the delivery and calls the function.
    pub call: fn(Delivery) -> BoxFuture<Outcome>,
}

inventory::collect!(ListenerDef);

/// All listeners that are linked into this program, in no order that means anything.
pub(crate) fn listeners() -> impl Iterator<Item = &'static ListenerDef> {
    inventory::iter::<ListenerDef>()
}

impl ListenerDef {
    /// Whether the function takes one message or a batch; never [`Shape::Neutral`].
    pub(crate) fn shape(&self) -> Shape {
        self.arguments.shape
    }

    /// The state that the function takes and `state` does not hold: nothing, if the listener may be started.
    pub(crate) fn missing_state(&self, state: &StateMap) -> Vec<StateKey> {
        let required = self.arguments.all.iter().flat_map(|argument| (argument.requires)());
        required.filter(|key| !state.contains(key)).collect()
    }
}

/// `app::on_order (src/main.rs:12)`
impl fmt::Display for ListenerDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.name, self.file, self.line)
    }
}

/// What a listener takes, checked as a whole.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Arguments {
    all: &'static [Argument],
    shape: Shape,
}

/// What the arguments of a function need of a delivery, counted one after the other.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    pub(crate) one: bool,
    pub(crate) batch: bool,
    pub(crate) body: bool,
}

impl Needs {
    /// Those of no argument.
    pub const NONE: Self = Self { one: false, batch: false, body: false };

    pub(crate) const fn and(self, argument: Argument) -> Self {
        Self {
            one: self.one || matches!(argument.shape, Shape::One),
            batch: self.batch || matches!(argument.shape, Shape::Batch),
            body: self.body || argument.decodes_body,
        }
    }
}

/// Evaluated while a user's program is compiled, where it knows what the macro cannot: which type stands behind an alias,
/// and what an argument of the user's own is. A panic is the compile error, at the place of the caller.
impl Arguments {
    /// Checks `argument` against those before it.
    ///
    /// # Panics
    ///
    /// Where they do not go together.
    #[track_caller]
    pub const fn and(before: Needs, argument: Argument) -> Needs {
        let all = before.and(argument);
        assert!(!(all.one && all.batch), "a listener takes one message or a batch, not both");
        assert!(
            !(before.body && argument.decodes_body),
            "a listener decodes the body once: take one of Json<T>, String and Bytes"
        );
        all
    }

    /// Arguments that go together, and what they need.
    ///
    /// # Panics
    ///
    /// Where none of them is the message.
    #[track_caller]
    pub const fn new(all: &'static [Argument], needs: Needs) -> Self {
        assert!(
            needs.one || needs.batch,
            "a listener takes the message: add an argument for it, for example `message: &MessageExt`"
        );
        Self { all, shape: if needs.batch { Shape::Batch } else { Shape::One } }
    }

    /// The same for tests, which do not look where a mistake is shown.
    #[cfg(test)]
    pub(crate) const fn of(all: &'static [Argument]) -> Self {
        let (mut needs, mut at) = (Needs::NONE, 0);
        while at < all.len() {
            needs = Self::and(needs, all[at]);
            at += 1;
        }
        Self::new(all, needs)
    }

    /// Checks them against the result, which `replies` or not.
    ///
    /// # Panics
    ///
    /// Where they do not go together.
    #[must_use]
    #[track_caller]
    pub const fn with_result(self, replies: bool) -> Self {
        assert!(
            !(replies && matches!(self.shape, Shape::Batch)),
            "a listener that replies takes one message, not a batch"
        );
        self
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::listener::{ConsumeContext, FromMessage, Json, State};
    use crate::message::MessageExt;

    const DEFINITION: ListenerDef = ListenerDef {
        name: "app::on_order",
        file: "src/main.rs",
        line: 12,
        group: "orders",
        topic: "order-events",
        tag: Some("paid"),
        sql: None,
        orderly: false,
        broadcast: false,
        cluster: None,
        arguments: Arguments::of(&[
            <&MessageExt as FromMessage<'_>>::ARGUMENT,
            <State<u32> as FromMessage<'_>>::ARGUMENT,
        ]),
        call: |_| Box::pin(async { Outcome::Done(crate::listener::ConsumeResult::Success) }),
    };

    #[test]
    fn a_listener_is_shown_by_its_path_and_place() {
        assert_eq!(DEFINITION.to_string(), "app::on_order (src/main.rs:12)");
    }

    #[test]
    fn missing_state_is_known_before_the_first_message() {
        let mut state = StateMap::default();
        let missing = DEFINITION.missing_state(&state);
        assert_eq!(missing.iter().map(ToString::to_string).collect::<Vec<_>>(), ["u32"]);
        state.insert(7_u32);
        assert_eq!(DEFINITION.missing_state(&state), []);
    }

    #[test]
    fn one_or_batch_is_what_the_arguments_say_together() {
        const ONE: Arguments = Arguments::of(&[
            <State<u32> as FromMessage<'_>>::ARGUMENT,
            <MessageExt as FromMessage<'_>>::ARGUMENT,
            <Json<u32> as FromMessage<'_>>::ARGUMENT,
        ]);
        const BATCH: Arguments = Arguments::of(&[
            <ConsumeContext as FromMessage<'_>>::ARGUMENT,
            <&[MessageExt] as FromMessage<'_>>::ARGUMENT,
            <Vec<Bytes> as FromMessage<'_>>::ARGUMENT,
        ]);
        assert_eq!((ONE.shape, BATCH.shape), (Shape::One, Shape::Batch));
    }

    #[test]
    fn arguments_that_do_not_go_together_are_refused() {
        const NEUTRAL: Argument = <State<u32> as FromMessage<'_>>::ARGUMENT;
        const ONE: Argument = <String as FromMessage<'_>>::ARGUMENT;
        const BATCH: Argument = <Vec<MessageExt> as FromMessage<'_>>::ARGUMENT;
        for (arguments, words) in [
            (&[ONE, BATCH][..], "one message or a batch, not both"),
            (&[NEUTRAL], "takes the message"),
            (&[ONE, <Json<u32> as FromMessage<'_>>::ARGUMENT], "decodes the body once"),
        ] {
            let panic = std::panic::catch_unwind(|| Arguments::of(arguments)).unwrap_err();
            let text = panic.downcast_ref::<&str>().unwrap();
            assert!(text.contains(words), "{text}");
        }
    }
}
