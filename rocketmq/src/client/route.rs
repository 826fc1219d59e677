//! What a route means: which queues may be written, which may be read, and where their brokers are.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::message::MessageQueue;
use crate::protocol::body::{BrokerData, QueueData, TopicRouteData, perm};
use crate::remoting::Address;

/// The id of a master among the addresses of its broker.
pub(crate) const MASTER: i64 = 0;

/// The queues of one topic, as a name server gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicRoute {
    data: TopicRouteData,
    /// Where messages may be sent, in an order that all clients share.
    pub(crate) publish: Vec<MessageQueue>,
    /// Where messages may be read, sorted.
    pub(crate) subscribe: Vec<MessageQueue>,
}

impl TopicRoute {
    /// Reads a route. Source: `behaviour.md` section 1.3, `MQClientInstance.topicRouteData2TopicPublishInfo`.
    pub(super) fn new(topic: &str, mut data: TopicRouteData) -> Self {
        data.queue_datas.sort();
        data.broker_datas.sort();
        let topic: Arc<str> = topic.into();
        Self { publish: publish_queues(&topic, &data), subscribe: subscribe_queues(&topic, &data), data }
    }

    /// The route of a topic that is to be created with the settings of `template`: brokers make it on the first
    /// send, with at most `queues` queues each.
    pub(super) fn from_template(topic: &str, mut template: TopicRouteData, queues: i32) -> Self {
        for data in &mut template.queue_datas {
            let queues = queues.min(data.read_queue_nums);
            data.read_queue_nums = queues;
            data.write_queue_nums = queues;
        }
        Self::new(topic, template)
    }

    pub(super) fn brokers(&self) -> &[BrokerData] {
        &self.data.broker_datas
    }
}

fn publish_queues(topic: &Arc<str>, data: &TopicRouteData) -> Vec<MessageQueue> {
    if let Some(conf) = data.order_topic_conf.as_deref().filter(|conf| !conf.is_empty()) {
        let brokers = conf.split(';').filter_map(|broker| broker.split_once(':'));
        return brokers
            .flat_map(|(name, queues)| queues_of(topic, name, queues.parse().unwrap_or_default()))
            .collect();
    }
    let has_master = |queue: &QueueData| {
        let mut brokers = data.broker_datas.iter();
        brokers.any(|broker| {
            broker.broker_name == queue.broker_name && broker.broker_addrs.contains_key(&MASTER)
        })
    };
    let writable = data.queue_datas.iter().filter(|queue| queue.perm & perm::WRITE != 0 && has_master(queue));
    writable.flat_map(|queue| queues_of(topic, &queue.broker_name, queue.write_queue_nums)).collect()
}

/// A master is not needed for reading: a slave will do.
fn subscribe_queues(topic: &Arc<str>, data: &TopicRouteData) -> Vec<MessageQueue> {
    let readable = data.queue_datas.iter().filter(|queue| queue.perm & perm::READ != 0);
    readable.flat_map(|queue| queues_of(topic, &queue.broker_name, queue.read_queue_nums)).collect()
}

fn queues_of(topic: &Arc<str>, broker: &str, queues: i32) -> impl Iterator<Item = MessageQueue> + use<> {
    let (topic, broker): (_, Arc<str>) = (Arc::clone(topic), broker.into());
    (0..queues).map(move |id| MessageQueue::new(Arc::clone(&topic), Arc::clone(&broker), id))
}

/// For what a broker is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only the master will do.
    Write,
    /// This member of the broker if it is there, else another one.
    Read { broker_id: i64 },
}

/// The address for `access` among those of one broker. Source: `behaviour.md` section 1.3, "address choice".
pub(super) fn choose(addresses: &BTreeMap<i64, Address>, access: Access) -> Option<&Address> {
    match access {
        Access::Write => addresses.get(&MASTER),
        Access::Read { broker_id } => {
            let next = (broker_id != MASTER).then(|| addresses.get(&(broker_id + 1))).flatten();
            addresses.get(&broker_id).or(next).or_else(|| addresses.values().next())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(name: &str, ids: &[i64]) -> BrokerData {
        let broker_addrs = ids.iter().map(|id| (*id, format!("{name}:{id}"))).collect();
        BrokerData { cluster: "c".into(), broker_name: name.into(), broker_addrs }
    }

    fn queues(name: &str, queues: i32, perm: i32) -> QueueData {
        QueueData {
            broker_name: name.into(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            perm,
            topic_sys_flag: 0,
        }
    }

    fn names(queues: &[MessageQueue]) -> Vec<String> {
        queues.iter().map(|queue| format!("{}{}", queue.broker_name, queue.queue_id)).collect()
    }

    #[test]
    fn queues_without_the_permission_or_a_master_are_not_written_but_a_slave_is_read() {
        let route = TopicRoute::new(
            "t",
            TopicRouteData {
                order_topic_conf: None,
                queue_datas: vec![queues("b", 2, 6), queues("a", 1, 4), queues("c", 1, 6), queues("d", 1, 2)],
                broker_datas: vec![
                    broker("a", &[0]),
                    broker("b", &[0, 1]),
                    broker("c", &[1]),
                    broker("d", &[0]),
                ],
            },
        );
        assert_eq!(names(&route.publish), ["b0", "b1", "d0"]);
        assert_eq!(names(&route.subscribe), ["a0", "b0", "b1", "c0"]);
    }

    #[test]
    fn an_order_configuration_names_the_queues_to_send_to() {
        let data = TopicRouteData { order_topic_conf: Some("z:1;a:2".into()), ..TopicRouteData::default() };
        assert_eq!(names(&TopicRoute::new("t", data).publish), ["z0", "a0", "a1"]);
    }

    #[test]
    fn a_topic_to_be_created_has_no_more_queues_than_the_template() {
        for (wanted, expected) in [(4, 4), (16, 8)] {
            let template = TopicRouteData {
                queue_datas: vec![queues("a", 8, 7)],
                broker_datas: vec![broker("a", &[0])],
                ..TopicRouteData::default()
            };
            assert_eq!(TopicRoute::from_template("t", template, wanted).publish.len(), expected);
        }
    }

    #[test]
    fn a_reader_takes_what_is_there_and_a_writer_only_the_master() {
        let both: BTreeMap<i64, Address> = [(0, "m".into()), (1, "s".into())].into();
        let slave: BTreeMap<i64, Address> = [(2, "s".into())].into();
        assert_eq!(choose(&both, Access::Read { broker_id: 1 }).unwrap().as_ref(), "s");
        assert_eq!(choose(&slave, Access::Read { broker_id: 0 }).unwrap().as_ref(), "s");
        assert_eq!(choose(&slave, Access::Read { broker_id: 1 }).unwrap().as_ref(), "s");
        assert_eq!(choose(&slave, Access::Write), None);
    }
}
