//! Consumer groups: which ones there are, who is in them now, and what they subscribe to.
//!
//! Source: `ConsumerManager`, `ConsumerGroupInfo`, `SubscriptionGroupManager`; `behaviour.md` section 8.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::admin;
use super::endpoint::{Connection, ConnectionId};
use super::names;
use super::pulling::Filter;
use crate::protocol::RemotingCommand;
use crate::protocol::body::{ConsumeFromWhere, ConsumeType, ConsumerData, MessageModel, SubscriptionData};
use crate::remoting::Peer;

/// A member that was not heard of for so long has left.
const MEMBER_LIFE: Duration = Duration::from_secs(120);
/// More groups than a test needs.
const MAX_GROUPS: usize = 10_000;

/// All consumer groups of the broker.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Every group that was ever seen: only these have offsets.
    known: HashSet<Arc<str>>,
    /// Those that have members now.
    online: HashMap<Arc<str>, Group>,
}

#[derive(Debug, Default)]
struct Group {
    model: MessageModel,
    consume_type: ConsumeType,
    consume_from_where: ConsumeFromWhere,
    /// By connection: two members cannot share one.
    members: BTreeMap<ConnectionId, Member>,
    subscriptions: HashMap<String, Subscription>,
}

#[derive(Debug)]
struct Member {
    client_id: String,
    peer: Peer,
    heard: Instant,
    /// As operators see it; `None` before it was described.
    shown: Option<admin::Member>,
}

/// What a group wants of a topic.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) version: i64,
    pub(super) filter: Arc<Filter>,
    /// As members wrote it.
    pub(super) data: SubscriptionData,
}

impl From<&SubscriptionData> for Subscription {
    fn from(data: &SubscriptionData) -> Self {
        Self { version: data.sub_version, filter: Arc::new(Filter::of(data)), data: data.clone() }
    }
}

/// Why a group's subscription of a topic is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsubscribed {
    /// Nobody of the group is here.
    Group,
    /// The group does not subscribe to the topic.
    Topic,
}

/// Those who are to be told that the members of a group have changed.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) group: Arc<str>,
    pub(super) peers: Vec<Peer>,
}

impl Groups {
    /// The group, which is created when it is first named; `None` where its name is not allowed or there are too many.
    pub(super) fn configure(&mut self, name: &str) -> Option<Arc<str>> {
        if let Some(known) = self.known.get(name) {
            return Some(Arc::clone(known));
        }
        if !names::is_legal_group(name) || self.known.len() >= MAX_GROUPS {
            return None;
        }
        let name: Arc<str> = name.into();
        self.known.insert(Arc::clone(&name));
        Some(name)
    }

    pub(super) fn known(&self, name: &str) -> Option<&Arc<str>> {
        self.known.get(name)
    }

    /// Takes in what a heartbeat says of one group. `None` where nothing has changed, or nobody needs to know.
    pub(super) fn register(
        &mut self,
        name: &Arc<str>,
        from: &Connection,
        client_id: &str,
        data: &ConsumerData,
        without_subscriptions: bool,
        now: Instant,
    ) -> Option<Changed> {
        let group = self.online.entry(Arc::clone(name)).or_default();
        group.model = data.message_model;
        group.consume_type = data.consume_type;
        group.consume_from_where = data.consume_from_where;
        let member =
            Member { client_id: client_id.to_owned(), peer: from.peer.clone(), heard: now, shown: None };
        let is_new = group.members.insert(from.id, member).is_none();
        let has_other_topics = !without_subscriptions && group.subscribe(&data.subscription_data_set);
        (is_new || has_other_topics).then(|| group.changed(name)).flatten()
    }

    /// Notes what operators want to see of a member, from its heartbeat.
    pub(super) fn describe(&mut self, group: &str, from: &Connection, heartbeat: &RemotingCommand) {
        let group = self.online.get_mut(group);
        if let Some(member) = group.and_then(|group| group.members.get_mut(&from.id)) {
            member.shown = Some(admin::Member {
                client_addr: from.remote.to_string(),
                client_id: member.client_id.clone(),
                language: heartbeat.language_name(),
                version: heartbeat.version,
            });
        }
    }

    /// One member leaves one group.
    pub(super) fn unregister(&mut self, name: &str, connection: ConnectionId) -> Option<Changed> {
        let (name, group) = self.online.get_key_value(name)?;
        let name = Arc::clone(name);
        if !group.members.contains_key(&connection) {
            return None;
        }
        self.remove_members(&name, |id, _| *id == connection)
    }

    /// A connection is gone, and with it the members that came over it.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) -> Vec<Changed> {
        self.remove_everywhere(|id, _| *id == connection)
    }

    /// Removes those who were not heard of for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Changed> {
        self.remove_everywhere(|_, member| MEMBER_LIFE < now.saturating_duration_since(member.heard))
    }

    /// Nobody is here any more.
    pub(super) fn clear_members(&mut self) {
        self.online.clear();
    }

    fn remove_everywhere(&mut self, goes: impl Fn(&ConnectionId, &Member) -> bool) -> Vec<Changed> {
        let concerned = |group: &Group| group.members.iter().any(|(id, member)| goes(id, member));
        let names: Vec<_> = self
            .online
            .iter()
            .filter(|(_, group)| concerned(group))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        names.iter().filter_map(|name| self.remove_members(name, &goes)).collect()
    }

    /// Removes members of a group, and the group's subscriptions with its last member.
    fn remove_members(
        &mut self,
        name: &Arc<str>,
        goes: impl Fn(&ConnectionId, &Member) -> bool,
    ) -> Option<Changed> {
        let group = self.online.get_mut(name)?;
        group.members.retain(|id, member| !goes(id, member));
        let changed = group.changed(name);
        if group.members.is_empty() {
            self.online.remove(name);
        }
        changed
    }

    /// The client ids of the members, in the order in which they came.
    pub(super) fn members(&self, name: &str) -> Vec<String> {
        let members = self.online.get(name).map(|group| group.members.values());
        members.into_iter().flatten().map(|member| member.client_id.clone()).collect()
    }

    /// The members with their client ids, in the order in which they came.
    pub(super) fn peers(&self, name: &str) -> Vec<(String, Peer)> {
        let members = self.online.get(name).map(|group| group.members.values());
        members.into_iter().flatten().map(|member| (member.client_id.clone(), member.peer.clone())).collect()
    }

    /// The member with this client id.
    pub(super) fn peer(&self, name: &str, client_id: &str) -> Option<Peer> {
        let members = self.online.get(name)?.members.values();
        members.rev().find(|member| member.client_id == client_id).map(|member| member.peer.clone())
    }

    /// The group as operators see it; `None` where nobody is there.
    pub(super) fn connections(&self, name: &str) -> Option<admin::ConsumerConnection> {
        let group = self.online.get(name)?;
        let subscriptions = group.subscriptions.iter();
        Some(admin::ConsumerConnection {
            connection_set: group.members.values().filter_map(|member| member.shown.clone()).collect(),
            subscription_table: subscriptions.map(|(topic, one)| (topic.clone(), one.data.clone())).collect(),
            consume_type: group.consume_type,
            message_model: group.model,
            consume_from_where: group.consume_from_where,
        })
    }

    /// The groups with members that subscribe to a topic.
    pub(super) fn subscribers(&self, topic: &str) -> Vec<Arc<str>> {
        let groups = self.online.iter().filter(|(_, group)| group.subscriptions.contains_key(topic));
        groups.map(|(name, _)| Arc::clone(name)).collect()
    }

    pub(super) fn subscription(&self, group: &str, topic: &str) -> Result<&Subscription, Unsubscribed> {
        let group = self.online.get(group).ok_or(Unsubscribed::Group)?;
        group.subscriptions.get(topic).ok_or(Unsubscribed::Topic)
    }
}

impl Group {
    /// Takes the newer of each topic's two subscriptions; returns whether a topic came or went. A mere change of an
    /// expression concerns nobody else.
    fn subscribe(&mut self, wanted: &[SubscriptionData]) -> bool {
        let mut has_other_topics = false;
        for data in wanted {
            match self.subscriptions.get(&data.topic) {
                Some(old) if data.sub_version <= old.version => {}
                old => {
                    has_other_topics |= old.is_none();
                    self.subscriptions.insert(data.topic.clone(), data.into());
                }
            }
        }
        let topics: HashSet<_> = wanted.iter().map(|data| data.topic.as_str()).collect();
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| topics.contains(topic.as_str()));
        has_other_topics || self.subscriptions.len() < before
    }

    /// Whom to tell of a change: nobody where each member gets all messages anyway.
    fn changed(&self, name: &Arc<str>) -> Option<Changed> {
        if self.model == MessageModel::Broadcasting || self.members.is_empty() {
            return None;
        }
        let peers = self.members.values().map(|member| member.peer.clone()).collect();
        Some(Changed { group: Arc::clone(name), peers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::HeaderForm;

    fn connection(id: u64) -> Connection {
        let (peer, _) = Peer::new("127.0.0.1:1".into(), HeaderForm::Json);
        Connection { id: ConnectionId(id), peer, remote: "127.0.0.1:1".parse().unwrap() }
    }

    fn data(topics: &[(&str, i64, &str)]) -> ConsumerData {
        let subscription = |(topic, version, tags): &(&str, i64, &str)| SubscriptionData {
            topic: (*topic).into(),
            sub_string: (*tags).into(),
            sub_version: *version,
            ..SubscriptionData::default()
        };
        ConsumerData {
            subscription_data_set: topics.iter().map(subscription).collect(),
            ..ConsumerData::default()
        }
    }

    /// The number of those who are told.
    fn told(changed: Option<Changed>) -> usize {
        changed.map_or(0, |changed| changed.peers.len())
    }

    #[test]
    fn members_are_told_of_members_and_topics_but_not_of_expressions() {
        let mut groups = Groups::default();
        let name = groups.configure("g").unwrap();
        let (one, two) = (connection(1), connection(2));
        let now = Instant::now();
        let mut register = |from: &Connection, topics: &[(&str, i64, &str)]| {
            told(groups.register(&name, from, "id", &data(topics), false, now))
        };
        assert_eq!(register(&one, &[("t", 1, "*")]), 1, "a first member");
        assert_eq!(register(&one, &[("t", 1, "*")]), 0, "the same again");
        assert_eq!(register(&two, &[("t", 1, "*")]), 2, "a second member");
        assert_eq!(register(&two, &[("t", 2, "a")]), 0, "another expression");
        assert_eq!(register(&two, &[("t", 2, "a"), ("u", 2, "*")]), 2, "another topic");
        assert_eq!(register(&two, &[("u", 2, "*")]), 2, "a topic less");
        assert_eq!(told(groups.unregister("g", two.id)), 1);
        assert_eq!(told(groups.unregister("g", two.id)), 0);
        assert_eq!(groups.subscription("g", "t").unwrap_err(), Unsubscribed::Topic);
        groups.disconnect(one.id);
        assert_eq!(groups.subscription("g", "u").unwrap_err(), Unsubscribed::Group);
    }

    #[test]
    fn of_two_subscriptions_the_newer_counts() {
        let mut groups = Groups::default();
        let name = groups.configure("g").unwrap();
        for (version, kept) in [(5, 5), (4, 5), (6, 6)] {
            groups.register(
                &name,
                &connection(1),
                "id",
                &data(&[("t", version, "*")]),
                false,
                Instant::now(),
            );
            assert_eq!(groups.subscription("g", "t").unwrap().version, kept);
        }
    }

    #[test]
    fn a_broadcasting_group_is_not_told() {
        let mut groups = Groups::default();
        let name = groups.configure("g").unwrap();
        let data = ConsumerData { message_model: MessageModel::Broadcasting, ..data(&[("t", 1, "*")]) };
        assert_eq!(told(groups.register(&name, &connection(1), "id", &data, false, Instant::now())), 0);
    }

    #[test]
    fn a_silent_member_leaves() {
        let mut groups = Groups::default();
        let name = groups.configure("g").unwrap();
        let start = Instant::now();
        groups.register(&name, &connection(1), "one", &data(&[]), false, start);
        groups.register(&name, &connection(2), "two", &data(&[]), false, start + MEMBER_LIFE / 2);
        assert_eq!(groups.expire(start + MEMBER_LIFE).len(), 0);
        assert_eq!(groups.expire(start + MEMBER_LIFE + Duration::from_secs(1)).len(), 1);
        assert_eq!(groups.members("g"), ["two"]);
    }
}
