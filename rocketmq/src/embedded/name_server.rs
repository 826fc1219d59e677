//! The name server: where the broker is, as long as it is there. Source: `protocol.md` sections 2.3 and 3.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::broker::Broker;
use super::endpoint::{Connection, Service};
use super::names::{BROKER_NAME, CLUSTER_NAME};
use super::state::Refusal;
use crate::protocol::body::{BrokerData, ClusterInfo, QueueData, TopicList, TopicRouteData};
use crate::protocol::header::GetRouteInfo;
use crate::protocol::{Header, RemotingCommand, RequestCode, ResponseCode, json};
use crate::remoting::Answer;

/// A name server that knows one broker, and all about it at any time.
#[derive(Debug)]
pub(super) struct NameServer {
    broker: Arc<Broker>,
    broker_address: SocketAddr,
}

impl NameServer {
    pub(super) fn new(broker: Arc<Broker>, broker_address: SocketAddr) -> Self {
        Self { broker, broker_address }
    }

    fn answer(&self, command: &RemotingCommand) -> Result<Vec<u8>, Refusal> {
        match command.request_code() {
            RequestCode::GET_ROUTEINFO_BY_TOPIC => {
                self.route(&GetRouteInfo::read(&command.ext_fields)?.topic).map(|route| json::write(&route))
            }
            RequestCode::GET_BROKER_CLUSTER_INFO => Ok(json::write(&self.cluster())),
            RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => Ok(json::write(&self.topics())),
            _ => {
                let remark = format!(" request type {} not supported", command.code);
                Err(Refusal::new(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark))
            }
        }
    }

    fn route(&self, topic: &str) -> Result<TopicRouteData, Refusal> {
        let config = self.broker.with_state(|state| state.store.topic(topic).map(|topic| topic.config));
        let Some(config) = config.filter(|_| self.broker.is_open()) else {
            let remark = format!("No topic route info in name server for the topic: {topic}");
            return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
        };
        let queues = QueueData {
            broker_name: BROKER_NAME.to_owned(),
            read_queue_nums: config.read_queues,
            write_queue_nums: config.write_queues,
            perm: config.perm,
            topic_sys_flag: 0,
        };
        Ok(TopicRouteData {
            order_topic_conf: None,
            queue_datas: vec![queues],
            broker_datas: vec![self.broker_data()],
        })
    }

    fn cluster(&self) -> ClusterInfo {
        if !self.broker.is_open() {
            return ClusterInfo::default();
        }
        ClusterInfo {
            broker_addr_table: BTreeMap::from([(BROKER_NAME.to_owned(), self.broker_data())]),
            cluster_addr_table: BTreeMap::from([(CLUSTER_NAME.to_owned(), vec![BROKER_NAME.to_owned()])]),
        }
    }

    fn topics(&self) -> TopicList {
        if !self.broker.is_open() {
            return TopicList::default();
        }
        let names = self.broker.with_state(|state| {
            state.store.topics().into_iter().map(|topic| topic.name.to_string()).collect()
        });
        TopicList { topic_list: names }
    }

    fn broker_data(&self) -> BrokerData {
        BrokerData {
            cluster: CLUSTER_NAME.to_owned(),
            broker_name: BROKER_NAME.to_owned(),
            broker_addrs: BTreeMap::from([(0, self.broker_address.to_string())]),
        }
    }
}

impl Service for NameServer {
    fn request(&self, _: &Connection, command: RemotingCommand, answer: Answer) {
        let response = match self.answer(&command) {
            Ok(body) => RemotingCommand::response(ResponseCode::SUCCESS, None).with_body(body),
            Err(refusal) => refusal.into_command(),
        };
        answer.send(response);
    }
}
