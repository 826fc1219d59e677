//! How the application of a test is put together.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::App;
use super::decided::Decided;
use crate::app::{Instruments, Listener};
use crate::clock::Clock;
use crate::config::{Config, ConfigErrors, Draft, Sources};
use crate::consumer::{ConsumeHook, FilterHook, Journal};
use crate::error::Result;
use crate::listener::{Delivery, Filter, IntoConsumeResult, Next, Outcome, SharedState, State};
use crate::message::MessageExt;
use crate::producer::{IntoTransaction, Producers, SendHook};
use crate::remoting::RpcHook;

const FILE: &str = "rocketmq.yaml";
/// What a busy machine takes for what usually takes milliseconds.
const LIMIT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(1);

/// An application of a test that is being put together: as [`crate::AppBuilder`], and what only a test needs.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct AppBuilder {
    app: crate::AppBuilder,
    source: Source,
    env: Vec<(String, String)>,
    /// `None`: all that are linked.
    groups: Option<Vec<String>>,
    limit: Duration,
    patience: Duration,
}

#[derive(Debug)]
enum Source {
    Usual,
    File(PathBuf),
    Value(Box<Config>),
}

impl AppBuilder {
    pub(super) fn new() -> Self {
        Self {
            app: crate::App::builder(),
            source: Source::Usual,
            env: Vec::new(),
            groups: None,
            limit: LIMIT,
            patience: PATIENCE,
        }
    }

    /// Reads this file.
    ///
    /// Without it the file is what `ROCKETMQ_CONFIG` names, else `rocketmq.yaml` in the current folder or the nearest one
    /// above it; without such a file everything has its default. Profile and environment apply as in production. Name
    /// servers, `acl`, `tls`, `trace` and `health` are left out, whatever they say: each cluster is an embedded server.
    pub fn config(mut self, file: impl Into<PathBuf>) -> Self {
        self.source = Source::File(file.into());
        self
    }

    /// Takes this configuration in place of a file; its clusters become embedded servers, too.
    pub fn config_value(mut self, config: Config) -> Self {
        self.source = Source::Value(Box::new(config));
        self
    }

    /// Sets a variable of the environment for this application alone: a `ROCKETMQ__…` key, or a value for `${name}`.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Takes the listeners of these groups only, in place of all that are linked into the test; beside them, those of
    /// [`listener`](Self::listener). Groups of the file that have no listener then are no mistake. Annotated checks of
    /// transactions stay, and need their producers and state.
    pub fn groups<G: Into<String>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.groups.get_or_insert_default().extend(groups.into_iter().map(Into::into));
        self
    }

    /// Takes none of the annotated listeners, but for those of [`groups`](Self::groups), and none of the annotated checks of
    /// transactions: for a test that has its own.
    ///
    /// A producer of the file that has no check then is no mistake, but cannot send in transactions:
    /// [`transaction`](Self::transaction) gives it one.
    pub fn without_linked_listeners(mut self) -> Self {
        self.app = self.app.without_linked_listeners();
        self.groups.get_or_insert_default();
        self
    }

    /// How long, by the clock of the system, the kit waits for anything before the test fails; default 30 s.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// After how long, by the clock of the system, [`App::advance`] takes a listener to hang and moves time over it;
    /// default 1 s.
    ///
    /// Only tests of listeners that take too long notice: lower it there.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// See [`crate::AppBuilder::state`].
    pub fn state<T: SharedState>(mut self, value: T) -> Self {
        self.app = self.app.state(value);
        self
    }

    /// See [`crate::AppBuilder::state_with`].
    pub fn state_with<T: SharedState>(
        mut self,
        make: impl FnOnce(&Producers) -> Result<T> + Send + 'static,
    ) -> Self {
        self.app = self.app.state_with(make);
        self
    }

    /// See [`crate::AppBuilder::around`].
    #[track_caller]
    pub fn around<F, Fut>(mut self, function: F) -> Self
    where
        F: Fn(Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.app = self.app.around(function);
        self
    }

    /// See [`crate::AppBuilder::around_with_state`].
    #[track_caller]
    pub fn around_with_state<T, F, Fut>(mut self, function: F) -> Self
    where
        T: SharedState,
        F: Fn(State<T>, Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.app = self.app.around_with_state(function);
        self
    }

    /// See [`crate::AppBuilder::around_group`].
    #[track_caller]
    pub fn around_group<F, Fut>(mut self, group: impl Into<String>, function: F) -> Self
    where
        F: Fn(Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.app = self.app.around_group(group, function);
        self
    }

    /// See [`crate::AppBuilder::around_group_with_state`].
    #[track_caller]
    pub fn around_group_with_state<T, F, Fut>(mut self, group: impl Into<String>, function: F) -> Self
    where
        T: SharedState,
        F: Fn(State<T>, Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.app = self.app.around_group_with_state(group, function);
        self
    }

    /// See [`crate::AppBuilder::rpc_hook`].
    pub fn rpc_hook(mut self, hook: impl RpcHook) -> Self {
        self.app = self.app.rpc_hook(hook);
        self
    }

    /// See [`crate::AppBuilder::send_hook`].
    pub fn send_hook(mut self, hook: impl SendHook) -> Self {
        self.app = self.app.send_hook(hook);
        self
    }

    /// See [`crate::AppBuilder::listener`].
    #[track_caller]
    pub fn listener<F, Fut>(
        mut self,
        group: impl Into<String>,
        topic: impl Into<String>,
        filter: impl Into<Filter>,
        function: F,
    ) -> Self
    where
        F: Fn(Vec<MessageExt>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoConsumeResult> + Send + 'static,
    {
        self.app = self.app.listener(group, topic, filter, function);
        self
    }

    /// See [`crate::AppBuilder::listener_with`].
    pub fn listener_with(mut self, listener: Listener) -> Self {
        self.app = self.app.listener_with(listener);
        self
    }

    /// See [`crate::AppBuilder::transaction`].
    pub fn transaction<F, Fut>(mut self, producer: impl Into<String>, check: F) -> Self
    where
        F: Fn(MessageExt) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoTransaction> + Send + 'static,
    {
        self.app = self.app.transaction(producer, check);
        self
    }

    /// See [`crate::AppBuilder::consume_hook`].
    pub fn consume_hook(mut self, hook: impl ConsumeHook) -> Self {
        self.app = self.app.consume_hook(hook);
        self
    }

    /// See [`crate::AppBuilder::filter_hook`].
    ///
    /// What it keeps from the listeners counts as handled: nobody waits for it, and no attempt is noted.
    pub fn filter_hook(mut self, hook: impl FilterHook) -> Self {
        self.app = self.app.filter_hook(hook);
        self
    }

    /// Starts, and waits until every group is ready for its first message.
    ///
    /// # Errors
    ///
    /// Those of [`run`](crate::run), in the same words: everything that is wrong with the configuration, the listeners
    /// and the state. Groups that are not ready within the [`limit`](Self::limit), each with what it lacks.
    pub async fn start(self) -> Result<App> {
        let Self { app, source, env, groups, limit, patience } = self;
        let mut draft = load(source, env)?;
        let config = &mut draft.loaded.config;
        config.use_embedded_servers();
        let folder = folder();
        config.keep_offsets_in(&folder);
        let instruments = Instruments { clock: Clock::movable(), journal: Journal::new() };
        let decided = Decided::default();
        let app =
            app.send_hook(decided.clone()).under_test(draft, instruments.clone(), groups).start().await?;
        let app = App::new(app, instruments, limit, patience, decided, folder);
        app.until_ready().await?;
        app.until_begun().await;
        Ok(app)
    }
}

fn load(source: Source, more: Vec<(String, String)>) -> Result<Draft, ConfigErrors> {
    let mut sources = Sources { without_servers: true, ..Sources::from_process() };
    sources.env.extend(more);
    let is_named = sources.env.get("ROCKETMQ_CONFIG").is_some_and(|file| !file.is_empty());
    match source {
        Source::Value(mut config) => {
            config.use_embedded_servers();
            return Ok(Draft::of(*config, sources.env));
        }
        Source::File(file) => sources.file = Some(file),
        Source::Usual if is_named => {}
        Source::Usual => match nearest_file() {
            Some(file) => sources.file = Some(file),
            None => return Ok(Draft::of(Config::default(), sources.env)),
        },
    }
    sources.draft()
}

/// A folder for the files of one application, which is made by whoever has one.
fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("rocketmq-testing-{}-{number}", std::process::id()))
}

/// In the current folder, which cargo makes that of the package under test, or above it, where its workspace is.
fn nearest_file() -> Option<PathBuf> {
    let folder = env::current_dir().ok()?;
    folder.ancestors().map(|folder: &Path| folder.join(FILE)).find(|file| file.is_file())
}
