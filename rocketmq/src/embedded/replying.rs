//! Replies: passed on to the client that waits, and kept as the topic's messages.
//!
//! Source: `ReplyMessageProcessor`, `ProducerManager.findChannel`, `ProducerManager.getAvailableChannel`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::clock::Now;
use super::effects::Effects;
use super::endpoint::{Connection, ConnectionId};
use super::sending::SendRequest;
use super::state::{Refusal, State};
use crate::message::properties;
use crate::protocol::header::{Header, PushReply, SendMessageResponse};
use crate::protocol::{RemotingCommand, Request, ResponseCode};
use crate::remoting::Peer;

/// How long a requester has to say that it has the reply. Source: `Broker2Client.callClient`.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that was not heard of for so long is not there. Source: `ProducerManager`.
const CLIENT_LIFE: Duration = Duration::from_secs(120);

/// The clients of producers, by their connections.
#[derive(Debug, Default)]
pub(super) struct Requesters {
    clients: BTreeMap<ConnectionId, Requester>,
    /// How often any of a group was looked for.
    turn: usize,
}

#[derive(Debug)]
struct Requester {
    client_id: String,
    /// Their producer groups.
    groups: BTreeSet<String>,
    peer: Peer,
    heard: Instant,
}

/// A reply on its way to who asked.
#[derive(Debug)]
pub(super) struct Push {
    to: String,
    peer: Peer,
    command: RemotingCommand,
    stored: SendMessageResponse,
}

impl Requesters {
    /// Takes in that a client with producers lives.
    pub(super) fn register(
        &mut self,
        connection: &Connection,
        client_id: &str,
        groups: BTreeSet<String>,
        now: Instant,
    ) {
        let (client_id, peer) = (client_id.to_owned(), connection.peer.clone());
        self.clients.insert(connection.id, Requester { client_id, groups, peer, heard: now });
    }

    /// A client has no producer of `group` any more.
    pub(super) fn leave(&mut self, connection: ConnectionId, group: &str) {
        if let Some(requester) = self.clients.get_mut(&connection) {
            requester.groups.remove(group);
        }
    }

    /// The way to a client with a producer of `group`, to another one each time.
    pub(super) fn any_of(&mut self, group: &str) -> Option<Peer> {
        let peers: Vec<_> = self
            .clients
            .values()
            .filter(|client| client.groups.contains(group))
            .map(|one| &one.peer)
            .collect();
        self.turn = self.turn.wrapping_add(1);
        peers.get(self.turn % peers.len().max(1)).map(|peer| Peer::clone(peer))
    }

    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        self.clients.remove(&connection);
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.clients.retain(|_, requester| now.saturating_duration_since(requester.heard) <= CLIENT_LIFE);
    }

    pub(super) fn clear(&mut self) {
        self.clients.clear();
    }

    /// The way to a client: over the newest of its connections.
    fn find(&self, client_id: &str) -> Option<&Peer> {
        let mut newest_first = self.clients.values().rev();
        newest_first.find(|requester| requester.client_id == client_id).map(|requester| &requester.peer)
    }
}

impl State {
    /// Stores a reply, and says to whom it is to be passed on. It stays stored where that fails.
    pub(super) fn reply(
        &mut self,
        send: &SendRequest,
        now: Now,
        effects: &mut Effects,
    ) -> Result<Push, Refusal> {
        let stored = self.send(send, now, effects)?;
        let refuse = |remark: String| Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        let sent = send.header.properties.as_deref().unwrap_or_default();
        let Some(to) = properties::find(sent, properties::REPLY_TO_CLIENT) else {
            return refuse(format!("reply message properties[{}] is null", properties::REPLY_TO_CLIENT));
        };
        let Some(peer) = self.requesters.find(to) else {
            return refuse(format!("push reply message fail, channel of <{to}> not found."));
        };
        let header = self.push_header(send, sent, now);
        let command = RemotingCommand::request(PushReply::CODE, header.to_fields(), send.body.clone());
        Ok(Push { to: to.to_owned(), peer: peer.clone(), command, stored })
    }

    fn push_header(&self, SendRequest { header, from, .. }: &SendRequest, sent: &str, now: Now) -> PushReply {
        let pushed = now.unix_ms.to_string();
        let all = properties::iter(sent).chain([(properties::PUSH_REPLY_TIME, pushed.as_str())]);
        PushReply {
            producer_group: header.producer_group.to_string(),
            topic: header.topic.to_string(),
            default_topic: header.default_topic.to_string(),
            default_topic_queue_nums: header.default_topic_queue_nums,
            queue_id: header.queue_id,
            sys_flag: header.sys_flag,
            born_timestamp: header.born_timestamp,
            flag: header.flag,
            properties: Some(properties::encode(all)),
            reconsume_times: header.reconsume_times,
            unit_mode: header.unit_mode,
            born_host: from.to_string(),
            store_host: self.store.host().to_string(),
            store_timestamp: now.unix_ms,
        }
    }
}

impl Push {
    /// Passes the reply on, and waits until its requester says that it has it.
    pub(super) async fn carry_out(self) -> Result<SendMessageResponse, Refusal> {
        let pushed = self.peer.call(self.command, PUSH_TIMEOUT).await;
        match pushed.map(|answer| answer.response_code()) {
            Ok(ResponseCode::SUCCESS) => Ok(self.stored),
            _ => {
                let remark = format!("push reply message to {}fail.", self.to);
                Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
            }
        }
    }
}
