//! What the broker's state has decided and others have to learn: carried out once its lock is free.

use super::groups::Changed;
use super::pulling::PullReply;
use super::state::Refusal;
use crate::protocol::header::{Header, NotifyConsumerIdsChanged};
use crate::protocol::{RemotingCommand, Request};
use crate::remoting::{Answer, Peer};

/// Answers to send and members to tell.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pulled: Vec<(Answer, Result<PullReply, Refusal>)>,
    answers: Vec<(Answer, RemotingCommand)>,
    changed: Vec<Changed>,
    pushed: Vec<(Peer, RemotingCommand)>,
}

impl Effects {
    pub(super) fn answer(&mut self, answer: Answer, pulled: Result<PullReply, Refusal>) {
        self.pulled.push((answer, pulled));
    }

    pub(super) fn send(&mut self, answer: Answer, command: RemotingCommand) {
        self.answers.push((answer, command));
    }

    pub(super) fn tell(&mut self, changed: impl IntoIterator<Item = Changed>) {
        self.changed.extend(changed);
    }

    /// Tells others something that they do not answer.
    pub(super) fn push(&mut self, commands: impl IntoIterator<Item = (Peer, RemotingCommand)>) {
        self.pushed.extend(commands);
    }

    pub(super) fn carry_out(self) {
        for (peer, command) in self.pushed {
            // As with any broker, one that is too busy does not hear of it.
            peer.try_oneway(command);
        }
        for Changed { group, peers } in self.changed {
            let header = NotifyConsumerIdsChanged { consumer_group: group.to_string() };
            let notification = RemotingCommand::request(
                NotifyConsumerIdsChanged::CODE,
                header.to_fields(),
                Default::default(),
            );
            for peer in peers {
                // One that is too busy to be told finds out at its next rebalance.
                peer.try_oneway(notification.clone());
            }
        }
        for (answer, command) in self.answers {
            answer.send(command);
        }
        for (answer, pulled) in self.pulled {
            answer.send(pulled.map_or_else(Refusal::into_command, PullReply::into_command));
        }
    }
}
