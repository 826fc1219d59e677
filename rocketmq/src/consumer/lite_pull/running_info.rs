//! What a lite pull consumer is doing, for operators. Source: `behaviour.md` section 5.

use std::collections::BTreeMap;
use std::time::Duration;

use super::running::Running;
use crate::client::GroupMember;
use crate::config::{FixedQueue, LitePullConfig};
use crate::consumer::running_info::{
    Clock, client_properties, common_properties, consume_from, held_info, strategy,
};
use crate::protocol::broker_calls::{ConsumerRunningInfo, ProcessQueueInfo};

impl Running {
    pub(super) fn describe(&self) -> ConsumerRunningInfo {
        let clock = Clock::now();
        let mut properties = properties(&self.config);
        properties.extend(client_properties(self.client.config()));
        properties.extend(common_properties("CONSUME_ACTIVELY", &self.group, self.started_at));
        let info = |queue: &super::queue::AssignedQueue| ProcessQueueInfo {
            commit_offset: queue.offset().unwrap_or(-1),
            droped: queue.is_dropped(),
            ..held_info(queue.summary(), clock)
        };
        ConsumerRunningInfo {
            properties,
            subscription_set: self.consumer_data().subscription_data_set,
            mq_table: self.queues().iter().map(|queue| (queue.queue.clone(), info(queue))).collect(),
            ..ConsumerRunningInfo::default()
        }
    }
}

/// Every setting, with the names of Java's fields where Java has them.
fn properties(config: &LitePullConfig) -> BTreeMap<String, String> {
    let LitePullConfig {
        auto_commit,
        auto_commit_interval,
        pull_batch,
        pull_suspend,
        pull_timeout,
        pull_error_delay,
        messages,
        messages_per_queue,
        mib_per_queue,
        span,
        consume_from: from,
        allocate,
        rooms,
        queues,
        queue_check_interval,
    } = config;
    let ms = |time: &Duration| time.as_millis().to_string();
    [
        ("autoCommit", auto_commit.to_string()),
        ("autoCommitIntervalMillis", ms(auto_commit_interval)),
        ("pullBatchSize", pull_batch.to_string()),
        ("brokerSuspendMaxTimeMillis", ms(pull_suspend)),
        ("consumerTimeoutMillisWhenSuspend", ms(pull_timeout)),
        ("pullTimeDelayMillsWhenException", ms(pull_error_delay)),
        ("pullThresholdForAll", messages.to_string()),
        ("pullThresholdForQueue", messages_per_queue.to_string()),
        ("pullThresholdSizeForQueue", mib_per_queue.to_string()),
        ("consumeMaxSpan", span.to_string()),
        ("consumeFromWhere", consume_from(*from).to_owned()),
        ("allocateMessageQueueStrategy", strategy(*allocate).to_owned()),
        ("rooms", rooms.join(",")),
        ("queues", queues.iter().map(FixedQueue::to_string).collect::<Vec<_>>().join(",")),
        ("topicMetadataCheckIntervalMillis", ms(queue_check_interval)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
