//! Members of a group come and go, and share the queues.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::{MessageExt, PushConsumer, PushConsumerBuilder};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;

use crate::program::Program;
use crate::seen::{Handled, Seen};
use crate::sending::{Stream, send};
use crate::server::{Server, consumer_config, unique};
use crate::wait;

on_each_server! { Shared:
    the_queues_of_a_killed_member_go_to_the_others_and_nothing_is_lost,
    a_joining_member_gets_its_share_of_the_queues,
    a_member_that_stops_leaves_the_group_and_its_queues_at_once,
    a_member_that_joins_while_another_one_stops_gets_nothing_that_was_done,
}

const QUEUES: u32 = 8;

/// One member more, whose handlers take a moment.
async fn join(server: &Server, group: &str, topic: &str, seen: &Seen) -> Result<MqClientManager> {
    let (manager, notes) = (server.manager(), seen.clone());
    PushConsumer::builder(group)
        .config(consumer_config())
        .subscribe(topic, "*", move |messages: Vec<MessageExt>| {
            let notes = notes.clone();
            async move {
                time::sleep(Duration::from_millis(1)).await;
                messages.iter().for_each(|message| notes.note(message));
            }
        })
        .build(&manager)?;
    manager.start().await?;
    Ok(manager)
}

/// The queues of the last `count` messages of a member.
fn recent_queues(messages: &[MessageExt], count: usize) -> BTreeSet<i32> {
    messages.iter().rev().take(count).map(MessageExt::queue_id).collect()
}

/// Waits until each of two members gets the messages of half of the queues.
async fn until_shared(first: &Seen, second: &Seen) -> Result<()> {
    wait::until("each has half of the queues", async || {
        let [first, second] = [first, second].map(|seen| recent_queues(&seen.handled().messages, 50));
        Ok(first.len() == 4 && second.len() == 4 && first.is_disjoint(&second))
    })
    .await
}

/// Waits until every message was handled by one or the other.
async fn until_handled(sent: &BTreeSet<String>, one: &Seen, other: &Seen) -> Result<()> {
    wait::until("everything was handled", async || {
        let (one, other) = (one.bodies(), other.bodies());
        Ok(sent.iter().all(|body| one.contains(body) || other.contains(body)))
    })
    .await
}

async fn the_queues_of_a_killed_member_go_to_the_others_and_nothing_is_lost(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let (by_victim, by_other) = (Seen::default(), Seen::default());
    // So slow that there are always messages at work in it, and some more that wait.
    let victim = Program::start(&server, &group, &topic, Duration::from_millis(100), &by_victim)?;
    let other = join(&server, &group, &topic, &by_other).await?;
    wait::until("both are in the group", async || Ok(server.admin().members(&group).await?.len() == 2))
        .await?;
    let stream = Stream::start(producer, &topic, Duration::from_millis(1));
    by_victim.until_count(200).await?;

    victim.kill().await?;

    let killed_at = stream.count();
    stream.until_count(killed_at + 300).await?;
    by_other
        .until("all queues are the other's", |handled| recent_queues(&handled.messages, 100).len() == 8)
        .await?;
    let sent = stream.stop().await;
    until_handled(&sent, &by_victim, &by_other).await?;
    // What is acknowledged is all there is: the victim took nothing along.
    wait::until("all offsets are stored", async || {
        let mut stored = 0;
        for queue in 0..QUEUES {
            stored += server.admin().max_offset(&topic, queue).await?;
        }
        Ok(server.committed(&group, &topic, QUEUES).await? == stored)
    })
    .await?;
    assert_eq!(server.admin().members(&group).await?.len(), 1);
    other.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_joining_member_gets_its_share_of_the_queues(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let (by_first, by_second) = (Seen::default(), Seen::default());
    let first = join(&server, &group, &topic, &by_first).await?;
    let stream = Stream::start(producer, &topic, Duration::from_millis(1));
    by_first
        .until("the first one has all queues", |handled| recent_queues(&handled.messages, 100).len() == 8)
        .await?;

    let second = join(&server, &group, &topic, &by_second).await?;

    until_shared(&by_first, &by_second).await?;
    let sent = stream.stop().await;
    until_handled(&sent, &by_first, &by_second).await?;
    first.shutdown().await?;
    second.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_member_that_stops_leaves_the_group_and_its_queues_at_once(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let (by_first, by_second) = (Seen::default(), Seen::default());
    let first = join(&server, &group, &topic, &by_first).await?;
    let second = join(&server, &group, &topic, &by_second).await?;
    let probes = Stream::start(producer.clone(), &topic, Duration::from_millis(1));
    until_shared(&by_first, &by_second).await?;
    let probes = probes.stop().await;
    until_handled(&probes, &by_first, &by_second).await?;
    assert_eq!(server.admin().members(&group).await?.len(), 2);

    // In the middle of its work.
    let mut sent = send(&producer, &topic, (0..800).map(|number| format!("before {number}"))).await?;
    first.shutdown().await?;
    assert_eq!(server.admin().members(&group).await?.len(), 1, "it is still listed");
    sent.extend(send(&producer, &topic, (0..80).map(|number| format!("after {number}"))).await?);

    // Long before anybody would have looked by himself, after 20 seconds.
    let has_all = |handled: &Handled| {
        let all_after = handled.times.keys().filter(|body| body.starts_with("after")).count() == 80;
        all_after && handled.times.keys().any(|body| body.starts_with("before"))
    };
    by_second.until_within(Duration::from_secs(10), "the other has all queues", has_all).await?;
    until_handled(&sent, &by_first, &by_second).await?;
    let twice: Vec<_> = by_first.bodies().intersection(&by_second.bodies()).cloned().collect();
    let twice: Vec<_> = twice.iter().filter(|body| sent.contains(*body)).collect();
    assert!(twice.is_empty(), "handled by both, though the first one took its leave: {twice:?}");

    second.shutdown().await?;
    assert_eq!(server.admin().members(&group).await?, [""; 0]);
    let mut stored = 0;
    for queue in 0..QUEUES {
        stored += server.admin().max_offset(&topic, queue).await?;
    }
    assert_eq!(server.committed(&group, &topic, QUEUES).await?, stored);
    sender.shutdown().await?;
    Ok(())
}

async fn a_member_that_joins_while_another_one_stops_gets_nothing_that_was_done(
    server: Server,
) -> Result<()> {
    for orderly in [false, true] {
        join_a_stopping_one(&server, orderly).await.with_context(|| format!("orderly: {orderly}"))?;
    }
    Ok(())
}

async fn join_a_stopping_one(server: &Server, orderly: bool) -> Result<()> {
    // In order, the queue of the slow one is nobody else's before it has ended.
    let share = if orderly { 3 } else { 4 };
    let in_order = |builder: PushConsumerBuilder| if orderly { builder.orderly() } else { builder };
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let (begun, by_first, by_second) = (Seen::default(), Seen::default(), Seen::default());
    let (gate, may_end) = (Arc::new(Semaphore::new(0)), by_first.clone());
    let mut cluster = server.cluster();
    // What it stores, it stores because it stops, or because a queue is another member's.
    cluster.client.offset_interval = Duration::from_secs(3_600);
    let first = MqClientManager::new(cluster);
    let (notes, closed) = (begun.clone(), Arc::clone(&gate));
    in_order(PushConsumer::builder(&group))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages: Vec<MessageExt>| {
            let (begun, done, gate) = (notes.clone(), may_end.clone(), Arc::clone(&closed));
            async move {
                begun.note(&messages[0]);
                if messages[0].body_str() == "slow" {
                    // It has no permits, and lets everybody pass once it is closed.
                    let _ = gate.acquire().await;
                }
                done.note(&messages[0]);
            }
        })
        .build(&first)?;
    first.start().await?;
    let mut sent = send(&producer, &topic, (0..400).map(|number| format!("before {number}"))).await?;
    by_first.until_all(&sent).await?;
    send(&producer, &topic, ["slow"]).await?;
    begun.until("the slow one was begun", |handled| handled.times.contains_key("slow")).await?;

    let stopping = first.clone();
    let mut stops = JoinSet::new();
    stops.spawn(async move { stopping.shutdown().await });
    wait::until("what is done is stored", async || {
        Ok(server.committed(&group, &topic, QUEUES).await? == sent.len() as i64)
    })
    .await?;
    let joined = server.manager();
    in_order(PushConsumer::builder(&group))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", by_second.listener())
        .build(&joined)?;
    joined.start().await?;
    sent.extend(send(&producer, &topic, (0..400).map(|number| format!("after {number}"))).await?);
    let has_share = |handled: &Handled| share <= recent_queues(&handled.messages, 400).len();
    by_second.until("it has its share", has_share).await?;
    // All that there is of its share is stored.
    let mine = recent_queues(&by_second.messages(), 400);
    wait::until("its offsets are stored", async || {
        for queue in &mine {
            let queue = *queue as u32;
            let all = server.admin().max_offset(&topic, queue).await?;
            if server.admin().committed(&group, &topic, queue).await? != Some(all) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;

    gate.close();
    stops.join_next().await.context("it was started")???;

    for queue in &mine {
        let queue = *queue as u32;
        let all = server.admin().max_offset(&topic, queue).await?;
        let stored = server.admin().committed(&group, &topic, queue).await?;
        ensure!(stored == Some(all), "queue {queue}: {all} were stored, and now {stored:?}");
    }
    until_handled(&sent, &by_first, &by_second).await?;
    let (first, second) = (by_first.bodies(), by_second.bodies());
    let twice: Vec<_> = first.intersection(&second).filter(|body| body.as_str() != "slow").collect();
    ensure!(twice.is_empty(), "handled by both: {twice:?}");
    by_second.ensure_once()?;
    joined.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}
