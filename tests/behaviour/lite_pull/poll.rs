//! What polls return, and when: every message once, unless nobody came back for it.

use std::time::Duration;

use anyhow::{Context, Result};
use rocketmq::client::ServiceState;
use tokio::time;

use super::{A_WHILE, Member, PATIENCE, QUEUES, config, ends, set};
use crate::sending::{send, send_numbers};
use crate::server::{Server, unique};
use crate::wait;

on_each_server! { Shared:
    every_message_is_polled_once_and_its_offset_stored,
    a_paused_queue_brings_nothing_until_it_is_resumed,
    a_stream_brings_every_message_and_ends_with_the_consumer,
    several_tasks_poll_and_what_a_dead_one_had_goes_to_the_others,
    no_more_is_held_than_flow_control_allows,
}

on_each_server! { Alone:
    a_broker_that_is_killed_and_comes_back_costs_no_message,
}

async fn every_message_is_polled_once_and_its_offset_stored(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let mut member = Member::join(&server, &group, &topic, config()).await?;
    let members = server.admin().members(&group).await?;
    assert!(matches!(&members[..], [only] if only.ends_with("@STREAM")), "{members:?}");

    let sent = send_numbers(&producer, &topic, 2_000).await?;

    let polled = member.poll(2_000).await?;
    assert_eq!(polled.len(), 2_000, "none came twice");
    assert_eq!(set(&polled), sent);
    assert_eq!(ends(&polled).len(), 4, "from every queue");
    member.ensure_silence().await?;
    wait::until("all is stored while the consumer runs", async || {
        Ok(server.committed(&group, &topic, QUEUES).await? == 2_000)
    })
    .await?;
    let queue = &member.consumer.assignment()[0];
    assert_eq!(member.consumer.committed(queue).await?, ends(&polled).get(queue).copied());
    member.stop().await?;
    assert_eq!(server.admin().members(&group).await?, [] as [&str; 0]);
    sender.shutdown().await?;
    Ok(())
}

async fn a_paused_queue_brings_nothing_until_it_is_resumed(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let mut member = Member::join(&server, &group, &topic, config()).await?;
    let consumer = member.consumer.clone();
    let [paused, other] = &consumer.assignment()[..] else { anyhow::bail!("it should have two queues") };
    // A pull of it is on its way, and would bring what is sent.
    send_numbers(&producer, &topic, 10).await?;
    member.poll(10).await?;

    consumer.pause([paused])?;
    let sent = send(&producer, &topic, (10..30).map(|number| number.to_string())).await?;
    let polled = member.poll(10).await?;
    member.ensure_silence().await?;
    assert!(polled.iter().all(|message| message.message_queue() == *other));

    consumer.resume([paused])?;
    let late = member.poll(10).await?;
    assert!(late.iter().all(|message| message.message_queue() == *paused));
    assert_eq!(&set(&polled) | &set(&late), sent);
    member.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_stream_brings_every_message_and_ends_with_the_consumer(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let Member { manager, mut consumer } = Member::join(&server, &group, &topic, config()).await?;
    let sent = send_numbers(&producer, &topic, 500).await?;
    let mut messages = consumer.messages()?;
    let mut streamed = Vec::new();
    while streamed.len() < 500 {
        let next = time::timeout(PATIENCE, messages.next()).await;
        streamed.push(next?.context("the stream has ended")?);
    }
    assert_eq!(set(&streamed), sent);
    wait::until("all but the last one is stored, since nobody has asked for another", async || {
        Ok(server.committed(&group, &topic, QUEUES).await? == 499)
    })
    .await?;
    let asked = time::timeout(A_WHILE, messages.next()).await;
    assert!(asked.is_err(), "there are no more");

    let (ended, stopped) = tokio::join!(messages.next(), manager.shutdown());
    stopped?;
    assert!(ended.is_none());
    assert!(messages.next().await.is_none());
    drop(messages);
    assert_eq!(consumer.state(), ServiceState::ShutdownAlready);
    assert_eq!(server.committed(&group, &topic, QUEUES).await?, 500);
    sender.shutdown().await?;
    Ok(())
}

async fn several_tasks_poll_and_what_a_dead_one_had_goes_to_the_others(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 400).await?;
    let mut member = Member::join(&server, &group, &topic, config()).await?;

    // One dies with its messages; one is slow, and holds back what is stored.
    let mut dead = member.consumer.clone();
    let lost = dead.poll(PATIENCE).await?;
    let mut slow = member.consumer.clone();
    let slowly = slow.poll(PATIENCE).await?;
    drop(dead);
    let polled = member.poll(400 - slowly.len()).await?;
    assert!(set(&polled).is_superset(&set(&lost)));
    assert_eq!(polled.len() + slowly.len(), 400);
    assert_eq!(&set(&polled) | &set(&slowly), sent);
    member.consumer.commit().await?;

    // Nothing of the queue is stored from the first message on that the slow one has.
    let (queue, first) = (slowly[0].message_queue(), slowly[0].queue_offset());
    assert_eq!(member.consumer.committed(&queue).await?.unwrap_or_default(), first);
    slow.commit().await?;
    assert_eq!(server.committed(&group, &topic, QUEUES).await?, 400);
    member.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn no_more_is_held_than_flow_control_allows(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 1_000).await?;
    let one_pull = config().pull_batch as usize;
    for (per_queue, all, least) in [(20, 10_000, 4 * 20), (1_000, 50, 50)] {
        let (mut config, group) = (config(), format!("{group}-{all}"));
        config.messages_per_queue = per_queue;
        config.messages = all;
        let mut member = Member::join(&server, &group, &topic, config).await?;
        time::sleep(A_WHILE).await;
        let queues = member.consumer.assignment();

        // What is held is delivered, and no more comes.
        member.consumer.pause(&queues)?;
        let mut held = Vec::new();
        loop {
            match member.consumer.poll(Duration::ZERO).await? {
                more if more.is_empty() => break,
                more => held.extend(more),
            }
        }
        let most = least + 4 * one_pull;
        assert!((least..=most).contains(&held.len()), "{} are held, not {least} to {most}", held.len());

        // And the rest comes once there is room.
        member.consumer.resume(&queues)?;
        held.extend(member.poll(1_000 - held.len()).await?);
        assert_eq!((held.len(), set(&held)), (1_000, sent.clone()));
        member.stop().await?;
    }
    sender.shutdown().await?;
    Ok(())
}

async fn a_broker_that_is_killed_and_comes_back_costs_no_message(mut server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let mut sent = send_numbers(&producer, &topic, 200).await?;
    let mut member = Member::join(&server, &group, &topic, config()).await?;
    let mut polled = set(&member.poll(100).await?);

    server.kill_broker().await?;
    server.restart_broker().await?;

    sent.extend(send(&producer, &topic, (200..400).map(|number| number.to_string())).await?);
    wait::until("everything was polled", async || {
        polled.extend(set(&member.consumer.poll(A_WHILE).await?));
        Ok(polled.is_superset(&sent))
    })
    .await?;
    assert_eq!(polled, sent);
    wait::until("all is stored", async || {
        member.consumer.poll(Duration::from_millis(10)).await?;
        Ok(server.committed(&group, &topic, QUEUES).await? == 400)
    })
    .await?;
    member.stop().await?;
    sender.shutdown().await?;
    Ok(())
}
