//! How an application is put together.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::checks::Checks;
use super::instruments::Instruments;
use super::listener::Listener;
use super::plan::{Listeners, Plan, check_config};
use super::{App, signals};
use crate::config::{Config, Draft, LoadedConfig, Sources};
use crate::consumer::{ConsumeHook, ConsumeHooks, FilterHook};
use crate::error::{Error, Result};
use crate::listener::{
    Around, Delivery, Filter, IntoConsumeResult, Next, Outcome, SharedState, State, StateKey, StateMap,
    listeners,
};
use crate::message::MessageExt;
use crate::producer::{CheckHandler, Hooks, IntoTransaction, Producer, Producers, SendHook, checks};
use crate::remoting::{RpcHook, RpcHooks};
use crate::tasks::Boxed;

/// An application that is being put together.
#[derive(Default)]
#[must_use = "a builder does nothing until it is run or started"]
pub struct AppBuilder {
    source: Source,
    state: StateMap,
    state_with: Vec<(StateKey, MakeState)>,
    arounds: Vec<Around>,
    group_arounds: Vec<(String, Around)>,
    by_hand: Vec<Listener>,
    checks: Vec<(String, CheckHandler)>,
    without_linked: bool,
    send_hooks: Hooks,
    rpc_hooks: RpcHooks,
    consume_hooks: ConsumeHooks,
    /// Where only some groups are wanted.
    chosen: Option<Vec<String>>,
    instruments: Instruments,
}

/// Makes a value of the state once the producers are there.
type MakeState = Box<dyn FnOnce(&Producers, &mut StateMap) -> Result<()> + Send>;

/// Where the configuration comes from.
#[derive(Default)]
enum Source {
    /// `ROCKETMQ_CONFIG`, or `rocketmq.yaml` in the current folder.
    #[default]
    Usual,
    File(PathBuf),
    Value(Box<Config>),
    /// Read already.
    #[cfg(feature = "testing")]
    Loaded(Box<Draft>),
}

impl AppBuilder {
    /// Reads this file in place of `rocketmq.yaml`; profile and environment apply to it, too.
    pub fn config(mut self, file: impl Into<PathBuf>) -> Self {
        self.source = Source::File(file.into());
        self
    }

    /// Takes this configuration in place of a file.
    pub fn config_value(mut self, config: Config) -> Self {
        self.source = Source::Value(Box::new(config));
        self
    }

    /// Gives a value to the listeners that take it as `State<T>`; one for each type, the last counts.
    ///
    /// `T` is anything that is `Clone + Send + Sync + 'static`: it is cloned for each call, on any thread.
    pub fn state<T: SharedState>(mut self, value: T) -> Self {
        self.state.insert(value);
        self
    }

    /// Gives a value to the listeners that has producers of its own: `make` gets those that the file declares, before
    /// anything is connected.
    ///
    /// ```
    /// use rocketmq::{App, Producer, Result};
    ///
    /// #[derive(Clone)]
    /// struct Orders {
    ///     events: Producer,
    /// }
    ///
    /// let app = App::builder().state_with(|producers| Ok(Orders { events: producers.get("orders")? }));
    /// ```
    ///
    /// An error, such as that of a name that is not there, stops the start.
    pub fn state_with<T: SharedState>(
        mut self,
        make: impl FnOnce(&Producers) -> Result<T> + Send + 'static,
    ) -> Self {
        let make: MakeState = Box::new(|producers, state| {
            state.insert(make(producers)?);
            Ok(())
        });
        self.state_with.push((StateKey::of::<T>(), make));
        self
    }

    /// Runs `function` around every delivery, from `next.run(delivery).await` to which it is free to do anything: before it,
    /// after it, or in its place.
    ///
    /// The one that was added first is the outermost; those of the application lie around those of its
    /// groups ([`around_group`](Self::around_group)), and the innermost is around the listener and the taking of its
    /// arguments. What it returns is what came of the delivery: the policy of the group makes an acknowledgement, a retry
    /// or a dead letter of it. `consume_timeout` holds for all of it together, and a panic in it is a failed message.
    #[track_caller]
    pub fn around<F, Fut>(mut self, function: F) -> Self
    where
        F: Fn(Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.arounds.push(Around::new(function));
        self
    }

    /// The same with a value that was given by [`state`](Self::state); without it nothing starts.
    #[track_caller]
    pub fn around_with_state<T, F, Fut>(mut self, function: F) -> Self
    where
        T: SharedState,
        F: Fn(State<T>, Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.arounds.push(Around::with_state(function));
        self
    }

    /// Runs `function` around the deliveries of one group, within those [`around`](Self::around) all of them; again the one
    /// that was added first is the outermost. The name may hold `${name}`; a group without a listener is a mistake.
    #[track_caller]
    pub fn around_group<F, Fut>(mut self, group: impl Into<String>, function: F) -> Self
    where
        F: Fn(Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.group_arounds.push((group.into(), Around::new(function)));
        self
    }

    /// The same with a value that was given by [`state`](Self::state); without it nothing starts.
    #[track_caller]
    pub fn around_group_with_state<T, F, Fut>(mut self, group: impl Into<String>, function: F) -> Self
    where
        T: SharedState,
        F: Fn(State<T>, Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.group_arounds.push((group.into(), Around::with_state(function)));
        self
    }

    /// Runs `hook` with every send of the producers that the file declares, after those that were added before.
    pub fn send_hook(mut self, hook: impl SendHook) -> Self {
        self.send_hooks.add(hook);
        self
    }

    /// Has every request to the name servers and brokers of every cluster pass `hook`, after those that were added before.
    pub fn rpc_hook(mut self, hook: impl RpcHook) -> Self {
        self.rpc_hooks.add(Arc::new(hook));
        self
    }

    /// Runs `hook` before and after every call of a listener, after those that were added before.
    pub fn consume_hook(mut self, hook: impl ConsumeHook) -> Self {
        self.consume_hooks.add(hook);
        self
    }

    /// Asks `hook` of every message that was pulled whether a listener is to get it, after those that were added before.
    pub fn filter_hook(mut self, hook: impl FilterHook) -> Self {
        self.consume_hooks.add_filter(hook);
        self
    }

    /// Adds a listener that is not annotated: a function from a list of messages (at most the group's `batch`) to what
    /// became of them.
    ///
    /// Strings may hold `${name}` and `${name:default}`, as in the attribute. For one that is in order, that broadcasts, or
    /// that listens to another cluster, see [`listener_with`](Self::listener_with).
    #[track_caller]
    pub fn listener<F, Fut>(
        self,
        group: impl Into<String>,
        topic: impl Into<String>,
        filter: impl Into<Filter>,
        function: F,
    ) -> Self
    where
        F: Fn(Vec<MessageExt>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoConsumeResult> + Send + 'static,
    {
        self.listener_with(Listener::new(group, topic, filter, function))
    }

    /// Adds a listener that is not annotated, with whatever else is to be said of it.
    pub fn listener_with(mut self, listener: Listener) -> Self {
        self.by_hand.push(listener);
        self
    }

    /// Adds the check of the transactions of `producer`, a name under `producers:`, that is not annotated: see
    /// [`ProducerBuilder::check`](crate::ProducerBuilder::check).
    pub fn transaction<F, Fut>(mut self, producer: impl Into<String>, check: F) -> Self
    where
        F: Fn(MessageExt) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoTransaction> + Send + 'static,
    {
        let producer = producer.into();
        let place = format!("the check of the producer {producer}, given to the builder");
        self.checks.push((producer, CheckHandler::from_fn(place, check)));
        self
    }

    /// Leaves the annotated listeners and checks of this program out: for tests of one listener, and for programs that
    /// choose.
    pub fn without_linked_listeners(mut self) -> Self {
        self.without_linked = true;
        self
    }

    /// Starts, and returns the running application: for programs that do something else as well.
    ///
    /// # Errors
    ///
    /// Those of [`run`](crate::run), but for signals and listeners: none is a warning here.
    pub async fn start(self) -> Result<App> {
        self.start_with(false).await
    }

    /// Starts, runs until SIGINT or SIGTERM, then stops gracefully. A second signal ends the process at once.
    ///
    /// # Errors
    ///
    /// Those of [`run`](crate::run).
    pub async fn run(self) -> Result<()> {
        self.run_until_signal().await
    }

    fn run_until_signal(self) -> Boxed<'static, Result<()>> {
        Box::pin(async move {
            let mut signals = signals::Signals::listen().map_err(Error::other)?;
            let app = tokio::select! {
                app = self.start_with(true) => app?,
                // There is nothing to finish yet: what has been started goes with the process.
                signal = signals.next() => {
                    tracing::info!(signal, "a signal came before the start was complete");
                    return Ok(());
                }
            };
            let signal = signals.next().await;
            tracing::info!(signal, "a signal: stopping gracefully, a second one ends the process at once");
            tokio::select! {
                stopped = app.shutdown() => stopped,
                signal = signals.next() => signals::end_at_once(signal),
            }
        })
    }

    /// What the test kit puts in: a configuration that it has read, its instruments, and the groups that are wanted.
    #[cfg(feature = "testing")]
    pub(crate) fn under_test(
        mut self,
        mut draft: Draft,
        instruments: Instruments,
        chosen: Option<Vec<String>>,
    ) -> Self {
        if self.without_linked && chosen.is_some() {
            // Nor does the file ask for checks that are left out.
            let is_given = |producer: &str| self.checks.iter().any(|(name, _)| name == producer);
            let producers = draft.loaded.config.producers.iter_mut();
            producers.for_each(|(name, config)| config.transaction &= is_given(name));
        }
        self.source = Source::Loaded(Box::new(draft));
        self.instruments = instruments;
        self.chosen = chosen;
        self
    }

    fn start_with(self, needs_listeners: bool) -> Boxed<'static, Result<App>> {
        Box::pin(async move {
            let Draft { mut loaded, mut problems } = match self.source {
                Source::Usual => Sources::from_process().draft()?,
                Source::File(file) => Sources { file: Some(file), ..Sources::from_process() }.draft()?,
                Source::Value(config) => Draft::of(*config, env::vars().collect()),
                #[cfg(feature = "testing")]
                Source::Loaded(draft) => *draft,
            };
            let Self {
                mut state,
                state_with,
                arounds,
                group_arounds,
                by_hand,
                checks: by_name,
                without_linked,
                send_hooks,
                rpc_hooks,
                consume_hooks,
                chosen,
                instruments,
                ..
            } = self;
            // Of those that are linked, the groups that were chosen are taken nevertheless.
            let without_listeners = without_linked && chosen.is_none();
            let annotated = if without_listeners { Vec::new() } else { listeners().collect() };
            let checks = Checks {
                annotated: if without_linked { Vec::new() } else { checks().collect() },
                by_hand: by_name,
            };
            let with_state = |state: StateMap| {
                let state = Some(Arc::new(state));
                Listeners { by_hand, annotated, state, arounds, group_arounds, chosen, checks }
            };
            check_config(&loaded, &mut problems);
            if !problems.is_empty() {
                // The producers are not made of such a file, but nobody is to be told that they are missing.
                let made = state_with.into_iter().map(|(key, _)| key);
                let made = made.chain([StateKey::of::<Producer>(), StateKey::of::<Producers>()]);
                made.for_each(|key| state.promise(key));
                return Err(Plan::problems(&loaded, with_state(state), needs_listeners, problems).into());
            }
            let plan = |loaded: &LoadedConfig, producers: &Producers| {
                if let Ok(producer) = producers.get(crate::config::DEFAULT_PRODUCER) {
                    state.insert(producer);
                }
                state.insert(producers.clone());
                for (_, make) in state_with {
                    make(producers, &mut state)?;
                }
                let mut plan = Plan::make(loaded, with_state(state), needs_listeners)?;
                plan.groups.iter_mut().for_each(|group| group.consume_hooks = consume_hooks.clone());
                Ok(plan)
            };
            super::start(&mut loaded, &send_hooks, rpc_hooks, instruments, plan).await
        })
    }
}

impl fmt::Debug for AppBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppBuilder")
            .field("state", &self.state)
            .field("arounds", &self.arounds.len())
            .finish_non_exhaustive()
    }
}
