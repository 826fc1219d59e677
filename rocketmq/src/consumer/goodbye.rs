//! The goodbye of a consumer: each broker has the last offsets, and has the locks back, before it hears that the group is left.
//!
//! All brokers are told at the same time, within the time of one request, so that one that hangs keeps no other from hearing
//! it. Members that hear of it at one broker take over the queues of all of them, and go on from what is stored there: so the
//! first is told once all have the offsets, or have let wait for too long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tracing::warn;

use crate::client::{Access, MASTER, MqClient};

/// For so much of the time, one of this many parts, all brokers wait for the slowest.
const PARTS: u32 = 3;

/// Settles what is to be settled at each of `brokers`, then tells all that there are that the group is left; what is not done
/// at `until` is left undone.
pub(super) async fn say_goodbye<F>(
    client: &Arc<MqClient>,
    group: &Arc<str>,
    until: Instant,
    brokers: BTreeSet<Arc<str>>,
    settle: impl Fn(Arc<str>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    // A heartbeat that comes after the goodbye would take it back.
    client.forget_consumer(group);
    let began = Instant::now();
    let mut settling = JoinSet::new();
    for broker in &brokers {
        let (broker, settled) = (Arc::clone(broker), settle(Arc::clone(broker)));
        settling.spawn(async move {
            settled.await;
            broker
        });
    }
    let mut unsettled = brokers;
    let together = began + until.saturating_duration_since(began) / PARTS;
    while let Ok(Some(settled)) = time::timeout_at(together, settling.join_next()).await {
        // One that panicked has not settled anything.
        unsettled.retain(|broker| settled.as_ref().ok() != Some(broker));
    }
    // What is stored is at its master, and the slaves need not wait for that.
    let access = Access::Read { broker_id: MASTER };
    let mut last: BTreeMap<_, _> = unsettled
        .iter()
        .filter_map(|broker| Some((Arc::clone(broker), client.broker_address(broker, access)?)))
        .collect();
    let mut telling = JoinSet::new();
    let tell = |address| {
        let (client, group) = (Arc::clone(client), Arc::clone(group));
        async move { client.unregister_consumer(&address, &group).await }
    };
    for (broker, _, address) in client.brokers() {
        if last.get(&broker) != Some(&address) {
            telling.spawn(tell(address));
        }
    }
    let rest = async {
        loop {
            tokio::select! {
                Some(settled) = settling.join_next() => {
                    let Ok(broker) = settled else { continue };
                    unsettled.remove(&broker);
                    if let Some(address) = last.remove(&broker) {
                        telling.spawn(tell(address));
                    }
                }
                Some(_) = telling.join_next() => {}
                else => return,
            }
        }
    };
    // Whether it was in time shows in what is left.
    let _ = time::timeout_at(until, rest).await;
    if !unsettled.is_empty() {
        let limit = until.saturating_duration_since(began);
        warn!(%group, brokers = ?unsettled, ?limit, "not all offsets could be stored in time, some messages will come twice");
    }
}
