//! A master with a slave: who lags behind reads from the slave, and everybody does while the master is gone.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::config::{ConsumeFrom, LitePullConfig};
use rocketmq::{LitePullConsumer, PushConsumer};
use rocketmq_tests::{Admin, Apache, ServerKind, Setup, Version, servers};
use serde_json::json;

use crate::pulled::{Answer, Pulled, Request, found, record};
use crate::seen::Seen;
use crate::sending::send;
use crate::server::{block_on, cluster, consumer_config, producer_config, unique};
use crate::wait;

const COUNT: i64 = 200;

/// A member of a group that sees a topic from its first message on.
async fn consume(
    server: &Apache,
    [group, topic]: [&str; 2],
    seen: &Seen,
) -> Result<(MqClientManager, PushConsumer)> {
    let manager = MqClientManager::new(cluster(&server.name_server()));
    let mut config = consumer_config();
    config.pull_batch = 10;
    let consumer =
        PushConsumer::builder(group).config(config).subscribe(topic, "*", seen.listener()).build(&manager)?;
    manager.start().await?;
    Ok((manager, consumer))
}

async fn a_slave_is_read_from(version: Version) -> Result<()> {
    // Whoever has not read the last message lags behind.
    let setup =
        Setup::new(version).broker("slaveReadEnable", "true").broker("accessMessageInMemoryMaxRatio", "0");
    let mut server = setup.start().await?;
    let topic = unique("slave");
    server.create_topic(&topic, 1).await?;
    let slave = server.add_slave().await?;
    let at_slave = Admin::new(slave.addr());
    // That of 4.9 asks its master every ten seconds, and refuses to be told; that of 5.5 has to be told.
    if version == Version::V5_5_0 {
        at_slave.create_topic(&topic, 1).await?;
    }
    let senders = MqClientManager::new(cluster(&server.name_server()));
    let producer = rocketmq::Producer::builder(unique("slave")).config(producer_config()).build(&senders)?;
    senders.start().await?;
    let mut sent = send(&producer, &topic, (0..COUNT).map(|number| number.to_string())).await?;
    wait::until("the slave has the topic and its messages", async || {
        Ok(at_slave.has_topic(&topic).await? && at_slave.max_offset(&topic, 0).await? == COUNT)
    })
    .await?;

    let (group, seen) = (unique("slave"), Seen::default());
    let (manager, _) = consume(&server, [&group, &topic], &seen).await?;
    seen.until_all(&sent).await?;
    let status = server.admin(&["brokerStatus", "-b", &slave.addr().to_string()]).await?;
    let line = status.lines().find(|line| line.starts_with("msgGetTotalTodayNow")).context(status.clone())?;
    let read: i64 = line.rsplit(':').next().unwrap_or_default().trim().parse()?;
    ensure!(0 < read, "nothing was read from the slave: {line}");
    // Its offsets went to the master nevertheless.
    let at_master = Admin::new(server.broker_addr());
    wait::until("the master knows the offset", async || {
        Ok(at_master.committed(&group, &topic, 0).await? == Some(COUNT))
    })
    .await?;

    // The master is gone: a member that was there goes on, and one that comes reads from the beginning.
    server.kill_broker().await?;
    let (late_group, late) = (unique("slave"), Seen::default());
    let (late_manager, _) = consume(&server, [&late_group, &topic], &late).await?;
    late.until_all(&sent).await?;

    server.restart_broker().await?;
    sent.extend(send(&producer, &topic, (COUNT..COUNT + 20).map(|number| number.to_string())).await?);
    seen.until_all(&sent).await?;
    late.until_all(&sent).await?;
    let once = seen.handled().times.values().all(|times| *times == 1);
    ensure!(once, "the member that was there saw messages again");
    wait::until("the master knows both offsets", async || {
        let end = Some(COUNT + 20);
        Ok(at_master.committed(&group, &topic, 0).await? == end
            && at_master.committed(&late_group, &topic, 0).await? == end)
    })
    .await?;
    for manager in [manager, late_manager, senders] {
        manager.shutdown().await?;
    }
    slave.stop().await?;
    server.stop().await
}

fn on(version: Version) -> Result<()> {
    if !servers()?.contains(&ServerKind::Apache(version)) {
        return Ok(());
    }
    block_on(a_slave_is_read_from(version))
}

/// The embedded server has no slaves.
mod who_lags_reads_from_the_slave_and_everybody_does_without_a_master {
    use super::{Result, Version, on};

    #[test]
    fn apache_5_5() -> Result<()> {
        on(Version::V5_5_0)
    }

    #[test]
    fn apache_4_9() -> Result<()> {
        on(Version::V4_9_7)
    }
}

/// A master and a slave, each of which has one message of a topic, and no offsets.
async fn with_a_slave(topic: &str) -> Result<(Pulled, MqClientManager)> {
    let known = topic.to_owned();
    let server = Pulled::start(2, move |request| match (request.code, request.number("queueOffset")) {
        (11 | 361, 0) if request.fields["topic"] == *known => Some(found(&[record(&known, 0, "x")], 1)),
        _ => None,
    })
    .await?;
    let mut cluster = cluster(&server.name_server());
    cluster.client.route_interval = Duration::from_millis(50);
    Ok((server, MqClientManager::new(cluster)))
}

/// Promotes the slave, to which the client is connected already, and waits until it knows the offset; directly, and after a
/// while without a master.
async fn promote(server: &Pulled, topic: &str, is_at_once: bool) -> Result<()> {
    let at = |member: usize| {
        move |request: &Request| {
            request.member == member
                && request.fields["topic"] == *topic
                && request.number("commitOffset") == 1
        }
    };
    wait::until("the master knows the offset", async || Ok(server.asked(15).iter().any(at(0)))).await?;
    wait::until("the slave is connected", async || {
        Ok(server.asked(34).iter().any(|heartbeat| heartbeat.member == 1))
    })
    .await?;
    let route_is_known = async || {
        let seen = server.asked(105).len();
        wait::until("the route is known", async || Ok(server.asked(105).len() > seen + 4)).await
    };
    route_is_known().await?;
    ensure!(!server.asked(15).iter().any(at(1)), "the slave was told, though it has a master");
    if !is_at_once {
        server.route_to(&[(1, 1)]);
        route_is_known().await?;
    }
    server.route_to(&[(0, 1)]);
    wait::until("the new master knows the offset", async || Ok(server.asked(15).iter().any(at(1)))).await
}

/// A slave has not copied the group's offset yet when its master goes: it does not know where the group is.
#[test]
fn what_a_slave_does_not_know_is_not_passed_over() -> Result<()> {
    const QUERY_OFFSET: i64 = 14;
    block_on(async {
        for consume_from in [ConsumeFrom::Last, ConsumeFrom::Timestamp(SystemTime::now())] {
            let (topic, seen) = (unique("unknown"), Seen::default());
            let known = topic.clone();
            let server = Pulled::start(2, move |request| match (request.code, request.member) {
                (QUERY_OFFSET, 0) => Some(Answer { fields: json!({"offset": "5"}), ..Answer::default() }),
                // The end of the queue, and what was stored last.
                (29 | 30, _) => Some(Answer { fields: json!({"offset": "100"}), ..Answer::default() }),
                (11, _) if request.fields["topic"] == *known && request.number("queueOffset") == 5 => {
                    Some(found(&[record(&known, 5, "x")], 6))
                }
                _ => None,
            })
            .await?;
            server.route_to(&[(1, 1)]);
            let mut cluster = cluster(&server.name_server());
            cluster.client.route_interval = Duration::from_millis(50);
            let manager = MqClientManager::new(cluster);
            let mut config = consumer_config();
            config.consume_from = consume_from;
            config.pull_error_delay = Duration::from_millis(50);
            PushConsumer::builder(unique("unknown"))
                .config(config)
                .subscribe(topic.as_str(), "*", seen.listener())
                .build(&manager)?;
            manager.start().await?;
            wait::until("the slave was asked where to begin", async || {
                let is_asked = |request: &Request| request.member == 1 && request.fields["topic"] == *topic;
                Ok(server.asked(QUERY_OFFSET).iter().any(is_asked))
            })
            .await?;

            server.route_to(&[(0, 0), (1, 1)]);

            seen.until_count(1).await?;
            manager.shutdown().await?;
        }
        Ok(())
    })
}

#[test]
fn a_slave_that_takes_the_place_of_its_master_is_told_the_offsets() -> Result<()> {
    block_on(async {
        for is_at_once in [true, false] {
            let (topic, seen) = (unique("promoted"), Seen::default());
            let (server, manager) = with_a_slave(&topic).await?;
            PushConsumer::builder(unique("promoted"))
                .config(consumer_config())
                .subscribe(topic.as_str(), "*", seen.listener())
                .build(&manager)?;
            manager.start().await?;
            seen.until_count(1).await?;
            promote(&server, &topic, is_at_once).await?;
            manager.shutdown().await?;

            let topic = unique("promoted");
            let (server, manager) = with_a_slave(&topic).await?;
            let mut config = LitePullConfig::default();
            config.auto_commit_interval = Duration::from_secs(1);
            let mut consumer =
                LitePullConsumer::builder(unique("promoted")).config(config).build(&manager)?;
            consumer.subscribe(topic.as_str(), "*").await?;
            manager.start().await?;
            ensure!(consumer.poll(wait::LIMIT).await?.len() == 1, "the message is there");
            // Who polls again has consumed it.
            ensure!(consumer.poll(Duration::from_millis(1)).await?.is_empty(), "there is one message");
            promote(&server, &topic, is_at_once).await?;
            manager.shutdown().await?;
        }
        Ok(())
    })
}
