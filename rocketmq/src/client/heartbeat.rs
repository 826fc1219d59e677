//! Telling brokers that this client lives and which groups it serves, and saying goodbye.
//!
//! Without it a broker does not know the members of a group and nobody can rebalance. Source: `behaviour.md`
//! section 1.4.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time;
use tracing::{debug, warn};

use super::MqClient;
use super::broker_version::BrokerVersion;
use super::route::MASTER;
use crate::error::Error;
use crate::protocol::body::HeartbeatData;
use crate::protocol::header::{Heartbeat, UnregisterClient};
use crate::protocol::json;
use crate::remoting::{Address, RequestError};
use crate::tasks::Boxed;

impl MqClient {
    pub(super) fn spawn_heartbeats(self: &Arc<Self>) {
        let (client, soon) = (Arc::downgrade(self), Arc::clone(&self.heartbeat));
        let period = self.config.heartbeat_interval;
        let stopping = self.tasks.stopping().clone();
        self.tasks.spawn_lasting("heartbeat", move || {
            let (client, stopping, soon) = (Weak::clone(&client), stopping.clone(), Arc::clone(&soon));
            async move {
                loop {
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = time::sleep(period) => {}
                        () = soon.notified() => {}
                    }
                    let Some(client) = client.upgrade() else { return };
                    client.clean_offline_brokers();
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = client.heartbeat_all() => {}
                    }
                }
            }
        });
    }

    /// Asks for a heartbeat soon, without waiting for it.
    pub(crate) fn heartbeat_soon(&self) {
        self.heartbeat.notify_one();
    }

    /// Tells every broker, at the same time, and waits for their answers. Slaves hear of consumers only.
    pub(crate) async fn heartbeat_all(self: &Arc<Self>) {
        let consumers = self.consumer_data();
        let slaves_too = !consumers.is_empty();
        let mut calls = JoinSet::new();
        for (name, id, address) in self.brokers() {
            if id == MASTER || slaves_too {
                let client = Arc::clone(self);
                calls.spawn(async move {
                    let told = client.heartbeat(&address, client.config.request_timeout).await;
                    if let Err(error) = told {
                        client.note_failed(&name, &address, &error);
                    }
                });
            }
        }
        while calls.join_next().await.is_some() {}
    }

    /// Tells one broker; its answer says which release it is.
    pub(super) async fn heartbeat(
        &self,
        address: &Address,
        limit: Duration,
    ) -> Result<BrokerVersion, RequestError> {
        let data = HeartbeatData {
            client_id: self.id.clone(),
            producer_data_set: self.producer_data(),
            consumer_data_set: self.consumer_data(),
            heartbeat_fingerprint: 0,
            without_sub: false,
        };
        match self.remoting.ask(address, &Heartbeat, json::write(&data).into(), limit).await {
            Ok(answer) => {
                self.versions.note(address, answer.version);
                Ok(BrokerVersion(answer.version))
            }
            Err(error) => {
                debug!(%address, %error, "the heartbeat was not heard");
                Err(error)
            }
        }
    }

    /// What the broker said, if it said anything. Where it cannot be reached, the sentence that every beginner needs: the name
    /// server is there, but the address that the broker announced to it cannot be reached from here.
    fn note_failed(&self, broker: &str, address: &Address, error: &RequestError) {
        if !self.brokers().iter().any(|(_, _, known)| known == address) {
            return;
        }
        let cause = Error::chain(error);
        match error {
            RequestError::Refused { .. } => {
                let groups: Vec<_> = self.consumer_data().into_iter().map(|data| data.group_name).collect();
                warn!(broker, ?groups, %error, "the broker refuses this client, which gets no messages from it until it is heard");
            }
            // A connection that is not made in time is a request that is not answered in time, too.
            RequestError::Connect { .. } | RequestError::TimedOut { .. } => warn!(
                broker, %address, %error, %cause,
                "the name server answers, but the broker does not at the address that it announced; it will be tried \
                 again. If it is up, set brokerIP1 in its broker.conf to an address that this machine can reach",
            ),
            RequestError::Disconnected { .. } => warn!(
                broker, %address, %error, %cause,
                "the broker can be reached, but ends the connection before it answers; it will be tried again. If it is up, \
                 see whether both sides speak TLS (`tls.enabled`), or none",
            ),
            RequestError::ShutDown { .. } => {}
            _ => {
                warn!(broker, %address, %error, %cause, "the broker does not hear of this client; it will be told again");
            }
        }
    }

    /// Tells every broker, at the same time, that this client leaves a producer group.
    pub(super) async fn unregister_producer(&self, group: &Arc<str>) {
        let mut calls = JoinSet::new();
        for (_, _, address) in self.brokers() {
            calls.spawn(self.unregister(&address, Some(group), None));
        }
        while calls.join_next().await.is_some() {}
    }

    /// Tells a broker that this client leaves a consumer group, so that the others get its queues at once.
    pub(crate) async fn unregister_consumer(&self, address: &Address, group: &Arc<str>) {
        self.unregister(address, None, Some(group)).await;
    }

    /// A broker that does not answer finds out by itself.
    fn unregister(
        &self,
        address: &Address,
        producer_group: Option<&Arc<str>>,
        consumer_group: Option<&Arc<str>>,
    ) -> Boxed<'static, ()> {
        let request = UnregisterClient {
            client_id: self.id.clone(),
            producer_group: producer_group.cloned(),
            consumer_group: consumer_group.cloned(),
        };
        let (remoting, address, limit) =
            (self.remoting.clone(), Arc::clone(address), self.config.request_timeout);
        Box::pin(async move {
            if let Err(error) = remoting.call(&address, &request, bytes::Bytes::new(), limit).await {
                debug!(%address, %error, "the broker did not hear the goodbye, it will notice the end of the connection");
            }
        })
    }
}
