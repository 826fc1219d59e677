//! Servers that are killed, and come back.

use std::time::Duration;

use anyhow::Result;
use rocketmq::client::MqClientManager;
use rocketmq::config::{ConsumeFrom, LitePullConfig};
use rocketmq::{LitePullConsumer, Message, Producer, PushConsumer};
use tokio::sync::watch;

use crate::fake::Fake;
use crate::seen::{Handled, Seen};
use crate::sending::{Stream, send, send_numbers};
use crate::server::{Server, cluster, consumer_config, producer_config, unique};
use crate::wait;

on_each_server! { Shared:
    nothing_is_lost_where_connections_are_cut_in_the_middle_of_a_frame,
    connections_that_fall_silent_are_made_anew,
}

on_each_server! { Alone:
    a_start_waits_for_a_name_server_that_comes_late,
    confirmed_messages_survive_a_broker_that_is_killed_under_load,
    a_broker_that_was_killed_is_told_the_offsets_again,
    a_name_server_that_is_killed_and_comes_back_interrupts_nobody,
}

async fn confirmed_messages_survive_a_broker_that_is_killed_under_load(mut server: Server) -> Result<()> {
    const QUEUES: u32 = 4;
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    let stream = Stream::start(producer, &topic, Duration::from_millis(1));
    stream.until_count(300).await?;
    seen.until_count(100).await?;

    server.kill_broker().await?;
    let killed_at = stream.count();
    server.restart_broker().await?;

    // The same producer, the same consumer: nobody has to be started again.
    stream.until_count(killed_at + 300).await?;
    let sent = stream.stop().await;
    // Some may have been stored whose confirmation was lost: more than were sent may be handled, not fewer.
    let all = |handled: &Handled| sent.iter().all(|body| handled.times.contains_key(body));
    seen.until("every confirmed message was handled", all).await?;
    wait::until("all offsets are stored", async || {
        let mut stored = 0;
        for queue in 0..QUEUES {
            stored += server.admin().max_offset(&topic, queue).await?;
        }
        Ok(server.committed(&group, &topic, QUEUES).await? == stored)
    })
    .await?;
    assert_eq!(server.dead_letters(&group).await?, 0);
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_broker_that_was_killed_is_told_the_offsets_again(mut server: Server) -> Result<()> {
    const QUEUES: u32 = 2;
    const COUNT: u32 = 40;
    let topic = unique("orders");
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, COUNT).await?;

    // Who is suspended does not tell his offsets with pulls.
    let (running, suspended, orderly) = (unique("running"), unique("suspended"), unique("orderly"));
    let (manager, mut pushed) = (server.manager(), Vec::new());
    for (group, is_orderly) in [(&running, false), (&suspended, false), (&orderly, true)] {
        let seen = Seen::default();
        let builder = PushConsumer::builder(group).config(consumer_config());
        let builder = if is_orderly { builder.orderly() } else { builder };
        let consumer = builder.subscribe(topic.as_str(), "*", seen.listener()).build(&manager)?;
        pushed.push((consumer, seen));
    }
    let (polled, by_hand) = (unique("polled"), unique("by-hand"));
    let mut pullers = Vec::new();
    for (group, auto_commit) in [(&polled, true), (&by_hand, false)] {
        let mut config = LitePullConfig::default();
        config.consume_from = ConsumeFrom::First;
        config.auto_commit = auto_commit;
        config.auto_commit_interval = Duration::from_secs(1);
        let consumer = LitePullConsumer::builder(group).config(config).build(&manager)?;
        consumer.subscribe(topic.as_str(), "*").await?;
        pullers.push(consumer);
    }
    manager.start().await?;
    for (_, seen) in &pushed {
        seen.until_all(&sent).await?;
    }
    pushed.iter().skip(1).for_each(|(consumer, _)| consumer.suspend());
    for consumer in &mut pullers {
        let mut left = sent.len();
        while left > 0 {
            left -= consumer.poll(Duration::from_secs(30)).await?.len();
        }
        consumer.commit().await?;
    }
    let groups = [&running, &suspended, &orderly, &polled, &by_hand].map(String::as_str);
    until_stored(&server, &groups, &topic, COUNT.into()).await?;

    server.kill_broker_unsaved(&groups, &topic, QUEUES).await?;
    server.restart_broker().await?;

    until_stored(&server, &groups, &topic, COUNT.into()).await?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// Another member had the queue while this one was cut off, and is further.
async fn cut_off_for_long(mut server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 2).await?;
    let (manager, seen) = (server.manager(), Seen::default());
    let consumer = PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    manager.start().await?;
    let sent = send_numbers(&producer, &topic, 20).await?;
    seen.until_all(&sent).await?;
    until_stored(&server, &[&group], &topic, 20).await?;
    let ours = server.admin().committed(&group, &topic, 0).await?.unwrap_or_default();
    consumer.suspend();

    server.admin().commit(&group, &topic, 0, ours + 5).await?;
    server.admin().commit(&group, &topic, 1, 0).await?;
    server.kill_broker().await?;
    server.restart_broker().await?;

    // Of the other queue it is told again; both are looked at in one round.
    wait::until("the lost offset is stored again", async || {
        Ok(server.committed(&group, &topic, 2).await? == 20 + 5)
    })
    .await?;
    manager.shutdown().await?;
    assert_eq!(server.admin().committed(&group, &topic, 0).await?, Some(ours + 5));
    Ok(())
}

/// The embedded server can be cut off without forgetting anything.
mod what_another_member_stored_while_it_was_cut_off_is_not_set_back {
    use rocketmq_tests::ServerKind;

    use crate::server::{Use, run};

    #[test]
    fn embedded() -> anyhow::Result<()> {
        run(ServerKind::Embedded, Use::Alone, super::cut_off_for_long)
    }
}

/// Waits until the broker knows that each of the groups is at the end of a topic with two queues.
async fn until_stored(server: &Server, groups: &[&str], topic: &str, end: i64) -> Result<()> {
    for group in groups {
        wait::until(&format!("all offsets of {group} are stored"), async || {
            Ok(server.committed(group, topic, 2).await? == end)
        })
        .await?;
    }
    Ok(())
}

async fn a_name_server_that_is_killed_and_comes_back_interrupts_nobody(mut server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 4).await?;
    // Soon enough to notice that nobody answers.
    let mut cluster = server.cluster();
    cluster.client.route_interval = Duration::from_millis(200);
    let manager = MqClientManager::new(cluster);
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    manager.start().await?;
    let mut sent = send(&producer, &topic, ["before"]).await?;
    seen.until_all(&sent).await?;

    // What is new to this producer, only a name server can tell.
    let other = unique("orders");
    server.create_topic(&other, 1).await?;
    let mut patient = producer_config();
    patient.send_timeout = Duration::from_secs(120);
    let patient = Producer::builder(unique("producer")).config(patient).build(&manager)?;
    patient.start().await?;

    server.kill_name_server().await?;
    let mut to_other = tokio::task::JoinSet::new();
    let message = Message::new(&other).body("to a new topic");
    to_other.spawn(async move { patient.send(message).await });
    sent.extend(send_numbers(&producer, &topic, 200).await?);
    seen.until_all(&sent).await?;
    tokio::time::sleep(Duration::from_millis(600)).await;
    sent.extend(send(&producer, &topic, (200..400).map(|number| number.to_string())).await?);
    seen.until_all(&sent).await?;

    server.restart_name_server().await?;
    // It has asked for the route all the time.
    to_other.join_next().await.expect("it was started")??;
    sent.extend(send(&producer, &topic, ["after"]).await?);
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    manager.shutdown().await?;
    Ok(())
}

async fn a_start_waits_for_a_name_server_that_comes_late(mut server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 2).await?;
    server.kill_name_server().await?;
    let (manager, starting) = (server.manager(), server.manager());
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&starting)?;
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    manager.start().await?;
    let mut start = tokio::task::JoinSet::new();
    let handle = starting.clone();
    start.spawn(async move { handle.start().await });
    // Long enough for a try, which must not end the start.
    let early = tokio::time::timeout(Duration::from_millis(300), start.join_next()).await;
    assert!(early.is_err(), "the start did not wait: {early:?}");

    server.restart_name_server().await?;

    start.join_next().await.expect("it was started")??;
    let sent = send_numbers(&producer, &topic, 50).await?;
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    starting.shutdown().await?;
    manager.shutdown().await?;
    Ok(())
}

async fn nothing_is_lost_where_connections_are_cut_in_the_middle_of_a_frame(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let network = Fake::cutting(server.broker_addr(), 20_011).await?;
    let name_server = Fake::name_server(&topic, &[("broker-a", network.addr())]).await?;
    let manager = MqClientManager::new(cluster(&name_server.addr().to_string()));
    let mut config = consumer_config();
    config.pull_error_delay = Duration::from_millis(50);
    PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    manager.start().await?;

    let stream = Stream::start(producer, &topic, Duration::from_millis(1));
    stream.until_count(300).await?;
    wait::until("five connections were cut", async || Ok(5 < network.connections())).await?;
    let sent = stream.stop().await;

    let all = |handled: &Handled| sent.iter().all(|body| handled.times.contains_key(body));
    seen.until("every confirmed message was handled", all).await?;
    manager.shutdown().await?;
    Ok(())
}

/// As where a firewall has forgotten them: nobody says that they are gone.
async fn connections_that_fall_silent_are_made_anew(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let (freeze, ms) = (watch::Sender::new(()), Duration::from_millis);
    let network = Fake::freezing(server.broker_addr(), &freeze).await?;
    let name_server = Fake::name_server(&topic, &[("broker-a", network.addr())]).await?;
    let mut cluster = cluster(&name_server.addr().to_string());
    (cluster.client.request_timeout, cluster.client.connect_timeout) = (ms(2_000), ms(2_000));
    cluster.client.heartbeat_interval = ms(500);
    let manager = MqClientManager::new(cluster);
    let mut config = consumer_config();
    config.pull_error_delay = ms(50);
    PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    let mut config = producer_config();
    // One that is sent into silence is sent again in time.
    config.attempt_timeout = Some(ms(1_000));
    config.retries = 16;
    config.send_timeout = Duration::from_secs(30);
    let producer = Producer::builder(unique("producer")).config(config).build(&manager)?;
    manager.start().await?;
    let mut sent = send_numbers(&producer, &topic, 20).await?;
    seen.until_all(&sent).await?;

    // The broker still counts the connections of the rounds before: it has not been told either.
    for round in 1..=3 {
        freeze.send(())?;
        let of_round = (0..4).map(|number| format!("{number} of round {round}"));
        sent.extend(send(&producer, &topic, of_round).await?);
        let all = |handled: &Handled| sent.iter().all(|body| handled.times.contains_key(body));
        seen.until("every confirmed message was handled", all).await?;
    }
    manager.shutdown().await?;
    Ok(())
}
