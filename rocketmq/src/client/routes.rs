//! The tables of topics and brokers, and how they are kept true.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time;
use tracing::{debug, error, info, warn};

use super::route::{self, Access, TopicRoute};
use super::transactions::HALF_TOPIC;
use super::{AUTO_CREATE_TOPIC, MqClient};
use crate::message::MessageQueue;
use crate::protocol::body::TopicRouteData;
use crate::protocol::header::GetRouteInfo;
use crate::protocol::{RequestCode, ResponseCode};
use crate::remoting::{Address, RequestError};
use crate::tasks::Boxed;

/// A name server that is silent for this part of `request_timeout` may be gone without a word: the next one is asked as well.
const PATIENCE: u32 = 3;

/// Why the queues of a topic are not known.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// A name server answered: no broker has such a topic.
    #[error(
        "the topic {topic} does not exist in this cluster: create it (`mqadmin updateTopic`), or allow brokers to \
             create topics (`autoCreateTopicEnable=true`)"
    )]
    NoTopic {
        /// The topic.
        topic: String,
    },
    /// The topic exists, but has no queue for what was to be done.
    #[error("the topic {topic} has no queue that can be {access}")]
    NoQueue {
        /// The topic.
        topic: String,
        /// `read` or `written`.
        access: &'static str,
    },
    /// No name server answered.
    #[error("no name server of {} answered", addresses.join(";"))]
    NoNameServer {
        /// All that were asked.
        addresses: Vec<String>,
        /// What came of the last one.
        source: RequestError,
    },
}

#[derive(Debug, Default)]
pub(super) struct RouteTable(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    topics: HashMap<Arc<str>, Arc<TopicRoute>>,
    /// The addresses of every broker that some route names, by name and id.
    brokers: HashMap<Arc<str>, BTreeMap<i64, Address>>,
}

impl RouteTable {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MqClient {
    /// The route of `topic`, asked for if it is not known yet.
    pub(crate) async fn route(&self, topic: &str) -> Result<Arc<TopicRoute>, RouteError> {
        match self.known_route(topic) {
            Some(route) => Ok(route),
            None => self.fetch_route(topic).await,
        }
    }

    /// The route of `topic` as far as it is known.
    pub(crate) fn known_route(&self, topic: &str) -> Option<Arc<TopicRoute>> {
        self.routes.lock().topics.get(topic).cloned()
    }

    /// The route of `topic` as far as it is known, if it has a queue that can be written: one that has none may have been told
    /// while the master was gone.
    pub(crate) fn known_publish_route(&self, topic: &str) -> Option<Arc<TopicRoute>> {
        self.known_route(topic).filter(|route| !route.publish.is_empty())
    }

    /// The route of a topic to send to; of one that does not exist yet, that which brokers would create.
    ///
    /// Source: `behaviour.md` sections 1.3 and 2.3.
    pub(crate) async fn publish_route(
        &self,
        topic: &str,
        default_queues: i32,
    ) -> Result<Arc<TopicRoute>, RouteError> {
        if let Some(route) = self.known_publish_route(topic) {
            return Ok(route);
        }
        match self.fetch_route(topic).await {
            Err(error @ RouteError::NoTopic { .. }) => {
                let template = match self.ask_route(AUTO_CREATE_TOPIC).await {
                    // Brokers do not create topics.
                    Err(RouteError::NoTopic { .. }) => return Err(error),
                    asked => asked?,
                };
                debug!(topic, "the topic does not exist, the first send creates it");
                Ok(self.store(topic, TopicRoute::from_template(topic, template, default_queues)))
            }
            asked => asked,
        }
    }

    /// Asks a name server for the route of `topic` and stores it.
    pub(crate) async fn fetch_route(&self, topic: &str) -> Result<Arc<TopicRoute>, RouteError> {
        let data = self.ask_route(topic).await?;
        Ok(self.store(topic, TopicRoute::new(topic, data)))
    }

    /// Where the broker `name` is reached for `access`.
    pub(crate) fn broker_address(&self, name: &str, access: Access) -> Option<Address> {
        self.routes.lock().brokers.get(name).and_then(|addresses| route::choose(addresses, access)).cloned()
    }

    /// The same, after asking for the topic's route once more if the broker is not known.
    pub(crate) async fn find_broker(
        &self,
        code: RequestCode,
        topic: &str,
        name: &str,
        access: Access,
    ) -> Result<Address, RequestError> {
        if let Some(address) = self.broker_address(name, access) {
            return Ok(address);
        }
        // What became of the question shows in whether the broker is known now.
        let _ = self.fetch_route(topic).await;
        self.broker_address(name, access).ok_or_else(|| RequestError::NoAddress {
            code,
            reason: format!("no address of broker {name} is known for topic {topic}"),
        })
    }

    /// Any broker that holds `topic`, a master if there is one: for what every broker knows.
    pub(crate) fn any_broker_of(&self, topic: &str) -> Option<Address> {
        let tables = self.routes.lock();
        let brokers = tables.topics.get(topic)?.brokers();
        let start = fastrand::usize(..brokers.len().max(1));
        let addresses = || {
            (0..brokers.len()).filter_map(|step| {
                tables.brokers.get(brokers[(start + step) % brokers.len()].broker_name.as_str())
            })
        };
        let master = addresses().find_map(|addresses| route::choose(addresses, Access::Write));
        master.or_else(|| addresses().find_map(|addresses| addresses.values().next())).cloned()
    }

    /// The masters of the brokers that hold `topic`, with their names.
    pub(crate) fn masters_of(&self, topic: &str) -> Vec<(Arc<str>, Address)> {
        let tables = self.routes.lock();
        let brokers = tables.topics.get(topic).map(|route| route.brokers()).unwrap_or_default();
        let master = |name: &str| {
            let (name, addresses) = tables.brokers.get_key_value(name)?;
            Some((Arc::clone(name), Arc::clone(route::choose(addresses, Access::Write)?)))
        };
        brokers.iter().filter_map(|broker| master(&broker.broker_name)).collect()
    }

    /// One address of each broker that holds `topic`, the master's if there is one.
    pub(super) fn addresses_of(&self, topic: &str) -> Vec<Address> {
        let tables = self.routes.lock();
        let brokers = tables.topics.get(topic).map(|route| route.brokers()).unwrap_or_default();
        let addresses = brokers.iter().filter_map(|broker| tables.brokers.get(broker.broker_name.as_str()));
        addresses
            .filter_map(|addresses| route::choose(addresses, Access::Read { broker_id: route::MASTER }))
            .cloned()
            .collect()
    }

    /// Any queue of the broker `name` that some topic has there, for a question that every broker answers.
    pub(crate) fn any_queue_on(&self, name: &str) -> Option<MessageQueue> {
        let tables = self.routes.lock();
        let mut queues = tables.topics.values().flat_map(|route| &route.publish);
        queues.find(|queue| queue.broker_name.as_ref() == name).cloned()
    }

    /// Every broker that this client knows: name, id, address.
    pub(crate) fn brokers(&self) -> Vec<(Arc<str>, i64, Address)> {
        let tables = self.routes.lock();
        let all = tables.brokers.iter().flat_map(|(name, addresses)| {
            addresses.iter().map(|(id, address)| (Arc::clone(name), *id, Arc::clone(address)))
        });
        all.collect()
    }

    /// The brokers whose master is at `address`: one, unless addresses are announced twice.
    pub(super) fn brokers_led_by(&self, address: &Address) -> Vec<Arc<str>> {
        let tables = self.routes.lock();
        let led = tables
            .brokers
            .iter()
            .filter(|(_, addresses)| route::choose(addresses, Access::Write) == Some(address));
        led.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Whether `address` is one that a broker announced.
    pub(super) fn knows_broker(&self, address: &Address) -> bool {
        self.routes.lock().brokers.values().flat_map(BTreeMap::values).any(|known| known == address)
    }

    /// Asks for the routes of all topics in use: those of the consumers, those that were sent to, and the one by which the
    /// brokers of transactions are known.
    pub(super) async fn update_routes(&self) {
        let mut topics: BTreeSet<Arc<str>> = self.routes.lock().topics.keys().cloned().collect();
        topics.extend(self.consumers().iter().flat_map(|consumer| consumer.topics()));
        topics.extend(self.has_checkers().then(|| HALF_TOPIC.into()));
        for topic in topics {
            match self.fetch_route(&topic).await {
                Ok(_) => {}
                Err(error @ RouteError::NoNameServer { .. }) => {
                    warn!(%error, "routes could not be updated, the known ones stay in use");
                    return;
                }
                // A topic that is gone keeps its last route, as in every client: its queues may still hold messages.
                Err(error) => debug!(%topic, %error, "the route could not be updated"),
            }
        }
    }

    /// Forgets brokers that no route names any more and closes their connections.
    pub(super) fn clean_offline_brokers(&self) {
        {
            let tables = &mut *self.routes.lock();
            let mut named: HashMap<&str, BTreeSet<&str>> = HashMap::new();
            for broker in tables.topics.values().flat_map(|route| route.brokers()) {
                named
                    .entry(&broker.broker_name)
                    .or_default()
                    .extend(broker.broker_addrs.values().map(String::as_str));
            }
            tables.brokers.retain(|name, addresses| {
                addresses.retain(|_, address| {
                    named.get(name.as_ref()).is_some_and(|known| known.contains(address.as_ref()))
                });
                !addresses.is_empty()
            });
        }
        let known: BTreeSet<Address> = self.brokers().into_iter().map(|(_, _, address)| address).collect();
        let second: BTreeSet<Address> = known.iter().map(|address| self.vip(address).into_owned()).collect();
        self.versions.retain(|address| known.contains(address));
        self.remoting.retain(|address| {
            known.contains(address) || second.contains(address) || self.name_servers.contains(address)
        });
    }

    fn store(&self, topic: &str, route: TopicRoute) -> Arc<TopicRoute> {
        let route = Arc::new(route);
        let mut newly_led = Vec::new();
        let changed = {
            let tables = &mut *self.routes.lock();
            for broker in route.brokers() {
                let name: Arc<str> = broker.broker_name.as_str().into();
                let addresses: BTreeMap<i64, Address> =
                    broker.broker_addrs.iter().map(|(id, address)| (*id, address.as_str().into())).collect();
                let master = route::choose(&addresses, Access::Write).cloned();
                let before = tables.brokers.insert(Arc::clone(&name), addresses);
                let is_new = |before: &BTreeMap<i64, Address>| {
                    master.is_some() && route::choose(before, Access::Write) != master.as_ref()
                };
                newly_led.extend(before.filter(is_new).map(|_| name));
            }
            let old = tables.topics.insert(topic.into(), Arc::clone(&route));
            old.is_some_and(|old| old != route)
        };
        // A slave that was promoted may be connected already, and has only those of its master's offsets that it has copied.
        for broker in newly_led {
            info!(%broker, "the master of the broker has changed");
            self.consumers().iter().for_each(|consumer| consumer.doubt_stored(&broker));
        }
        if changed {
            info!(topic, queues = route.subscribe.len(), "the route has changed");
            for consumer in self.consumers() {
                if consumer.topics().iter().any(|other| other.as_ref() == topic) {
                    consumer.wake_rebalance();
                }
            }
        }
        route
    }

    /// Asks the name servers, one after the other, until one answers. One that takes its time is still waited for when the next
    /// one is asked.
    async fn ask_route(&self, topic: &str) -> Result<TopicRouteData, RouteError> {
        let turn = self.name_servers.turn();
        let (mut candidates, mut asked, mut last) = (turn.candidates(), JoinSet::new(), None);
        loop {
            let next = candidates.next();
            if let Some(address) = next {
                asked.spawn(self.ask_route_of(topic, address));
            }
            let answer = match next {
                Some(_) => time::timeout(self.config.request_timeout / PATIENCE, asked.join_next()).await,
                None => Ok(asked.join_next().await),
            };
            match answer {
                Err(_) => debug!(address = ?next, "a name server takes its time, the next is asked as well"),
                Ok(Some(Ok((address, Ok(route))))) => {
                    turn.answered(&address);
                    return Ok(route);
                }
                Ok(Some(Ok((address, Err(error)))))
                    if error.response_code() == Some(ResponseCode::TOPIC_NOT_EXIST) =>
                {
                    turn.answered(&address);
                    return Err(RouteError::NoTopic { topic: topic.to_owned() });
                }
                Ok(Some(Ok((address, Err(error))))) => {
                    debug!(%address, %error, "a name server did not answer, the next is asked");
                    last = Some(error);
                }
                Ok(Some(Err(panic))) => error!(%panic, "asking a name server has failed"),
                Ok(None) => break,
            }
        }
        let source = last.unwrap_or_else(|| RequestError::NoAddress {
            code: RequestCode::GET_ROUTEINFO_BY_TOPIC,
            reason: "there is no name server in the list".to_owned(),
        });
        Err(RouteError::NoNameServer {
            addresses: self.name_servers.candidates().map(ToString::to_string).collect(),
            source,
        })
    }

    fn ask_route_of(
        &self,
        topic: &str,
        address: &Address,
    ) -> Boxed<'static, (Address, Result<TopicRouteData, RequestError>)> {
        let request = GetRouteInfo { topic: topic.to_owned(), accept_standard_json_only: Some(true) };
        let (remoting, address, limit) =
            (self.remoting.clone(), Arc::clone(address), self.config.request_timeout);
        Box::pin(async move {
            let answer = remoting.call(&address, &request, Bytes::new(), limit).await;
            (address, answer.map(|route| route.0))
        })
    }
}
