//! What is to run, and everything that speaks against it: found before anything is connected.
//!
//! Source: `api.md` section 5, rules 1 to 3.

use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;

use tracing::{info, warn};

use super::checks::{self, Checks, at_place};
use super::listener::Listener;
use crate::config::{
    ClusterConfig, Config, ConfigErrors, ConsumeMode, ConsumerConfig, DEFAULT_CLUSTER, Draft, LoadedConfig,
    NameServers, Problem, ProducerConfig, check_group, check_topic,
};
use crate::consumer::{ConsumeHooks, PushConsumer, Subscription, conflicts};
use crate::error::Result;
use crate::listener::{Around, Filter, Handler, ListenerDef, StateMap, listeners};
use crate::producer::{CheckHandler, Hooks, Producer, Producers};

/// The groups that will be consumed.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) groups: Vec<PlannedGroup>,
    /// By the names of their producers.
    pub(super) checks: BTreeMap<String, CheckHandler>,
}

/// One group: one consumer.
#[derive(Debug)]
pub(super) struct PlannedGroup {
    pub(super) cluster: String,
    pub(super) name: String,
    config: ConsumerConfig,
    orderly: bool,
    broadcast: bool,
    subscriptions: Vec<Subscription>,
    pub(super) consume_hooks: ConsumeHooks,
}

/// All listeners, and what they are called with.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) by_hand: Vec<Listener>,
    pub(super) annotated: Vec<&'static ListenerDef>,
    /// `None` where state is not looked at.
    pub(super) state: Option<Arc<StateMap>>,
    pub(super) arounds: Vec<Around>,
    /// Those of one group; its name may hold `${…}`.
    pub(super) group_arounds: Vec<(String, Around)>,
    /// Where only some groups are wanted: a test of them.
    pub(super) chosen: Option<Vec<String>>,
    pub(super) checks: Checks,
}

/// A listener whose texts are resolved.
struct Declared {
    cluster: String,
    group: String,
    orderly: bool,
    broadcast: bool,
    subscription: Subscription,
}

/// Checks configuration and annotated listeners against each other.
pub(super) fn check(Draft { loaded, mut problems }: Draft) -> Result<(), ConfigErrors> {
    let annotated = listeners().collect();
    let checks = Checks { annotated: crate::producer::checks().collect(), by_hand: Vec::new() };
    let listeners = Listeners {
        by_hand: Vec::new(),
        annotated,
        state: None,
        arounds: Vec::new(),
        group_arounds: Vec::new(),
        chosen: None,
        checks,
    };
    check_config(&loaded, &mut problems);
    Plan::problems(&loaded, listeners, false, problems).into_result()
}

/// The producers of a configuration that was checked, not registered yet, with the hooks for their clusters.
pub(super) fn producers(loaded: &LoadedConfig, send_hooks: impl Fn(&str) -> Hooks) -> Result<Producers> {
    let make = |(name, config): (&String, &ProducerConfig)| {
        let hooks = send_hooks(config.cluster.as_deref().unwrap_or(DEFAULT_CLUSTER));
        let builder = Producer::builder(group_of(name, config)).config(config.clone()).hooks(hooks);
        Ok((name.clone(), builder.create()?))
    };
    let by_name: Result<_> = loaded.config.producers.iter().map(make).collect();
    Ok(Producers::new(by_name?))
}

/// What the file says that cannot work, whatever the listeners are: before anything is made of it.
pub(super) fn check_config(loaded: &LoadedConfig, problems: &mut ConfigErrors) {
    check_supported(loaded, problems);
    check_tls(loaded, problems);
    check_producers(loaded, problems);
}

/// Keys that cannot have an effect in this build, or together: better an error than a setting without one.
fn check_supported(loaded: &LoadedConfig, problems: &mut ConfigErrors) {
    const NO_STATUS_PAGE: &str = "needs the feature `health`: `cargo add rocketmq --features health`";
    const NO_SERVER: &str = "`embedded` needs the feature `embedded`: `cargo add rocketmq --features embedded`; or write where a name server is: `host:9876`";
    const NO_SECOND_PORT: &str = "the embedded server has no second port; remove it";
    let config = &loaded.config;
    let mut refuse = |key: &[&str], why: &str| {
        let key = key.join(".");
        problems.push(at_place(loaded, &key, Problem::new(format!("{key}: {why}"))));
    };
    if !cfg!(feature = "health") && config.health.listen.is_some() {
        refuse(&["health", "listen"], NO_STATUS_PAGE);
    }
    for (section, cluster) in clusters(config) {
        let key = |keys: &[&'static str]| [section.as_slice(), keys].concat();
        let (servers, vip_channel) = (key(&["name_servers"]), key(&["client", "vip_channel"]));
        if cluster.name_servers != NameServers::Embedded || !loaded.is_sound(&servers) {
            continue;
        }
        if !cfg!(feature = "embedded") {
            refuse(&servers, NO_SERVER);
        } else if cluster.client.vip_channel && loaded.is_sound(&vip_channel) {
            refuse(&vip_channel, NO_SECOND_PORT);
        }
    }
    for (name, producer) in &config.producers {
        if let Some(lacks) = producer.compression.lacks() {
            refuse(&["producers", name, "compression"], lacks);
        }
    }
}

/// Files for TLS are read before anything is connected, as everything else is.
fn check_tls(loaded: &LoadedConfig, problems: &mut ConfigErrors) {
    for (section, cluster) in clusters(&loaded.config) {
        let is_sound = |key: &&'static str| loaded.is_sound(&[section.as_slice(), &["tls", *key]].concat());
        if !["enabled", "ca", "insecure"].iter().all(is_sound) {
            continue;
        }
        if let Err(reason) = crate::client::tls(&cluster.tls) {
            let key = [section.as_slice(), &["tls"]].concat().join(".");
            problems.push(at_place(loaded, &key, Problem::new(format!("{key}: {reason}"))));
        }
    }
}

/// The clusters, each with the keys that lead to what the file says of it.
fn clusters(config: &Config) -> impl Iterator<Item = (Vec<&str>, &ClusterConfig)> {
    let others = config.clusters.iter().map(|(name, cluster)| (vec!["clusters", name.as_str()], cluster));
    iter::once((Vec::new(), &config.cluster)).chain(others)
}

/// A producer is a member of its group in its cluster, and there is one of each.
fn check_producers(loaded: &LoadedConfig, problems: &mut ConfigErrors) {
    let mut taken: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (name, config) in &loaded.config.producers {
        if !["group", "cluster"].iter().all(|key| loaded.is_sound(&["producers", name, key])) {
            continue;
        }
        let (group, cluster) = (group_of(name, config), config.cluster.as_deref().unwrap_or(DEFAULT_CLUSTER));
        let problem = match (check_group(group), taken.insert((cluster, group), name)) {
            (Err(error), _) => Problem::new(format!("producers.{name}: {error}"))
                .detail("the group is the producer's name unless it has a `group:`"),
            (Ok(()), Some(other)) => Problem::new(format!(
                "producers.{name}: the producer `{other}` is of the group {group} already"
            ))
            .detail("give it a `group:` of its own, or use that producer for both"),
            (Ok(()), None) => continue,
        };
        problems.push(at_place(loaded, &format!("producers.{name}"), problem));
    }
}

/// By default the name of the producer.
fn group_of<'a>(name: &'a str, config: &'a ProducerConfig) -> &'a str {
    config.group.as_deref().unwrap_or(name)
}

impl Plan {
    /// Puts listeners and configuration together.
    pub(super) fn make(loaded: &LoadedConfig, listeners: Listeners, needs_listeners: bool) -> Result<Self> {
        let mut problems = ConfigErrors::new();
        let plan = make(loaded, listeners, needs_listeners, &mut problems);
        problems.into_result()?;
        if plan.groups.is_empty() {
            warn!("there is no listener in this program: it can only send");
        }
        Ok(plan)
    }

    /// `found`, and what else is wrong with listeners and configuration.
    pub(super) fn problems(
        loaded: &LoadedConfig,
        listeners: Listeners,
        needs_listeners: bool,
        mut found: ConfigErrors,
    ) -> ConfigErrors {
        make(loaded, listeners, needs_listeners, &mut found);
        found
    }
}

fn make(
    loaded: &LoadedConfig,
    mut listeners: Listeners,
    needs_listeners: bool,
    problems: &mut ConfigErrors,
) -> Plan {
    let has_listeners = !listeners.annotated.is_empty() || !listeners.by_hand.is_empty();
    let is_clean = problems.is_empty();
    let chosen = listeners.chosen.clone();
    let checks = std::mem::take(&mut listeners.checks);
    let checks = checks::plan(loaded, checks, listeners.state.as_ref(), problems);
    let declared = declared(loaded, listeners, problems);
    if needs_listeners && !has_listeners {
        problems.push(
            Problem::new("there is no listener in this program")
                .detail("annotate a function: #[rocketmq::listener(group = \"testGroup\", topic = \"testTopic\")]")
                .detail("if it is in another crate, add `use that_crate as _;` to main.rs: a crate that is not named is not linked"),
        );
    }
    match &chosen {
        // The name of a group may be in a value that has a mistake.
        Some(chosen) if is_clean => check_chosen(chosen, &declared, problems),
        Some(_) => {}
        None => check_groups(loaded, &declared, problems),
    }
    let mut planned = Vec::new();
    for ((cluster, name), members) in by_group(declared) {
        check_agreement(&name, &members, problems);
        let config = loaded.config.group(&name).clone();
        if !config.enabled {
            info!(group = name, "the group is disabled, its listeners get nothing");
            continue;
        }
        // They agree, or nothing is started.
        let orderly = members.iter().any(|member| member.orderly);
        let broadcast = members.iter().any(|member| member.broadcast);
        if ["mode", "rebalance"].iter().all(|key| loaded.is_sound(&["groups", &name, key]))
            && let Some(problem) = config.mode_problem(orderly, broadcast)
        {
            let problem = Problem::new(format!("group `{name}`: {problem}"));
            let place = members.iter().map(|member| member.subscription.place.as_str()).next();
            problems.push(place.into_iter().fold(problem, Problem::at));
        }
        let subscriptions: Vec<_> = members.into_iter().map(|member| member.subscription).collect();
        check_conflicts(&name, &subscriptions, problems);
        let consume_hooks = ConsumeHooks::default();
        planned.push(PlannedGroup {
            cluster,
            name,
            config,
            orderly,
            broadcast,
            subscriptions,
            consume_hooks,
        });
    }
    Plan { groups: planned, checks }
}

/// By cluster and group.
fn by_group(declared: Vec<Declared>) -> BTreeMap<(String, String), Vec<Declared>> {
    let mut groups: BTreeMap<(String, String), Vec<Declared>> = BTreeMap::new();
    for one in declared {
        groups.entry((one.cluster.clone(), one.group.clone())).or_default().push(one);
    }
    groups
}

fn check_conflicts(group: &str, subscriptions: &[Subscription], problems: &mut ConfigErrors) {
    for conflict in conflicts(subscriptions) {
        problems.push(
            Problem::new(format!("group `{group}`: {} of {}", conflict.reason, conflict.topic))
                .detail(conflict.first)
                .detail(conflict.second)
                .detail(conflict.advice),
        );
    }
}

fn declared(loaded: &LoadedConfig, listeners: Listeners, problems: &mut ConfigErrors) -> Vec<Declared> {
    let Listeners { by_hand, mut annotated, state, arounds, group_arounds, chosen, .. } = listeners;
    let mut declared = Vec::new();
    let group_arounds = resolved_arounds(loaded, group_arounds, problems);
    check_arounds(&arounds, &group_arounds, state.as_deref(), problems);
    if let Some(chosen) = &chosen {
        let is_chosen = |group: &str| loaded.resolve(group).is_ok_and(|group| chosen.contains(&group));
        annotated.retain(|definition| is_chosen(definition.group));
    }
    // In the order of the source, so that logs and errors are the same in every run.
    annotated.sort_by_key(|definition| (definition.file, definition.line, definition.name));
    for definition in annotated {
        if let Some(state) = &state {
            for missing in definition.missing_state(state) {
                problems.push(
                    Problem::new(format!("{definition} takes State<{missing}>, but there is no such state"))
                        .detail("give it to the builder: App::builder().state(value)"),
                );
            }
        }
        let group = loaded.resolve(definition.group).unwrap_or_default();
        let handler = Handler::of(definition, state.clone().unwrap_or_default());
        let handler = handler.within(around_listeners_of(&group, &arounds, &group_arounds));
        declared.extend(resolve(loaded, definition, handler, problems));
    }
    for listener in by_hand {
        let within = |group: &str| around_listeners_of(group, &arounds, &group_arounds);
        declared.extend(resolve_by_hand(loaded, listener, state.as_ref(), within, problems));
    }
    if chosen.is_none() {
        check_groups_of_arounds(&group_arounds, &declared, problems);
    }
    declared
}

/// The `around`s of a listener, the outermost first: those of the application, then those of its group.
fn around_listeners_of(group: &str, arounds: &[Around], group_arounds: &[(String, Around)]) -> Vec<Around> {
    let of_group = group_arounds.iter().filter(|(name, _)| name == group).map(|(_, around)| around);
    arounds.iter().chain(of_group).cloned().collect()
}

fn resolved_arounds(
    loaded: &LoadedConfig,
    group_arounds: Vec<(String, Around)>,
    problems: &mut ConfigErrors,
) -> Vec<(String, Around)> {
    let resolve = |(group, around): (String, Around)| {
        let place = format!("the `around` at {around}");
        Some((resolved(loaded, &group, &place, problems)?, around))
    };
    group_arounds.into_iter().filter_map(resolve).collect()
}

/// What they take is there.
fn check_arounds(
    arounds: &[Around],
    group_arounds: &[(String, Around)],
    state: Option<&StateMap>,
    problems: &mut ConfigErrors,
) {
    let Some(state) = state else { return };
    for around in arounds.iter().chain(group_arounds.iter().map(|(_, around)| around)) {
        if let Some(missing) = around.missing_state(state) {
            problems.push(
                Problem::new(format!(
                    "the `around` at {around} takes State<{missing}>, but there is no such state"
                ))
                .detail("give it to the builder: App::builder().state(value)"),
            );
        }
    }
}

/// An `around` of a group that is not there would do nothing, and nobody would notice.
fn check_groups_of_arounds(
    group_arounds: &[(String, Around)],
    declared: &[Declared],
    problems: &mut ConfigErrors,
) {
    let mut known: Vec<_> = declared.iter().map(|one| one.group.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    for (group, around) in group_arounds.iter().filter(|(group, _)| !known.contains(&group.as_str())) {
        problems.push(
            Problem::new(format!("the `around` at {around} is for group `{group}`, which has no listener"))
                .detail(format!("there are: {}", known.join(", "))),
        );
    }
}

fn resolve(
    loaded: &LoadedConfig,
    definition: &ListenerDef,
    handler: Handler,
    problems: &mut ConfigErrors,
) -> Option<Declared> {
    let place = definition.to_string();
    let mut text = |text: &str| resolved(loaded, text, &place, problems);
    let (group, topic, cluster) =
        (text(definition.group), text(definition.topic), text(definition.cluster.unwrap_or(DEFAULT_CLUSTER)));
    let filter = match definition.sql {
        Some(sql) => text(sql).map(Filter::sql),
        None => text(definition.tag.unwrap_or("*")).map(Filter::tag),
    };
    let subscription = Subscription { topic: topic?.into(), filter: filter?, handler, place };
    let (orderly, broadcast) = (definition.orderly, definition.broadcast);
    checked(loaded, Declared { cluster: cluster?, group: group?, orderly, broadcast, subscription }, problems)
}

fn resolve_by_hand(
    loaded: &LoadedConfig,
    listener: Listener,
    state: Option<&Arc<StateMap>>,
    arounds_of: impl Fn(&str) -> Vec<Around>,
    problems: &mut ConfigErrors,
) -> Option<Declared> {
    let Listener { group, topic, filter, orderly, broadcast, cluster, handler, place } = listener;
    let mut text = |text: &str| resolved(loaded, text, &place, problems);
    let (group, topic, cluster) =
        (text(&group), text(&topic), text(cluster.as_deref().unwrap_or(DEFAULT_CLUSTER)));
    let (expression, group) = (text(filter.expression()), group?);
    let handler = handler.with_state(state.cloned().unwrap_or_default()).within(arounds_of(&group));
    let filter = filter.with_expression(expression?);
    if orderly && broadcast {
        problems.push(
            Problem::new("a broadcast listener cannot be orderly: the broker locks queues only for clustering consumers")
                .at(&place),
        );
    }
    let subscription = Subscription { topic: topic?.into(), filter, handler, place };
    checked(loaded, Declared { cluster: cluster?, group, orderly, broadcast, subscription }, problems)
}

fn resolved(loaded: &LoadedConfig, text: &str, place: &str, problems: &mut ConfigErrors) -> Option<String> {
    match loaded.resolve(text) {
        Ok(text) => Some(text),
        Err(problem) => {
            problems.push(problem.at(place));
            None
        }
    }
}

/// Names with a placeholder could not be checked when the program was compiled.
fn checked(loaded: &LoadedConfig, declared: Declared, problems: &mut ConfigErrors) -> Option<Declared> {
    let Declared { cluster, group, subscription, .. } = &declared;
    let before = problems.len();
    let mut fail = |problem: Problem| problems.push(problem.at(&subscription.place));
    if let Err(error) = check_group(group) {
        fail(Problem::new(error.to_string()));
    }
    if let Err(error) = check_topic(&subscription.topic) {
        fail(Problem::new(error.to_string()));
    }
    if let Err(error) = subscription.filter.check() {
        fail(Problem::new(error.to_string()));
    }
    if loaded.config.cluster(cluster).is_none() && loaded.is_sound(&["clusters"]) {
        let known: Vec<_> =
            loaded.config.clusters.keys().map(String::as_str).chain([DEFAULT_CLUSTER]).collect();
        fail(
            Problem::new(format!("there is no cluster `{cluster}`"))
                .detail(format!("under `clusters:` there are: {}", known.join(", "))),
        );
    }
    (problems.len() == before).then_some(declared)
}

/// Nothing is missed silently: a list of groups is complete, and every group on it has a listener.
fn check_groups(loaded: &LoadedConfig, declared: &[Declared], problems: &mut ConfigErrors) {
    let Some(groups) = loaded.config.groups.as_ref().filter(|_| loaded.is_sound(&["groups"])) else { return };
    for one in declared.iter().filter(|one| !groups.contains_key(&one.group)) {
        let known: Vec<_> = groups.keys().map(String::as_str).collect();
        problems.push(
            Problem::new(format!("the group `{}` of this listener is not listed under `groups:`", one.group))
                .at(&one.subscription.place)
                .detail(format!("add `{}: {{}}` there, or use one of: {}", one.group, known.join(", "))),
        );
    }
    let is_enabled =
        |name: &str, group: &ConsumerConfig| group.enabled && loaded.is_sound(&["groups", name, "enabled"]);
    let idle = groups
        .iter()
        .filter(|(name, group)| is_enabled(name, group) && !declared.iter().any(|one| one.group == **name));
    for (name, _) in idle {
        let problem = Problem::new(format!(
            "group {name} is listed but no listener of it is in this program"
        ))
        .detail("if it lives in another crate, add `use that_crate as _;` to main.rs, or set enabled: false");
        problems.push(at_place(loaded, &format!("groups.{name}"), problem));
    }
}

/// Each group that was chosen has a listener.
fn check_chosen(chosen: &[String], declared: &[Declared], problems: &mut ConfigErrors) {
    for group in chosen.iter().filter(|group| !declared.iter().any(|one| one.group == **group)) {
        problems.push(
            Problem::new(format!("there is no listener of group `{group}` in this program"))
                .detail("if it lives in another crate, add `use that_crate as _;`"),
        );
    }
}

/// One group is one consumer: its listeners cannot differ in what holds for all of it.
fn check_agreement(group: &str, members: &[Declared], problems: &mut ConfigErrors) {
    let Some((first, others)) = members.split_first() else { return };
    for other in others {
        for (mine, theirs, word) in
            [(first.orderly, other.orderly, "orderly"), (first.broadcast, other.broadcast, "broadcast")]
        {
            if mine != theirs {
                let describe = |is_set: bool, one: &Declared| {
                    format!("{}  {}{word}", one.subscription.place, if is_set { "" } else { "not " })
                };
                problems.push(
                    Problem::new(format!("group `{group}`: its listeners disagree on `{word}`"))
                        .detail(describe(mine, first))
                        .detail(describe(theirs, other))
                        .detail("a group is one consumer: let them agree, or give them different groups"),
                );
            }
        }
    }
}

impl PlannedGroup {
    /// The plan in one line: who gets what.
    pub(super) fn announce(&self) {
        let listeners: Vec<_> = self
            .subscriptions
            .iter()
            .map(|Subscription { topic, filter, place, .. }| format!("{topic}[{filter}] → {place}"))
            .collect();
        let (group, cluster, concurrency) = (&self.name, &self.cluster, self.config.concurrency);
        let model = if self.broadcast { "broadcasting" } else { "clustering" };
        let order = match self.config.mode {
            ConsumeMode::Pop => "popped",
            _ if self.orderly => "orderly",
            _ => "concurrent",
        };
        info!(
            group,
            cluster,
            concurrency,
            "{group}  {model} {order} ×{concurrency}  {}",
            listeners.join(", ")
        );
    }

    /// The topics that its listeners take messages from.
    #[cfg(feature = "embedded")]
    pub(super) fn topics(&self) -> impl Iterator<Item = &str> {
        self.subscriptions.iter().map(|subscription| subscription.topic.as_ref())
    }

    pub(super) fn into_consumer(self) -> Result<PushConsumer> {
        let builder = PushConsumer::builder(self.name).config(self.config).consume_hooks(self.consume_hooks);
        let builder = if self.orderly { builder.orderly() } else { builder };
        let builder = if self.broadcast { builder.broadcasting() } else { builder };
        self.subscriptions
            .into_iter()
            .fold(builder, |builder, subscription| builder.subscription(subscription))
            .create()
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
