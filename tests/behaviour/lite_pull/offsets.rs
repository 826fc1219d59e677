//! Where a lite pull consumer is: sought, committed, corrected.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use rocketmq::{Error, LitePullError, MessageQueue};
use tokio::time;

use super::{Member, PATIENCE, QUEUES, bodies, by_hand, config, one_queue, refusal, set};
use crate::sending::{send, send_numbers};
use crate::server::{Server, unique};
use crate::wait;

on_each_server! { Shared:
    a_place_in_a_queue_may_be_sought_by_offset_end_and_time,
    a_place_that_is_not_in_the_queue_or_not_ours_is_refused,
    a_commit_by_hand_is_where_the_next_consumer_goes_on,
    offsets_may_be_committed_queue_by_queue,
    what_the_last_poll_returned_comes_again_after_a_restart,
    what_was_polled_is_stored_only_once_its_caller_has_polled_again,
    an_offset_beyond_the_end_is_corrected,
}

async fn a_place_in_a_queue_may_be_sought_by_offset_end_and_time(server: Server) -> Result<()> {
    let (sender, producer) = server.producer().await?;
    let (topic, queue) = one_queue(&server, &producer, 10).await?;
    let mut member = Member::join(&server, &unique("group"), &topic, config()).await?;
    let numbers = |range: std::ops::Range<u32>| range.map(|number| number.to_string()).collect::<Vec<_>>();
    let all = member.poll(10).await?;
    assert_eq!(bodies(&all), numbers(0..10));
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(all[7].store_timestamp_ms() as u64);
    let consumer = member.consumer.clone();

    consumer.seek(&queue, 4).await?;
    assert_eq!(bodies(&member.poll(6).await?), numbers(4..10));
    consumer.seek_to_begin(&queue).await?;
    assert_eq!(bodies(&member.poll(10).await?), numbers(0..10));
    // Of messages stored in the same millisecond, 5.x finds the first and 4.9 any.
    let found = consumer.offset_for_timestamp(&queue, time).await?;
    assert_eq!(all[found as usize].store_timestamp_ms(), all[7].store_timestamp_ms());
    consumer.seek_to_timestamp(&queue, time).await?;
    assert_eq!(bodies(&member.poll(10 - found as usize).await?), numbers(found as u32..10));
    consumer.seek(&queue, 10).await?;
    member.ensure_silence().await?;
    // What is held is thrown away.
    consumer.seek_to_begin(&queue).await?;
    assert_eq!(bodies(&member.consumer.poll(PATIENCE).await?).first(), Some(&"0".to_owned()));
    consumer.seek_to_end(&queue).await?;
    member.ensure_silence().await?;
    send(&producer, &topic, ["new"]).await?;
    assert_eq!(bodies(&member.poll(1).await?), ["new"]);
    member.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_place_that_is_not_in_the_queue_or_not_ours_is_refused(server: Server) -> Result<()> {
    let (sender, producer) = server.producer().await?;
    let (topic, queue) = one_queue(&server, &producer, 3).await?;
    let mut member = Member::join(&server, &unique("group"), &topic, by_hand()).await?;
    let consumer = member.consumer.clone();
    for offset in [-1, 4] {
        let error = refusal(consumer.seek(&queue, offset).await)?;
        assert!(
            matches!(&error, Error::LitePull(LitePullError::OutOfRange { min: 0, max: 3, .. })),
            "{error}"
        );
    }
    let error = refusal(consumer.commit_offsets([(queue.clone(), -1)]).await)?;
    assert!(matches!(&error, Error::LitePull(LitePullError::BadOffset { .. })), "{error}");

    let foreign = MessageQueue::new(topic.as_str(), "broker-a", 7);
    let both = [&queue, &foreign];
    for refused in [
        consumer.seek(&foreign, 0).await,
        consumer.seek_to_begin(&foreign).await,
        consumer.seek_to_end(&foreign).await,
        consumer.seek_to_timestamp(&foreign, SystemTime::now()).await,
        consumer.pause(both),
        consumer.resume(both),
        consumer.commit_offsets(both.map(|queue| (queue.clone(), 1))).await,
    ] {
        let error = refusal(refused)?;
        assert!(matches!(&error, Error::LitePull(LitePullError::NotAssigned { .. })), "{error}");
    }
    // Nothing of all that had an effect.
    assert_eq!(bodies(&member.poll(3).await?), ["0", "1", "2"]);
    assert_eq!(server.admin().committed(consumer.group(), &topic, 0).await?.unwrap_or_default(), 0);

    member.stop().await?;
    let error = refusal(consumer.clone().poll(PATIENCE).await)?;
    assert!(matches!(&error, Error::State(_)), "{error}");
    sender.shutdown().await?;
    Ok(())
}

async fn a_commit_by_hand_is_where_the_next_consumer_goes_on(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 200).await?;
    let mut first = Member::join(&server, &group, &topic, by_hand()).await?;
    let mut polled = first.poll(80).await?;

    first.consumer.commit().await?;

    assert_eq!(server.committed(&group, &topic, QUEUES).await?, polled.len() as i64);
    // This is not committed, although all but the last poll of it was followed by another one.
    first.poll(60).await?;
    first.stop().await?;
    assert_eq!(server.committed(&group, &topic, QUEUES).await?, polled.len() as i64);

    let mut second = Member::join(&server, &group, &topic, by_hand()).await?;
    polled.extend(second.poll(200 - polled.len()).await?);
    assert_eq!((polled.len(), set(&polled)), (200, sent));
    second.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn offsets_may_be_committed_queue_by_queue(server: Server) -> Result<()> {
    let (sender, producer) = server.producer().await?;
    let (topic, queue) = one_queue(&server, &producer, 10).await?;
    let group = unique("group");
    let mut first = Member::join(&server, &group, &topic, by_hand()).await?;
    first.poll(10).await?;

    first.consumer.commit_offsets(BTreeMap::from([(queue.clone(), 4)])).await?;

    assert_eq!(first.consumer.committed(&queue).await?, Some(4));
    first.stop().await?;
    let mut second = Member::join(&server, &group, &topic, by_hand()).await?;
    assert_eq!(bodies(&second.poll(6).await?), ["4", "5", "6", "7", "8", "9"]);
    second.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn what_the_last_poll_returned_comes_again_after_a_restart(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 300).await?;
    let mut first = Member::join(&server, &group, &topic, config()).await?;
    let mut consumed = first.poll(100).await?;

    let last = first.consumer.poll(PATIENCE).await?;
    first.stop().await?;

    assert_eq!(server.committed(&group, &topic, QUEUES).await?, consumed.len() as i64);
    let mut second = Member::join(&server, &group, &topic, config()).await?;
    let rest = second.poll(300 - consumed.len()).await?;
    assert!(set(&rest).is_superset(&set(&last)), "nobody came back for them");
    consumed.extend(rest);
    assert_eq!((consumed.len(), set(&consumed)), (300, sent), "and the others do not come again");
    second.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn what_was_polled_is_stored_only_once_its_caller_has_polled_again(server: Server) -> Result<()> {
    let (sender, producer) = server.producer().await?;
    let (topic, queue) = one_queue(&server, &producer, 15).await?;
    let group = unique("group");
    let mut member = Member::join(&server, &group, &topic, config()).await?;
    let first = member.consumer.poll(PATIENCE).await?.len() as i64;

    // Longer than the interval of auto-commit.
    time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(member.consumer.committed(&queue).await?.unwrap_or_default(), 0);

    member.consumer.poll(PATIENCE).await?;
    wait::until("the first poll is stored", async || {
        Ok(member.consumer.committed(&queue).await? == Some(first))
    })
    .await?;
    member.stop().await?;
    assert_eq!(server.admin().committed(&group, &topic, 0).await?, Some(first));
    sender.shutdown().await?;
    Ok(())
}

async fn an_offset_beyond_the_end_is_corrected(server: Server) -> Result<()> {
    let (sender, producer) = server.producer().await?;
    let (topic, queue) = one_queue(&server, &producer, 3).await?;
    let group = unique("group");
    let first = Member::join(&server, &group, &topic, by_hand()).await?;
    first.consumer.commit_offsets([(queue.clone(), 1_000)]).await?;
    first.stop().await?;

    let mut second = Member::join(&server, &group, &topic, config()).await?;
    wait::until("the stored offset is that of the end", async || {
        Ok(second.consumer.committed(&queue).await? == Some(3))
    })
    .await?;
    let sent = send(&producer, &topic, ["new"]).await?;
    assert_eq!(set(&second.poll(1).await?), sent);
    second.stop().await?;
    sender.shutdown().await?;
    Ok(())
}
