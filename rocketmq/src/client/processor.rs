//! What brokers ask of a client by themselves. Source: `behaviour.md` section 5.

use std::io;
use std::sync::Weak;

use tracing::{debug, warn};

use super::MqClient;
use crate::protocol::header::{Header, NotifyConsumerIdsChanged, PushReply};
use crate::protocol::{RemotingCommand, RequestCode, ResponseCode};
use crate::remoting::{Address, Answer, Inbound};

/// Answers for a client without keeping it alive.
pub(super) struct Processor(Weak<MqClient>);

impl Processor {
    pub(super) fn new(client: Weak<MqClient>) -> Self {
        Self(client)
    }
}

impl Inbound for Processor {
    /// A broker that has just been connected does not know this client's groups, and refuses their pulls until it does. One
    /// that was killed does not know the last offsets either.
    fn connected(&self, address: &Address) {
        // A name server has no groups, and at the second port of a broker they would be counted twice.
        let Some(client) = self.0.upgrade().filter(|client| client.knows_broker(address)) else {
            return;
        };
        client.versions.forget(address);
        for broker in client.brokers_led_by(address) {
            client.consumers().iter().for_each(|consumer| consumer.doubt_stored(&broker));
        }
        let address = Address::clone(address);
        client.tasks().clone().spawn("heartbeat after connecting", async move {
            let heard = client.heartbeat(&address, client.config().request_timeout);
            if let Some(Ok(_)) = client.tasks().stopping().run_until_cancelled(heard).await {
                client.consumers().iter().for_each(|consumer| consumer.wake_rebalance());
            }
        });
    }

    /// The mistake of every beginner with a broker in a container: what it announces is reached from its own network only.
    fn unreachable(&self, address: &Address, error: &io::Error) {
        let Some(client) = self.0.upgrade() else { return };
        let Some((broker, ..)) = client.brokers().into_iter().find(|(.., known)| known == address) else {
            return;
        };
        let Some(name_server) = client.name_servers.candidates().next() else { return };
        warn!(
            %error,
            "the name server {name_server} answers, but broker {broker} announced {address}, which does not; if this \
             lasts, set brokerIP1 in the broker's broker.conf to an address this machine can reach",
        );
    }

    fn request(&self, address: &Address, command: RemotingCommand, answer: Answer) {
        let Some(client) = self.0.upgrade() else { return };
        match command.request_code() {
            RequestCode::NOTIFY_CONSUMER_IDS_CHANGED => {
                match NotifyConsumerIdsChanged::read(&command.ext_fields) {
                    Ok(NotifyConsumerIdsChanged { consumer_group }) => {
                        debug!(group = consumer_group, %address, "the members of the group have changed");
                        if let Some(consumer) = client.consumer(&consumer_group) {
                            consumer.wake_rebalance();
                        }
                    }
                    Err(error) => warn!(%address, %error, "a notification could not be read"),
                }
            }
            RequestCode::RESET_CONSUMER_CLIENT_OFFSET
            | RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT
            | RequestCode::GET_CONSUMER_RUNNING_INFO
            | RequestCode::CONSUME_MESSAGE_DIRECTLY => client.obey(address, command, answer),
            RequestCode::CHECK_TRANSACTION_STATE => client.ask_checker(address, &command),
            RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT => {
                let taken = PushReply::read(&command.ext_fields)
                    .map_err(|error| error.to_string())
                    .and_then(|header| client.take_reply(address, header, &command.body));
                answer.send(match taken {
                    Ok(()) => RemotingCommand::response(ResponseCode::SUCCESS, None),
                    Err(reason) => {
                        warn!(%address, reason, "a reply could not be read");
                        RemotingCommand::response(ResponseCode::SYSTEM_ERROR, reason)
                    }
                });
            }
            code => {
                debug!(%address, %code, "the broker asked for something that this client does not do");
                answer.unsupported(&command);
            }
        }
    }
}
