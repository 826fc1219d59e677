//! One client of one cluster: what it knows of the cluster, and what the cluster hears from it.
//!
//! [`MqClient`] asks name servers for routes, keeps the tables of queues and broker addresses, tells every broker
//! that it lives and which groups it serves, and has a typed call for each thing that consumers and producers want
//! of a broker. Consumers and producers of a process that use the same cluster share one client. What brokers ask by
//! themselves comes in through [`processor`].

mod broker_version;
mod calls;
mod clients;
mod commands;
mod filter_check;
mod heartbeat;
mod id;
mod name_servers;
pub(crate) mod namespace;
mod pops;
mod processor;
mod replies;
mod route;
mod routes;
mod sends;
mod service_state;
mod startup;
mod stop;
mod transactions;
mod vip;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time;
use tracing::debug;

pub use crate::manager::MqClientManager;
pub(crate) use broker_version::BrokerVersion;
pub(crate) use calls::{PullAnswer, PullStatus};
pub(crate) use clients::Home;
pub(crate) use commands::{Directly, Offsets, no_listeners};
pub(crate) use pops::PopAnswer;
pub use replies::ReplyStats;
pub(crate) use replies::Waiting;
pub(crate) use route::{Access, MASTER, TopicRoute};
pub use routes::RouteError;
pub(crate) use sends::{Port, SendAnswer};
pub(crate) use service_state::StateCell;
pub use service_state::{ServiceState, StateError};
pub(crate) use stop::{Stop, time_for_handlers};
pub(crate) use transactions::{Question, TransactionChecker};

use self::broker_version::BrokerVersions;
use self::name_servers::NameServerList;
use self::processor::Processor;
use self::replies::Replies;
use self::routes::RouteTable;
use crate::config::{ClientConfig, ClusterConfig, SerializeType, TlsConfig};
use crate::error::{Error, Result};
use crate::message::MessageExt;
use crate::protocol::HeaderForm;
use crate::protocol::body::{ConsumerData, ProducerData};
use crate::protocol::broker_calls::ConsumerRunningInfo;
use crate::remoting::{
    Limits, RemotingClient, RemotingSettings, RequestType, RpcHooks, Signer, Tls, TlsSettings,
};
use crate::tasks::Tasks;

/// The topic whose route new topics get where brokers create them by themselves.
pub(crate) const AUTO_CREATE_TOPIC: &str = "TBW102";
/// The producer group that every Java client lists, and with it a client that only consumes is never empty.
pub(crate) const INNER_PRODUCER: &str = "CLIENT_INNER_PRODUCER";

/// A consumer group of this client, as the client sees it.
pub(crate) trait GroupMember: Send + Sync {
    /// What heartbeats say of the group.
    fn consumer_data(&self) -> ConsumerData;

    /// Every topic whose route the group needs, retry topic included.
    fn topics(&self) -> Vec<Arc<str>>;

    /// The members of the group, or the queues of a topic, may have changed.
    fn wake_rebalance(&self);

    /// The master of a broker may have been started anew, or a slave is in its place: the offsets that it was told last may be
    /// lost.
    fn doubt_stored(&self, broker: &str);

    /// How far the group is in the queues of a topic that this member has.
    fn offsets(&self, topic: &str) -> Offsets;

    /// Goes on from these offsets in those of the queues that this member has.
    fn reset_offsets(self: Arc<Self>, topic: &str, offsets: Offsets);

    /// What this member is doing; `with_handlers` also what each of its handlers is.
    fn running_info(&self, with_handlers: bool) -> ConsumerRunningInfo;

    /// Has a listener handle a message now.
    fn consume_directly(self: Arc<Self>, message: MessageExt) -> Directly;
}

/// One client of one cluster.
pub(crate) struct MqClient {
    id: String,
    config: ClientConfig,
    remoting: RemotingClient,
    name_servers: NameServerList,
    routes: RouteTable,
    versions: BrokerVersions,
    replies: Arc<Replies>,
    members: Mutex<Members>,
    /// Asks the heartbeat task for a heartbeat now.
    heartbeat: Arc<Notify>,
    /// One for each command of a broker that may be carried out at the same time.
    commands: Arc<Semaphore>,
    tasks: Tasks,
}

/// The groups of a client. Consumers are held weakly: they own the client, not the other way round.
#[derive(Default)]
struct Members {
    consumers: HashMap<Arc<str>, Weak<dyn GroupMember>>,
    producers: HashMap<Arc<str>, usize>,
    /// Those producers that can be asked about the transactions of their group.
    checkers: HashMap<Arc<str>, Weak<dyn TransactionChecker>>,
}

impl std::fmt::Debug for MqClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqClient").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MqClient {
    /// A client of the cluster behind `name_servers`, and its scheduled tasks: routes and heartbeats.
    ///
    /// Nothing is connected before the first request.
    ///
    /// # Errors
    ///
    /// Where the files for TLS cannot be used.
    pub(crate) fn start(
        cluster: &ClusterConfig,
        request_type: RequestType,
        name_servers: &[String],
        hooks: RpcHooks,
        tasks: Tasks,
    ) -> Result<Arc<Self>> {
        let config = cluster.client.clone();
        let settings = settings(cluster, request_type, hooks)?;
        let client = Arc::new_cyclic(|client| Self {
            id: id::client_id(config.instance.as_deref(), config.unit.as_deref(), request_type),
            remoting: RemotingClient::new(
                settings,
                Arc::new(Processor::new(Weak::clone(client))),
                tasks.clone(),
            ),
            name_servers: NameServerList::new(name_servers),
            routes: RouteTable::default(),
            versions: BrokerVersions::default(),
            replies: Arc::default(),
            members: Mutex::default(),
            heartbeat: Arc::default(),
            commands: Arc::new(Semaphore::new(commands::MAX_COMMANDS)),
            config,
            tasks,
        });
        client.spawn_periodic("routes", client.config.route_interval, |client| async move {
            client.update_routes().await;
        });
        client.spawn_heartbeats();
        Ok(client)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// The tasks of this client; those of its consumers are children.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Lists a consumer group in heartbeats from now on.
    pub(crate) fn add_consumer(&self, group: &Arc<str>, member: Weak<dyn GroupMember>) {
        self.members().consumers.insert(Arc::clone(group), member);
    }

    /// Lists a producer group in heartbeats from now on; the same group may be added more than once.
    pub(crate) fn add_producer(&self, group: &Arc<str>) {
        *self.members().producers.entry(Arc::clone(group)).or_default() += 1;
    }

    /// Lists a consumer group in heartbeats no more.
    pub(crate) fn forget_consumer(&self, group: &Arc<str>) {
        self.members().consumers.remove(group);
    }

    /// Says goodbye for a producer group to all brokers, if this was the last producer of it.
    pub(crate) async fn remove_producer(&self, group: &Arc<str>) {
        let gone = {
            let Members { producers, checkers, .. } = &mut *self.members();
            let left = producers.get(group).map_or(0, |count| count.saturating_sub(1));
            match left {
                0 => drop((producers.remove(group), checkers.remove(group))),
                _ => drop(producers.insert(Arc::clone(group), left)),
            }
            left == 0
        };
        if gone {
            self.unregister_producer(group).await;
        }
    }

    /// Ends the connections and the scheduled tasks; returns how many of them are still there after `limit`.
    pub(crate) async fn stop(&self, limit: Duration) -> usize {
        self.tasks.cancel();
        self.tasks.join(limit).await
    }

    fn members(&self) -> std::sync::MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn consumers(&self) -> Vec<Arc<dyn GroupMember>> {
        self.members().consumers.values().filter_map(Weak::upgrade).collect()
    }

    fn consumer(&self, group: &str) -> Option<Arc<dyn GroupMember>> {
        self.members().consumers.get(group).and_then(Weak::upgrade)
    }

    fn producer_data(&self) -> Vec<ProducerData> {
        let members = self.members();
        let groups = members.producers.keys().map(|group| group.as_ref()).chain([INNER_PRODUCER]);
        groups.map(|group| ProducerData { group_name: group.to_owned() }).collect()
    }

    fn consumer_data(&self) -> Vec<ConsumerData> {
        self.consumers().iter().map(|member| member.consumer_data()).collect()
    }

    /// Runs `work` every `period` until the client stops. The task does not keep the client alive.
    fn spawn_periodic<F>(
        self: &Arc<Self>,
        name: &'static str,
        period: Duration,
        work: impl Fn(Arc<Self>) -> F + Copy + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let client = Arc::downgrade(self);
        let stopping = self.tasks.stopping().clone();
        self.tasks.spawn_lasting(name, move || {
            let (client, stopping) = (Weak::clone(&client), stopping.clone());
            async move {
                loop {
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = time::sleep(period) => {}
                    }
                    let Some(client) = client.upgrade() else { return };
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = work(client) => {}
                    }
                }
            }
        });
        debug!(task = name, ?period, "scheduled");
    }
}

fn settings(cluster: &ClusterConfig, request_type: RequestType, hooks: RpcHooks) -> Result<RemotingSettings> {
    let client = &cluster.client;
    let signer = cluster.acl.as_ref().and_then(|acl| {
        let token = acl.security_token.as_ref().map(|token| token.expose().to_owned());
        Signer::new(acl.access_key.clone(), acl.secret_key.expose(), token)
    });
    Ok(RemotingSettings {
        connect_timeout: client.connect_timeout,
        limits: Limits {
            max_frame_bytes: client.max_frame.as_usize(),
            max_in_flight: client.max_in_flight as usize,
            idle_timeout: client.idle_timeout,
            // A new connection takes its time as well.
            max_silence: (2 * client.request_timeout).max(client.connect_timeout),
            form: match client.serialize {
                SerializeType::Json => HeaderForm::Json,
                SerializeType::Rocketmq => HeaderForm::RocketMq,
            },
        },
        signer,
        tls: tls(&cluster.tls).map_err(|reason| Error::other(format!("tls: {reason}")))?,
        namespace_v2: client.namespace_v2.clone(),
        request_type,
        hooks,
    })
}

/// TLS as it is configured, where it is; the files that it names are read here.
pub(crate) fn tls(config: &TlsConfig) -> Result<Option<Tls>, String> {
    let settings = TlsSettings {
        ca: config.ca.clone(),
        identity: config.cert.clone().zip(config.key.clone()),
        server_name: config.server_name.clone(),
        insecure: config.insecure,
    };
    config.enabled.then(|| Tls::new(&settings)).transpose()
}
