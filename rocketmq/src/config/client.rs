//! How this process behaves as a client of one cluster.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use super::documented::settings;
use super::problem::ConfigErrors;
use super::section::{Section, check_by_hand};
use super::units::ByteSize;
use super::value::Word;

settings! {
/// The keys under `client:`. Made by hand: `ClientConfig::default()`, then set the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Namespace of the first kind, put before topic and group names as `namespace%topic`; default: none.
    ///
    /// Excludes `namespace_v2`.
    pub namespace: Option<String>,
    /// Namespace of the second kind (5.x), sent beside each request; names stay as they are; default: none.
    pub namespace_v2: Option<String>,
    /// Last part of the client id that brokers and the console show; default: process id and a random
    /// part, so that it is unique.
    ///
    /// Set it for broadcast consumers whose offsets in `offset_dir` are to outlive a restart.
    pub instance: Option<String>,
    /// Unit (data centre) name, appended to the client id; default: none.
    pub unit: Option<String>,
    /// How long a request may take, answer included; default `3s`, 1ms to 10m.
    ///
    /// Sending has its own, `send_timeout`, and so has a pull, `pull_timeout`. A connection on which one of them was not answered
    /// in time, and nothing is heard for twice this time thereafter (for `connect_timeout` at least), is made anew.
    pub request_timeout: Duration,
    /// How long opening a connection may take, TLS included; default `3s`, 1ms to 10m.
    pub connect_timeout: Duration,
    /// A connection on which nothing was read or written for this long is closed; default `2m`, 1s to
    /// 1h, and longer than `heartbeat_interval`.
    pub idle_timeout: Duration,
    /// Largest frame accepted from a peer; default `16MiB`, 64KiB to 1GiB.
    ///
    /// Nothing larger is ever allocated. Raise it with the brokers' `maxMessageSize` × `pull_batch`.
    pub max_frame: ByteSize,
    /// Requests that wait for an answer on one connection; default 4096, 1 to 65535.
    ///
    /// At the limit the next request waits, within its own timeout.
    pub max_in_flight: u32,
    /// Form of the command headers; default `json`, which every server understands.
    pub serialize: SerializeType,
    /// Send messages, store offsets and ask about queues at the brokers' second port, two below the first;
    /// default `false`, as few brokers need it now.
    ///
    /// Pulls and heartbeats take the first port. The embedded server has no second one.
    pub vip_channel: bool,
    /// How often routes are asked for; default `30s`, 10ms to 1h. A new queue is seen this late.
    pub route_interval: Duration,
    /// How often brokers hear that this client lives; default `30s`, 10ms to 100s.
    ///
    /// Brokers forget a client after two silent minutes and give its queues to others.
    pub heartbeat_interval: Duration,
    /// How often queues are shared anew if no broker reports a change; default `20s`, 10ms to 1h.
    pub rebalance_interval: Duration,
    /// How often offsets are stored; default `5s`, 10ms to 1h.
    ///
    /// After a crash, at most this much is delivered again.
    pub offset_interval: Duration,
    /// How long a broker may hold a pull that finds no message; default `15s`, 1ms to 2m.
    pub pull_suspend: Duration,
    /// How long to wait for the answer to a pull; default `30s`, 1ms to 10m, and at least `pull_suspend`
    /// plus 5s, which are for the broker's own delay and the way.
    pub pull_timeout: Duration,
    /// What to do when no name server answers at start; default `fail`.
    pub startup: Startup,
    /// How long to try at start before failing, or with `wait` before the first warning; default `30s`,
    /// 1ms to 1h.
    pub startup_timeout: Duration,
    /// How long a stop may take; default `30s`, 0s to 1h. Keep it within the grace period of whatever runs this process
    /// (Kubernetes: 30s).
    ///
    /// Handlers may go on for all of it but the last `request_timeout`, or for half of it, if that is more. What is not finished
    /// then is delivered again, to another member of the group. The last offsets and the goodbye to the brokers follow, to all at
    /// the same time: they take milliseconds, and where a broker does not answer, no longer than one `request_timeout`; the
    /// others have heard them by then.
    pub shutdown_timeout: Duration,
    /// Where broadcast consumers keep their offsets; default `~/.rocketmq_offsets`.
    pub offset_dir: PathBuf,
}
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            namespace: None,
            namespace_v2: None,
            instance: None,
            unit: None,
            request_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(120),
            max_frame: ByteSize::mib(16),
            max_in_flight: 4096,
            serialize: SerializeType::Json,
            vip_channel: false,
            route_interval: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(30),
            rebalance_interval: Duration::from_secs(20),
            offset_interval: Duration::from_secs(5),
            pull_suspend: Duration::from_secs(15),
            pull_timeout: Duration::from_secs(30),
            startup: Startup::Fail,
            startup_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(30),
            offset_dir: PathBuf::from("~/.rocketmq_offsets"),
        }
    }
}

/// What a broker and the way may take beyond the time for which the broker holds a pull.
pub(super) const PULL_MARGIN: Duration = Duration::from_secs(5);

impl ClientConfig {
    /// `offset_dir` with a leading `~` replaced by this user's home directory.
    pub fn offset_path(&self) -> PathBuf {
        match (self.offset_dir.strip_prefix("~"), env::var_os("HOME").or_else(|| env::var_os("USERPROFILE")))
        {
            (Ok(below), Some(home)) => PathBuf::from(home).join(below),
            _ => self.offset_dir.clone(),
        }
    }

    /// Checks a value made by hand against the ranges and rules that hold for the file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        check_by_hand(|keys| self.clone().read(keys))
    }

    pub(super) fn read(&mut self, keys: &mut Section<'_, '_>) {
        let inherited = self.clone();
        keys.document(Self::FIELDS);
        let ms = Duration::from_millis;
        let secs = Duration::from_secs;
        let timeout = ms(1)..=secs(600);
        let interval = ms(10)..=secs(3600);
        keys.value("namespace", &mut self.namespace);
        keys.value("namespace_v2", &mut self.namespace_v2);
        keys.value("instance", &mut self.instance);
        keys.value("unit", &mut self.unit);
        keys.within("request_timeout", &mut self.request_timeout, timeout.clone());
        keys.within("connect_timeout", &mut self.connect_timeout, timeout.clone());
        keys.within("idle_timeout", &mut self.idle_timeout, secs(1)..=secs(3600));
        keys.within("max_frame", &mut self.max_frame, ByteSize::kib(64)..=ByteSize::mib(1024));
        keys.within("max_in_flight", &mut self.max_in_flight, 1..=65535);
        keys.value("serialize", &mut self.serialize);
        keys.value("vip_channel", &mut self.vip_channel);
        keys.within("route_interval", &mut self.route_interval, interval.clone());
        keys.within("heartbeat_interval", &mut self.heartbeat_interval, ms(10)..=secs(100));
        keys.within("rebalance_interval", &mut self.rebalance_interval, interval.clone());
        keys.within("offset_interval", &mut self.offset_interval, interval);
        keys.within("pull_suspend", &mut self.pull_suspend, ms(1)..=secs(120));
        keys.within("pull_timeout", &mut self.pull_timeout, timeout);
        keys.value("startup", &mut self.startup);
        keys.within("startup_timeout", &mut self.startup_timeout, ms(1)..=secs(3600));
        keys.within("shutdown_timeout", &mut self.shutdown_timeout, secs(0)..=secs(3600));
        keys.value("offset_dir", &mut self.offset_dir);
        if keys.is_clean() {
            self.relate(&inherited, keys);
        }
    }

    /// The rules between keys.
    fn relate(&self, inherited: &Self, keys: &mut Section<'_, '_>) {
        // What is wrong above already is told there, once.
        let is_told = |breaks: fn(&Self) -> bool, pair: [&str; 2], keys: &Section<'_, '_>| {
            !keys.is_by_hand() && breaks(inherited) && !pair.iter().all(|key| keys.says(key))
        };
        let breaks = |client: &Self| client.namespace.is_some() && client.namespace_v2.is_some();
        if breaks(self) && !is_told(breaks, ["namespace", "namespace_v2"], keys) {
            keys.problem_with("namespace_v2", "excludes `namespace`; remove one of them");
        }
        let breaks = |client: &Self| client.pull_timeout < client.pull_suspend + PULL_MARGIN;
        if breaks(self) && !is_told(breaks, ["pull_suspend", "pull_timeout"], keys) {
            let least = humantime::format_duration(self.pull_suspend + PULL_MARGIN);
            let message =
                format!("must be at least `pull_suspend` and 5s, {least}: an idle pull would time out");
            keys.problem_with("pull_timeout", message);
        }
        let breaks = |client: &Self| client.idle_timeout <= client.heartbeat_interval;
        if breaks(self) && !is_told(breaks, ["heartbeat_interval", "idle_timeout"], keys) {
            let message =
                "must be longer than `heartbeat_interval`, or every connection is closed between two";
            keys.problem_with("idle_timeout", message);
        }
    }
}

/// What to do when no name server answers at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Startup {
    /// Give up after `startup_timeout`, with an error that says which servers were tried.
    #[default]
    Fail,
    /// Go on trying for ever; the process is alive, but not ready.
    Wait,
}

impl Word for Startup {
    const WORDS: &'static [(&'static str, Self)] = &[("fail", Self::Fail), ("wait", Self::Wait)];
}

/// The form of the command headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SerializeType {
    /// Readable in a packet dump, and what every server of every version reads.
    #[default]
    Json,
    /// The binary form: smaller, and less work for brokers.
    Rocketmq,
}

impl Word for SerializeType {
    const WORDS: &'static [(&'static str, Self)] = &[("json", Self::Json), ("rocketmq", Self::Rocketmq)];
}
