//! How queues are shared: among members of this library and of Java, by each strategy, and who hears of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use rocketmq::allocate::{
    AllocateStrategy, Averagely, Circle, ConsistentHash, MachineRoom, MachineRoomNearby, NamedRooms,
    RoomResolver,
};
use rocketmq::client::MqClientManager;
use rocketmq::config::Allocate;
use rocketmq::{ConsumeResult, MessageExt, MessageQueue, PushConsumer};
use rocketmq_tests::{JavaProgram, ServerKind, Version, can_run, servers};
use tokio::try_join;

use crate::server::{Server, block_on, consumer_config, unique};
use crate::wait;

on_each_server! { Shared:
    java_and_this_library_share_the_queues_of_a_group_by_each_strategy,
    a_listener_hears_of_the_queues_that_its_consumer_has,
}

const SOURCE: &str = include_str!("../harness/java/Strategies.java");
const QUEUES: u32 = 8;

/// The queues of the topic that the consumers of a process have, by group, as their listeners have heard: `broker/0`.
#[derive(Debug, Clone, Default)]
struct Heard(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Heard {
    fn note(&self, group: &str, owned: &[MessageQueue]) {
        let owned = owned.iter().map(|queue| format!("{}/{}", queue.broker_name, queue.queue_id)).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(group.to_owned(), owned);
    }

    fn of(&self, group: &str) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(group).cloned().unwrap_or_default()
    }
}

/// The queues of a broker, as [`Heard`] has them.
fn all_of(broker: &str) -> Vec<String> {
    (0..QUEUES).map(|id| format!("{broker}/{id}")).collect()
}

/// The queues that the member of the Java program has, by the last that it said.
async fn owned_by_java(java: &mut JavaProgram, strategy: &str) -> Result<Vec<String>> {
    let printed = java.lines(&format!("owns {strategy} "), 1).await?;
    let owned = printed.last().map(String::as_str).unwrap_or_default().split(',');
    Ok(owned.filter(|queue| !queue.is_empty()).map(str::to_owned).collect())
}

#[test]
fn shares_are_those_that_java_computes() -> Result<()> {
    block_on(async {
        for version in Version::ALL {
            if servers()?.contains(&ServerKind::Apache(version)) {
                let mut java = JavaProgram::start(version, "Strategies", SOURCE, &["shares"]).await?;
                let expected = all_shares()?;
                assert_eq!(java.lines("share ", expected.len()).await?, expected, "{version}");
                java.stop().await?;
            }
        }
        Ok(())
    })
}

/// What the Java program prints, in its order.
fn all_shares() -> Result<Vec<String>> {
    let strategies: [&dyn AllocateStrategy; 5] = [
        &Averagely,
        &Circle,
        &ConsistentHash::default(),
        &MachineRoom::new(["east".to_owned()]),
        &MachineRoomNearby::new(Averagely, NamedRooms),
    ];
    let mut shares = Vec::new();
    for each in 1..=6 {
        let of_broker = |broker| (0..each).map(move |id| MessageQueue::new("topic", broker, id));
        let queues: Vec<_> = ["east@a", "west@b"].into_iter().flat_map(of_broker).collect();
        for count in 1..=7 {
            let member =
                |i: usize| format!("10.0.0.{i}@{}#77@{}", 1000 * i, ["east", "north", "west"][i % 3]);
            let members: Vec<_> = (0..count).map(member).collect();
            for strategy in strategies {
                for member in &members {
                    let share = strategy
                        .allocate("group", member, &queues, &members)
                        .map_err(anyhow::Error::from_boxed)?;
                    let share =
                        share.iter().map(|queue| format!(" {}/{}", queue.broker_name, queue.queue_id));
                    let share: String = share.collect();
                    shares.push(format!("{} {each} {count} {member}{share}", strategy.name()));
                }
            }
        }
    }
    Ok(shares)
}

/// The rooms of the Java program.
struct HalvesOfABroker;

impl RoomResolver for HalvesOfABroker {
    fn queue_room(&self, queue: &MessageQueue) -> Option<String> {
        Some(if queue.queue_id < 4 { "east" } else { "west" }.to_owned())
    }

    fn member_room(&self, client_id: &str) -> Option<String> {
        client_id.split('@').nth(2).map(str::to_owned)
    }
}

async fn java_and_this_library_share_the_queues_of_a_group_by_each_strategy(server: Server) -> Result<()> {
    // Java's name of each strategy, and how many queues three members have then: the Java one, which is in the room
    // east, and ours in east and in west.
    const STRATEGIES: [(&str, Allocate, Option<[usize; 3]>); 5] = [
        ("AVG", Allocate::Averagely, Some([2, 3, 3])),
        ("AVG_BY_CIRCLE", Allocate::Circle, Some([2, 3, 3])),
        ("CONSISTENT_HASH", Allocate::ConsistentHash, None),
        ("CONFIG", Allocate::ByConfig, Some([2, 2, 4])),
        ("MACHINE_ROOM_NEARBY-AVG", Allocate::MachineRoomNearby, Some([2, 2, 4])),
    ];
    if server.is_embedded() && !can_run(server.version())? {
        return Ok(());
    }
    let topic = unique("shared");
    server.create_topic(&topic, QUEUES).await?;
    let group_of = |strategy: &str| format!("{topic}-{strategy}");
    // A process with a member of each group.
    let join = async |unit: &str, queues: [u32; 2]| -> Result<(MqClientManager, Heard)> {
        let mut cluster = server.cluster();
        cluster.client.unit = Some(unit.to_owned());
        let (manager, heard) = (MqClientManager::new(cluster), Heard::default());
        for (name, allocate, _) in STRATEGIES {
            let mut config = consumer_config();
            if allocate == Allocate::ByConfig {
                let queues = queues.iter().map(|queue| format!("{topic}/broker-a/{queue}").parse());
                config.queues = queues.collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
            }
            config.allocate = allocate;
            let (notes, wanted) = (heard.clone(), topic.clone());
            let consumer = PushConsumer::builder(group_of(name))
                .config(config)
                .subscribe(topic.as_str(), "*", |_: Vec<MessageExt>| async { ConsumeResult::Success })
                .message_queue_listener(move |change| {
                    if change.topic == wanted {
                        notes.note(change.group, change.owned);
                    }
                });
            match allocate {
                Allocate::MachineRoomNearby => {
                    consumer.allocate_strategy(MachineRoomNearby::new(Averagely, HalvesOfABroker))
                }
                _ => consumer,
            }
            .build(&manager)?;
        }
        manager.start().await?;
        Ok((manager, heard))
    };
    let (name_server, broker) = (server.name_server(), "broker-a");
    let arguments = ["members", &name_server, &topic, broker];
    let (mut java, (first, by_first), (second, by_second)) = try_join!(
        JavaProgram::start(server.version(), "Strategies", SOURCE, &arguments),
        join("east", [4, 6]),
        join("west", [5, 7]),
    )?;
    for (name, _, sizes) in STRATEGIES {
        let group = group_of(name);
        let mut seen = String::new();
        let shared =
            wait::until_within(Duration::from_secs(90), "shared without overlap or gap", async || {
                let by_java = owned_by_java(&mut java, name).await?;
                let shares = [by_java, by_first.of(&group), by_second.of(&group)];
                seen = format!("{shares:?}");
                let mut all = shares.concat();
                all.sort_unstable();
                let mut lengths = shares.map(|share| share.len());
                lengths.sort_unstable();
                let members = server.admin().members(&group).await?;
                let as_expected = match sizes {
                    Some(sizes) => lengths == sizes,
                    None => members.len() == 3 && lengths == hashed(&topic, broker, members)?,
                };
                Ok(as_expected && all == all_of(broker))
            });
        let shared = shared.await;
        ensure!(shared.is_ok(), "{name}: {shared:?}: {seen}");
    }
    // Operators see no difference between the members.
    let group = group_of("AVG");
    let printed = server.mqadmin(&["consumerStatus", "-g", &group]).await?;
    let members = server.admin().members(&group).await?;
    let is_shown = |member: &String| printed.contains(member);
    ensure!(members.len() == 3 && members.iter().all(is_shown), "{members:?}: {printed}");
    ensure!(printed.contains("Same subscription in the same group of consumer"), "{printed}");
    java.stop().await?;
    first.shutdown().await?;
    second.shutdown().await?;
    Ok(())
}

/// The embedded server has one broker, in no room.
mod java_and_this_library_share_the_queues_of_a_room_and_leave_those_of_others {
    use rocketmq_tests::{ServerKind, Version};

    use super::share_a_room;
    use crate::server::{Use, run};

    #[test]
    fn apache_5_5() -> anyhow::Result<()> {
        run(ServerKind::Apache(Version::V5_5_0), Use::Alone, share_a_room)
    }

    #[test]
    fn apache_4_9() -> anyhow::Result<()> {
        run(ServerKind::Apache(Version::V4_9_7), Use::Alone, share_a_room)
    }
}

/// Brokers say by their names in which room they are, and members which rooms they serve.
async fn share_a_room(server: Server) -> Result<()> {
    const ROOM: &str = "east";
    let topic = unique("shared");
    let broker = server.add_broker(&format!("{ROOM}@broker-b")).await?;
    server.create_topic(&topic, QUEUES).await?;
    broker.create_topic(&topic, QUEUES).await?;
    let group = format!("{topic}-MACHINE_ROOM");
    let join = async || -> Result<(MqClientManager, Heard)> {
        let (manager, heard, wanted) = (server.manager(), Heard::default(), topic.clone());
        let mut config = consumer_config();
        config.allocate = Allocate::MachineRoom;
        config.rooms = vec![ROOM.to_owned()];
        let notes = heard.clone();
        PushConsumer::builder(group.as_str())
            .config(config)
            .subscribe(topic.as_str(), "*", |_: Vec<MessageExt>| async { ConsumeResult::Success })
            .message_queue_listener(move |change| {
                if change.topic == wanted {
                    notes.note(change.group, change.owned);
                }
            })
            .build(&manager)?;
        manager.start().await?;
        Ok((manager, heard))
    };
    let (name_server, mut seen) = (server.name_server(), String::new());
    let arguments = ["room", &name_server, &topic, ROOM];
    let (mut java, (first, by_first), (second, by_second)) =
        try_join!(JavaProgram::start(server.version(), "Strategies", SOURCE, &arguments), join(), join())?;
    let shared = wait::until_within(Duration::from_secs(90), "shared without overlap or gap", async || {
        let by_java = owned_by_java(&mut java, "MACHINE_ROOM").await?;
        let shares = [by_java, by_first.of(&group), by_second.of(&group)];
        seen = format!("{shares:?}");
        let mut lengths = shares.each_ref().map(Vec::len);
        lengths.sort_unstable();
        let mut all = shares.concat();
        all.sort_unstable();
        Ok(lengths == [2, 3, 3] && all == all_of(broker.name()))
    });
    let shared = shared.await;
    ensure!(shared.is_ok(), "{shared:?}: {seen}");
    java.stop().await?;
    first.shutdown().await?;
    second.shutdown().await?;
    broker.stop().await
}

/// How many queues three members have by their hashes, the fewest first.
fn hashed(topic: &str, broker: &str, mut members: Vec<String>) -> Result<[usize; 3]> {
    members.sort();
    let queues: Vec<_> = (0..QUEUES as i32).map(|id| MessageQueue::new(topic, broker, id)).collect();
    let mut lengths = [0; 3];
    for (length, member) in lengths.iter_mut().zip(&members) {
        let share = ConsistentHash::default().allocate("", member, &queues, &members);
        *length = share.map_err(anyhow::Error::from_boxed)?.len();
    }
    lengths.sort_unstable();
    Ok(lengths)
}

async fn a_listener_hears_of_the_queues_that_its_consumer_has(server: Server) -> Result<()> {
    let (topic, group) = (unique("shared"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let join = async || -> Result<(MqClientManager, Heard)> {
        let (manager, heard, wanted) = (server.manager(), Heard::default(), topic.clone());
        let notes = heard.clone();
        PushConsumer::builder(group.as_str())
            .config(consumer_config())
            .subscribe(topic.as_str(), "*", |_: Vec<MessageExt>| async { ConsumeResult::Success })
            .message_queue_listener(move |change| {
                if change.topic == wanted {
                    notes.note("all", change.all);
                    notes.note(change.group, change.owned);
                }
                // It is told of the next change nevertheless.
                assert!(change.owned.len() < 8, "a listener that panics");
            })
            .build(&manager)?;
        manager.start().await?;
        Ok((manager, heard))
    };
    let all = all_of("broker-a");
    let (first, by_first) = join().await?;
    wait::until("the only member has all queues", async || Ok(by_first.of(&group) == all)).await?;
    assert_eq!(by_first.of("all"), all);
    let (second, by_second) = join().await?;
    wait::until("each has half of them", async || {
        let (mut one, other) = (by_first.of(&group), by_second.of(&group));
        let halves = one.len() == other.len();
        one.extend(other);
        one.sort_unstable();
        Ok(halves && one == all)
    })
    .await?;
    second.shutdown().await?;
    wait::until("all are the first one's again", async || Ok(by_first.of(&group) == all)).await?;
    first.shutdown().await?;
    Ok(())
}
