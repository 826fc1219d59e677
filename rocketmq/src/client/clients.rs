//! The clients of a process: one for each cluster in use, shared by all who use it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::MqClient;
use crate::clock::Clock;
use crate::config::{ClusterConfig, NameServers};
use crate::consumer::Journal;
use crate::error::{Error, Result};
use crate::remoting::{RequestType, RpcHook, RpcHooks};
use crate::tasks::Tasks;

/// How long connections get to send what they hold.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a manager gives to those that are registered with it: where clients come from, and the cluster for those who
/// name none.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) clients: Arc<Clients>,
    pub(crate) cluster: ClusterConfig,
    /// By which messages wait.
    pub(crate) clock: Clock,
    /// Where consumers write down what becomes of messages.
    pub(crate) journal: Journal,
}

/// The clients of a process, each with the number of those who use it.
///
/// Two configurations are one client only if they are equal in everything, so that nobody works with the settings of
/// somebody else.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    /// Of every client that is made.
    hooks: RpcHooks,
}

#[derive(Debug)]
struct Entry {
    cluster: ClusterConfig,
    request_type: RequestType,
    client: Arc<MqClient>,
    users: usize,
}

impl Clients {
    /// The client of `cluster`, made if there is none. Everyone who acquires has to [release](Self::release).
    pub(crate) fn acquire(&self, cluster: &ClusterConfig) -> Result<Arc<MqClient>> {
        self.acquire_for(RequestType::Plain, cluster)
    }

    /// The same for requests of this type: each has clients of its own.
    pub(crate) fn acquire_for(
        &self,
        request_type: RequestType,
        cluster: &ClusterConfig,
    ) -> Result<Arc<MqClient>> {
        let NameServers::Addresses(addresses) = &cluster.name_servers else {
            return Err(Error::other(
                "`name_servers: embedded` is for `rocketmq::run()` and `App`; by hand, start a `rocketmq::embedded::Server` \
                 and give its `name_server()`",
            ));
        };
        let Table { entries, hooks } = &mut *self.lock();
        let is_same = |entry: &&mut Entry| entry.request_type == request_type && entry.cluster == *cluster;
        if let Some(entry) = entries.iter_mut().find(is_same) {
            entry.users += 1;
            return Ok(Arc::clone(&entry.client));
        }
        let client = MqClient::start(cluster, request_type, addresses, hooks.clone(), Tasks::default())?;
        entries.push(Entry { cluster: cluster.clone(), request_type, client: Arc::clone(&client), users: 1 });
        Ok(client)
    }

    /// Adds a hook to all clients; `false` where there is one already, which works without it.
    pub(crate) fn add_hook(&self, hook: Arc<dyn RpcHook>) -> bool {
        let Table { entries, hooks } = &mut *self.lock();
        if entries.is_empty() {
            hooks.add(hook);
        }
        entries.is_empty()
    }

    /// Ends the tasks of all clients, and those of their consumers and producers, without waiting for their end.
    #[cfg(feature = "testing")]
    pub(crate) fn abandon(&self) {
        self.lock().entries.iter().for_each(|entry| entry.client.tasks().cancel());
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the client if this was the last use of it.
    pub(crate) async fn release(&self, client: &Arc<MqClient>) {
        let ended = {
            let entries = &mut self.lock().entries;
            let at = entries.iter().position(|entry| Arc::ptr_eq(&entry.client, client));
            at.and_then(|at| {
                entries[at].users -= 1;
                (entries[at].users == 0).then(|| entries.swap_remove(at))
            })
        };
        if let Some(Entry { client, .. }) = ended {
            let stuck = client.stop(CLOSE_TIMEOUT).await;
            if stuck > 0 {
                warn!(client = client.id(), stuck, "tasks of the client did not end in time");
            }
        }
    }
}
