//! Whether brokers can filter by an expression: asked before they are pulled from. Source: `behaviour.md` section 3.2.

use tracing::{debug, warn};

use super::MqClient;
use super::broker_version::BrokerVersion;
use crate::config::Startup;
use crate::protocol::body::{CheckClientConfig, SubscriptionData};
use crate::protocol::header::CheckClient;
use crate::protocol::{ResponseCode, json};
use crate::remoting::{Address, RequestError};
use crate::sql::Selector;

const SQL92: &str = "SQL92";

impl MqClient {
    /// Asks every broker of a topic whether it filters by this subscription, if that is an expression of SQL92. A topic
    /// that is not there yet has nobody to be asked.
    ///
    /// # Errors
    ///
    /// In words for people: a broker's own, where it says no; that none answered, unless `startup: wait`.
    pub(crate) async fn check_filter(
        &self,
        group: &str,
        subscription: &SubscriptionData,
    ) -> Result<(), String> {
        if subscription.expression_type != SQL92 {
            return Ok(());
        }
        let SubscriptionData { topic, sub_string: sql, .. } = subscription;
        let read = Selector::parse(sql);
        if let Ok(selector) = &read
            && let Some(ignored) = selector.ignored()
        {
            warn!(group, %topic, sql, ignored, "brokers pass over a part of the expression in silence: what stands there is no operator that they know");
        }
        let addresses = self.addresses_of(topic);
        let mut last = None;
        let mut answered = addresses.is_empty();
        for address in &addresses {
            match self.ask_filter(address, group, subscription).await {
                Ok(()) => {
                    answered = true;
                    let needs_v5 = read.as_ref().is_ok_and(Selector::needs_v5);
                    self.warn_of_old(address, subscription, needs_v5).await;
                }
                Err(RequestError::Refused { response, remark, .. }) => {
                    let advice = match (response, &read) {
                        (ResponseCode::SUBSCRIPTION_PARSE_FAILED, Err(error)) => format!(" ({error})"),
                        (ResponseCode::SUBSCRIPTION_PARSE_FAILED, Ok(_)) => String::new(),
                        _ => {
                            "; set enablePropertyFilter=true in its broker.conf, or choose by tag".to_owned()
                        }
                    };
                    // What else could stand there instead of the mistake is told better by us.
                    let remark = remark.trim().lines().next().unwrap_or_default();
                    return Err(format!(
                        "the broker {address} does not filter {topic} by sql = {sql:?}: it answers {response}: {remark}{advice}"
                    ));
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if !answered && self.config().startup == Startup::Fail => Err(format!(
                "no broker of {topic} could be asked whether it filters by sql = {sql:?}: {error}; with `startup: wait` that is no condition"
            )),
            Some(error) => {
                warn!(group, %topic, %error, "a broker could not be asked whether it filters by SQL92");
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn ask_filter(
        &self,
        address: &Address,
        group: &str,
        subscription: &SubscriptionData,
    ) -> Result<(), RequestError> {
        let body = CheckClientConfig {
            client_id: self.id().to_owned(),
            group: group.to_owned(),
            subscription_data: subscription.clone(),
        };
        let limit = self.config().request_timeout;
        self.remoting.call(&self.vip(address), &CheckClient, json::write(&body).into(), limit).await
    }

    /// Brokers before 5.0 take `CONTAINS` and its like for the end of the expression, which then matches nothing.
    async fn warn_of_old(&self, address: &Address, subscription: &SubscriptionData, needs_v5: bool) {
        if !needs_v5 {
            return;
        }
        match self.broker_version(address, self.config().request_timeout).await {
            Ok(version) if version < BrokerVersion::V5_0_0 => {
                let SubscriptionData { topic, sub_string: sql, .. } = subscription;
                warn!(%address, %version, %topic, sql, "the broker does not know CONTAINS, STARTSWITH and ENDSWITH, and passes over them in silence: its messages will not match");
            }
            Ok(_) => {}
            Err(error) => debug!(%address, %error, "the broker's release is not known"),
        }
    }
}
