//! A master with a slave: who lags behind reads from the slave, and everybody does while the master is gone.

use anyhow::{Context, Result, ensure};
use rocketmq::PushConsumer;
use rocketmq::client::MqClientManager;
use rocketmq_tests::{Admin, Apache, ServerKind, Setup, Version, servers};

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
