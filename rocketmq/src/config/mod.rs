//! What the file says: `rocketmq.yaml`, the environment and placeholders become one checked [`Config`].
//!
//! [`Config::load`] puts the layers over each other, weakest first: the defaults in code (`Default` is
//! their only home), `rocketmq.yaml`, `rocketmq-<profile>.yaml`, `ROCKETMQ__…` variables. Then it resolves
//! `${…}` and reads each key with its type and range. It finds every mistake before it gives up, and each
//! says where it is. `app` calls it; whoever builds clients by hand fills the same structs.
//!
//! ```text
//! files ─ document ─┐
//!                   ├─ load (merged tree + places) ─ section (typed keys, problems) ─ Config
//! env ─ environment ┘                   placeholder ─┘
//! ```
//!
//! Names that stand in `${…}` come from the environment, then from `vars:`; `${file:/run/secrets/x}` is the text of a
//! file. Each key can be set by a variable, too: `ROCKETMQ__CLIENT__REQUEST_TIMEOUT=5s`,
//! `ROCKETMQ__GROUPS__ORDERS__CONCURRENCY=8`, `ROCKETMQ__DEFAULTS__ROOMS=[a, b]`. The
//! names of groups, producers, clusters and variables have to be in a file; case does not matter, and `_` stands for each sign
//! that is neither letter nor digit: `ROCKETMQ__GROUPS__ORDER_EVENTS__BATCH=2` is for the group `order-events`. Values are taken
//! as they are, without `${…}`, and several name servers with `;` between them. Anchors, aliases
//! and merge keys are YAML's: `b: { <<: *base, batch: 2 }` is what `a: &base { … }` is, but for `batch`. [`schema()`] says
//! all of this to editors; what follows is the same for people.
//!
#![doc = include_str!("keys.md")]

mod client;
mod cluster;
mod consumer;
mod document;
mod documented;
mod environment;
mod lite_pull;
mod load;
mod names;
mod nearest;
#[cfg(feature = "testing")]
mod offline;
mod outline;
mod place;
mod placeholder;
mod problem;
mod producer;
mod rate;
mod schema;
mod section;
mod skip_before;
mod units;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

pub use client::{ClientConfig, SerializeType, Startup};
pub use cluster::{AclConfig, ClusterConfig, NameServers, Secret, TlsConfig};
pub use consumer::{
    Allocate, BadPayload, ConsumeFrom, ConsumeMode, ConsumerConfig, FixedQueue, FlowConfig, PopConfig,
    Rebalance, RetryDelay, Undecodable,
};
pub use lite_pull::LitePullConfig;
pub(crate) use load::Draft;
pub use load::{LoadedConfig, Sources};
pub use names::{MAX_GROUP_LENGTH, MAX_TOPIC_LENGTH, check_group, check_topic};
pub(crate) use nearest::suggestion;
pub use problem::{ConfigErrors, Problem};
pub use producer::{AutoBatchConfig, AvoidFaultsConfig, CheckConfig, Compression, ProducerConfig};
pub use rate::Rate;
pub use schema::schema;
pub use section::EffectiveValue;
pub use skip_before::SkipBefore;
pub use units::ByteSize;
pub use value::ValueError;

use documented::settings;
use section::{Section, check_by_hand};

/// The name of the cluster whose connection keys are at the top level.
pub const DEFAULT_CLUSTER: &str = "default";
/// The name of the producer that is there whether or not the file names one.
pub const DEFAULT_PRODUCER: &str = "default";

settings! {
/// Everything that `rocketmq.yaml` can say. Made by hand: `Config::default()`, then set the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Values for `${name}`, where the environment has none; hidden in output, as they may be passwords.
    pub vars: BTreeMap<String, Secret>,
    /// The connection keys of the top level: the cluster `default`.
    pub cluster: ClusterConfig,
    /// Message traces.
    pub trace: TraceConfig,
    /// The status page.
    pub health: HealthConfig,
    /// What groups take over that do not say otherwise.
    pub defaults: ConsumerConfig,
    /// The consumer groups, each put over `defaults`; without this key, every listener's group has the
    /// defaults.
    ///
    /// A list is complete: listeners of groups that are not in it are refused.
    pub groups: Option<BTreeMap<String, ConsumerConfig>>,
    /// The producers; `default` is always among them.
    pub producers: BTreeMap<String, ProducerConfig>,
    /// Clusters beside the default one. What `client` does not say is taken from the top level.
    pub clusters: BTreeMap<String, ClusterConfig>,
}
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vars: BTreeMap::new(),
            cluster: ClusterConfig::default(),
            trace: TraceConfig::default(),
            health: HealthConfig::default(),
            defaults: ConsumerConfig::default(),
            groups: None,
            producers: BTreeMap::from([(DEFAULT_PRODUCER.to_owned(), ProducerConfig::default())]),
            clusters: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads the file, its profile and the environment of this process.
    ///
    /// The file is `path`, else what `ROCKETMQ_CONFIG` names, else `rocketmq.yaml` in the current folder.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once.
    pub fn load(path: Option<&Path>) -> Result<LoadedConfig, ConfigErrors> {
        Sources { file: path.map(Path::to_owned), ..Sources::from_process() }.load()
    }

    /// Reads `text` alone: no profile, and an environment without variables.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once.
    pub fn from_yaml(text: &str) -> Result<LoadedConfig, ConfigErrors> {
        load::from_text("<yaml>", text, BTreeMap::new())
    }

    /// Checks a value made by hand against the ranges and rules that hold for the file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        check_by_hand(|keys| self.clone().read(keys))
    }

    /// The settings of a group: those listed for it, or the defaults.
    pub fn group(&self, name: &str) -> &ConsumerConfig {
        self.groups.as_ref().and_then(|groups| groups.get(name)).unwrap_or(&self.defaults)
    }

    /// The cluster of that name; [`DEFAULT_CLUSTER`] is the one of the top level.
    pub fn cluster(&self, name: &str) -> Option<&ClusterConfig> {
        if name == DEFAULT_CLUSTER { Some(&self.cluster) } else { self.clusters.get(name) }
    }

    fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        keys.vars("vars", &mut self.vars);
        self.cluster.read(keys);
        keys.section("trace", |keys| self.trace.read(keys));
        keys.section("health", |keys| self.health.read(keys));
        keys.section("defaults", |keys| self.defaults.read(keys));
        self.read_groups(keys);
        self.read_clusters(keys);
        self.read_producers(keys);
    }

    fn read_groups(&mut self, keys: &mut Section<'_, '_>) {
        let by_hand = self.groups.is_some();
        let mut groups = self.groups.take().unwrap_or_default();
        let listed = keys.each("groups", &mut groups, &self.defaults, |group, name, keys| {
            if let Err(error) = check_group(name) {
                keys.problem_with_name(error);
            }
            group.read(keys);
        });
        self.groups = (listed || by_hand).then_some(groups);
    }

    fn read_clusters(&mut self, keys: &mut Section<'_, '_>) {
        let new = ClusterConfig { client: self.cluster.client.clone(), ..ClusterConfig::default() };
        keys.each("clusters", &mut self.clusters, &new, |cluster, name, keys| {
            if name == DEFAULT_CLUSTER {
                keys.problem_with_name("this is the cluster of the top level; write its keys there");
            }
            cluster.read(keys);
        });
        self.check_instances(keys);
    }

    /// To brokers, clients of one name are one member of a group: each would take the same queues.
    fn check_instances(&self, keys: &mut Section<'_, '_>) {
        let mut named: Vec<(Option<&str>, &ClusterConfig)> = vec![(None, &self.cluster)];
        for (name, cluster) in &self.clusters {
            if let Some((other, _)) = named.iter().find(|(_, other)| cluster.has_the_client_id_of(other)) {
                let other = other.map(|other| format!("clusters.{other}.")).unwrap_or_default();
                let instance = cluster.client.instance.as_deref().unwrap_or_default();
                keys.problem_below(
                    &["clusters", name, "client", "instance"],
                    format_args!(
                        "`{instance}` is `{other}client.instance`, too, at the same name servers: brokers could not tell the two apart; give each a name of its own"
                    ),
                );
            }
            named.push((Some(name), cluster));
        }
    }

    fn read_producers(&mut self, keys: &mut Section<'_, '_>) {
        let clusters = &self.clusters;
        keys.each("producers", &mut self.producers, &ProducerConfig::default(), |producer, _, keys| {
            producer.read(keys);
            if let Some(cluster) = &producer.cluster
                && cluster != DEFAULT_CLUSTER
                && !clusters.contains_key(cluster)
            {
                let names: Vec<&str> = clusters.keys().map(String::as_str).collect();
                let near = suggestion(cluster, &names, "there are");
                keys.problem_with("cluster", format_args!("there is no `{cluster}` under `clusters:`{near}"));
            }
        });
    }
}

settings! {
/// Message traces: who sent and consumed what, as messages to a topic that the console reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceConfig {
    /// Whether to write traces; default `false`.
    pub enabled: bool,
    /// The topic to write them to; default `RMQ_SYS_TRACE_TOPIC`, which brokers with `traceTopicEnable` have.
    pub topic: String,
    /// Traces that may wait to be sent; default 2048, 1 to 1000000. Beyond it they are dropped, messages are not held up.
    pub max_queued: u32,
    /// Traces that travel in one message; default 20, 1 to 1000.
    pub batch: u32,
    /// How long the first of them waits for others; default `5s`, 10ms to 1m.
    pub linger: Duration,
}
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            topic: "RMQ_SYS_TRACE_TOPIC".to_owned(),
            max_queued: 2048,
            batch: 20,
            linger: Duration::from_secs(5),
        }
    }
}

impl TraceConfig {
    /// Checks a value made by hand against the ranges that hold for the file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        check_by_hand(|keys| self.clone().read(keys))
    }

    fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        keys.value("enabled", &mut self.enabled);
        keys.checked("topic", &mut self.topic, |topic| check_topic(topic));
        keys.within("max_queued", &mut self.max_queued, 1..=1_000_000);
        keys.within("batch", &mut self.batch, 1..=1000);
        let linger = Duration::from_millis(10)..=Duration::from_secs(60);
        keys.within("linger", &mut self.linger, linger);
    }
}

settings! {
/// The status page: `/livez`, `/readyz`, and `/metrics` for Prometheus. Needs the feature `health`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HealthConfig {
    /// Where to serve it, such as `127.0.0.1:8086`; default: nowhere. With port 0 the system chooses one.
    pub listen: Option<SocketAddr>,
}
}

impl HealthConfig {
    fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        keys.value("listen", &mut self.listen);
    }
}
