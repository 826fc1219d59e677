//! Messages for those who ask for them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rocketmq::client::{MqClientManager, ServiceState};
use rocketmq::config::{ClusterConfig, ConsumeFrom, LitePullConfig};
use rocketmq::{
    Error, LitePullConsumer, LitePullError, Message, MessageExt, MessageQueue, Producer, PushConsumer,
};
use tokio::sync::watch;
use tokio::time;

use crate::sending::{send, send_all, send_numbers};
use crate::server::{Server, unique};
use crate::wait;

on_each_server! { Shared:
    every_message_is_polled_once_and_its_offset_stored,
    a_tag_filter_passes_foreign_tags_and_the_offset_moves,
    two_members_share_the_queues_and_the_rest_goes_to_the_one_that_stays,
    a_topic_may_be_subscribed_and_given_up_while_the_consumer_runs,
    another_filter_takes_effect_at_once_and_nothing_is_passed_over,
    a_place_in_a_queue_may_be_sought_by_offset_end_and_time,
    a_place_that_is_not_in_the_queue_or_not_ours_is_refused,
    a_paused_queue_brings_nothing_until_it_is_resumed,
    a_commit_by_hand_is_where_the_next_consumer_goes_on,
    offsets_may_be_committed_queue_by_queue,
    what_the_last_poll_returned_comes_again_after_a_restart,
    what_was_polled_is_stored_only_once_its_caller_has_polled_again,
    assigned_queues_are_shared_with_nobody,
    subscribing_and_assigning_exclude_each_other,
    a_stream_brings_every_message_and_ends_with_the_consumer,
    several_tasks_poll_and_what_a_dead_one_had_goes_to_the_others,
    no_more_is_held_than_flow_control_allows,
    an_offset_beyond_the_end_is_corrected,
    a_listener_hears_of_new_queues,
    a_namespace_goes_before_every_name_and_is_not_shown,
    a_group_has_one_consumer_of_whichever_kind,
}

on_each_server! { Alone:
    a_broker_that_is_killed_and_comes_back_costs_no_message,
}

const QUEUES: u32 = 4;
/// How long a poll waits for what is there.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a poll waits for what should not come.
const A_WHILE: Duration = Duration::from_millis(700);

fn config() -> LitePullConfig {
    let mut config = LitePullConfig::default();
    config.consume_from = ConsumeFrom::First;
    config.auto_commit_interval = Duration::from_secs(1);
    config
}

fn by_hand() -> LitePullConfig {
    let mut config = config();
    config.auto_commit = false;
    config
}

/// A consumer at work, and the process that it is in.
struct Member {
    manager: MqClientManager,
    consumer: LitePullConsumer,
}

impl Member {
    /// One that has subscribed to a topic, and has its queues.
    async fn join(server: &Server, group: &str, topic: &str, config: LitePullConfig) -> Result<Self> {
        let member = Self::start(server.cluster(), group, config, async |consumer| {
            consumer.subscribe(topic, "*").await
        });
        let member = member.await?;
        member.consumer.ready().await;
        Ok(member)
    }

    async fn start(
        cluster: ClusterConfig,
        group: &str,
        config: LitePullConfig,
        select: impl AsyncFnOnce(&LitePullConsumer) -> rocketmq::Result<()>,
    ) -> Result<Self> {
        let manager = MqClientManager::new(cluster);
        let consumer = LitePullConsumer::builder(group).config(config).build(&manager)?;
        select(&consumer).await?;
        manager.start().await?;
        Ok(Self { manager, consumer })
    }

    /// Polls until there were `count` messages.
    async fn poll(&mut self, count: usize) -> Result<Vec<MessageExt>> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let polled = self.consumer.poll(PATIENCE).await?;
            ensure!(!polled.is_empty(), "only {} of {count} messages came", messages.len());
            messages.extend(polled);
        }
        Ok(messages)
    }

    /// That nothing comes.
    async fn ensure_silence(&mut self) -> Result<()> {
        let polled = bodies(&self.consumer.poll(A_WHILE).await?);
        ensure!(polled.is_empty(), "polled, but not expected: {polled:?}");
        Ok(())
    }

    async fn stop(self) -> Result<()> {
        Ok(self.manager.shutdown().await?)
    }
}

/// The error of what should not have succeeded.
fn refusal<T>(result: rocketmq::Result<T>) -> Result<Error> {
    result.err().context("it should have been refused")
}

fn bodies(messages: &[MessageExt]) -> Vec<String> {
    messages.iter().map(|message| message.body_str().into_owned()).collect()
}

fn set(messages: &[MessageExt]) -> BTreeSet<String> {
    bodies(messages).into_iter().collect()
}

/// The offset that follows the last of these messages, for each queue.
fn ends(messages: &[MessageExt]) -> BTreeMap<MessageQueue, i64> {
    let mut ends = BTreeMap::new();
    for message in messages {
        let end = ends.entry(message.message_queue()).or_default();
        *end = (message.queue_offset() + 1).max(*end);
    }
    ends
}

/// One queue with the messages `0` to `count`, in their order.
async fn one_queue(server: &Server, producer: &Producer, count: u32) -> Result<(String, MessageQueue)> {
    let topic = unique("orders");
    server.create_topic(&topic, 1).await?;
    for number in 0..count {
        producer.send(Message::new(&topic).body(number.to_string())).await?;
    }
    let queue = MessageQueue::new(topic.as_str(), "broker-a", 0);
    Ok((topic, queue))
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

async fn a_tag_filter_passes_foreign_tags_and_the_offset_moves(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    // `Aa` and `BB` have the same hash, so that brokers deliver both.
    let tagged = |tag: &str| {
        let (topic, tag) = (topic.clone(), tag.to_owned());
        (0..50).map(move |number| {
            Message::new(&topic).tag(&tag).key(number.to_string()).body(format!("{tag}{number}"))
        })
    };
    let wanted = send_all(&producer, tagged("Aa")).await?;
    send_all(&producer, tagged("BB").chain(tagged("other"))).await?;
    let mut member = Member::start(server.cluster(), &group, config(), async |consumer| {
        consumer.subscribe(&*topic, "Aa").await
    })
    .await?;

    let polled = member.poll(50).await?;

    assert_eq!((polled.len(), set(&polled)), (50, wanted));
    member.ensure_silence().await?;
    wait::until("what nobody wants is passed", async || {
        Ok(server.committed(&group, &topic, QUEUES).await? == 150)
    })
    .await?;
    member.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn two_members_share_the_queues_and_the_rest_goes_to_the_one_that_stays(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let mut first = Member::join(&server, &group, &topic, config()).await?;
    assert_eq!(first.consumer.assignment().len(), 4);
    let mut second = Member::join(&server, &group, &topic, config()).await?;
    wait::until("each has half of the queues", async || {
        let [one, other] = [&first, &second].map(|member| member.consumer.assignment());
        Ok(one.len() == 2 && other.len() == 2 && !one.iter().any(|queue| other.contains(queue)))
    })
    .await?;

    let sent = send_numbers(&producer, &topic, 400).await?;
    let (mut one, mut other) = (Vec::new(), Vec::new());
    wait::until("all was polled", async || {
        one.extend(first.consumer.poll(Duration::from_millis(10)).await?);
        other.extend(second.consumer.poll(Duration::from_millis(10)).await?);
        Ok(sent.len() <= one.len() + other.len())
    })
    .await?;
    let (one, other) = (set(&one), set(&other));
    assert_eq!((one.len() + other.len(), &one | &other), (400, sent), "each by one of them");
    assert!(!one.is_empty() && !other.is_empty());
    // So that nothing is left for which nobody has come back.
    first.consumer.commit().await?;
    first.stop().await?;

    wait::until("the other has all queues", async || Ok(second.consumer.assignment().len() == 4)).await?;
    let sent = send(&producer, &topic, (0..100).map(|number| format!("later {number}"))).await?;
    assert_eq!(set(&second.poll(100).await?), sent);
    second.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_topic_may_be_subscribed_and_given_up_while_the_consumer_runs(server: Server) -> Result<()> {
    let (topics, group) = ([unique("orders"), unique("bills")], unique("group"));
    let (sender, producer) = server.producer().await?;
    for topic in &topics {
        server.create_topic(topic, 2).await?;
    }
    // Nothing is wanted at first.
    let mut member = Member::start(server.cluster(), &group, config(), async |_| Ok(())).await?;
    member.ensure_silence().await?;

    for topic in &topics {
        member.consumer.subscribe(topic.as_str(), "*").await?;
        let sent = send(&producer, topic, ["one", "two"]).await?;
        assert_eq!(set(&member.poll(2).await?), sent);
    }
    assert_eq!(member.consumer.assignment().len(), 4);

    member.consumer.unsubscribe(&topics[0])?;
    assert_eq!(member.consumer.assignment().len(), 2);
    send(&producer, &topics[0], ["unwanted"]).await?;
    let sent = send(&producer, &topics[1], ["wanted"]).await?;
    assert_eq!(set(&member.poll(1).await?), sent);
    member.ensure_silence().await?;
    member.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn another_filter_takes_effect_at_once_and_nothing_is_passed_over(server: Server) -> Result<()> {
    let (topic, group) = (unique("changing"), unique("group"));
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let mut member = Member::start(server.cluster(), &group, config(), async |consumer| {
        consumer.subscribe(topic.as_str(), "a").await
    })
    .await?;
    let of = |body: &'static str| Message::new(topic.as_str()).tag(&body[..1]).body(body);
    // What was passed over stays so: with what comes after it, the queue is beyond it.
    for body in ["b1", "a1"] {
        send_all(&producer, [of(body)]).await?;
    }
    ensure!(bodies(&member.poll(1).await?) == ["a1"]);
    // The pull that waits at the broker now has the tag of before, and would pass over those of the other.
    member.ensure_silence().await?;

    member.consumer.subscribe(topic.as_str(), "b").await?;
    for body in ["b2", "a2", "b3"] {
        send_all(&producer, [of(body)]).await?;
    }

    let begun = Instant::now();
    ensure!(bodies(&member.poll(2).await?) == ["b2", "b3"]);
    // Far less than the pull would have waited.
    ensure!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    member.manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
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

async fn assigned_queues_are_shared_with_nobody(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let tagged = (0..100).map(|number| {
        let tag = if number % 2 == 0 { "even" } else { "odd" };
        Message::new(&topic).tag(tag).key(number.to_string()).body(number.to_string())
    });
    let sent = send_all(&producer, tagged).await?;
    let even: BTreeSet<_> =
        sent.iter().filter(|body| body.parse::<u32>().is_ok_and(|n| n % 2 == 0)).collect();
    let mut one = Member::start(server.cluster(), &group, config(), async |consumer| {
        consumer.filter_assigned(topic.as_str(), "even")
    })
    .await?;
    let mut other = Member::start(server.cluster(), &unique("group"), config(), async |_| Ok(())).await?;
    let queues = one.consumer.fetch_message_queues(&topic).await?;
    assert_eq!(queues.len(), 4);

    one.consumer.assign(queues.clone())?;
    other.consumer.assign(queues[..2].to_vec())?;

    assert_eq!(one.consumer.assignment(), queues);
    assert_eq!(set(&one.poll(50).await?).iter().collect::<BTreeSet<_>>(), even);
    let mut polled = other.consumer.poll(PATIENCE).await?;
    loop {
        match other.consumer.poll(A_WHILE).await? {
            more if more.is_empty() => break,
            more => polled.extend(more),
        }
    }
    let mut expected = 0;
    for queue in 0..2 {
        expected += server.admin().max_offset(&topic, queue).await?;
    }
    assert_eq!(polled.len() as i64, expected);
    assert!(polled.iter().all(|message| queues[..2].contains(&message.message_queue())));

    // The other half: what is consumed of the first one is not lost.
    other.consumer.assign(queues[2..].to_vec())?;
    assert_eq!(other.consumer.assignment(), queues[2..]);
    let rest = other.poll(100 - polled.len()).await?;
    polled.extend(rest);
    assert_eq!((polled.len(), set(&polled)), (100, sent));
    other.consumer.assign(queues)?;
    other.ensure_silence().await?;
    one.stop().await?;
    other.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn subscribing_and_assigning_exclude_each_other(server: Server) -> Result<()> {
    let topic = unique("orders");
    server.create_topic(&topic, 1).await?;
    let queue = MessageQueue::new(topic.as_str(), "broker-a", 0);
    let other_way = |result| {
        let error = refusal(result)?;
        ensure!(matches!(&error, Error::LitePull(LitePullError::OtherWay { .. })), "{error}");
        Ok(())
    };
    let subscribed = Member::join(&server, &unique("group"), &topic, config()).await?;
    other_way(subscribed.consumer.assign([queue.clone()]))?;
    subscribed.consumer.unsubscribe(&topic)?;
    other_way(subscribed.consumer.assign([queue.clone()]))?;

    let assigned = LitePullConsumer::builder(unique("group")).create()?;
    assigned.assign([queue])?;
    other_way(assigned.subscribe(topic.as_str(), "*").await)?;
    assigned.assign([])?;
    other_way(assigned.subscribe(topic.as_str(), "*").await)?;
    subscribed.stop().await
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

async fn a_listener_hears_of_new_queues(server: Server) -> Result<()> {
    let topic = unique("orders");
    server.create_topic(&topic, 2).await?;
    let (heard, hears) = watch::channel(Vec::new());
    let mut config = config();
    config.queue_check_interval = Duration::from_millis(100);
    let member = Member::start(server.cluster(), &unique("group"), config, async |consumer| {
        consumer.register_queue_change_listener(topic.as_str(), move |queues| {
            heard.send_replace(queues.to_vec());
        })
    })
    .await?;

    let mut queues = 2;
    wait::until("the listener was called", async || {
        queues += 1;
        server.create_topic(&topic, queues).await?;
        Ok(!hears.borrow().is_empty())
    })
    .await?;

    let queues = member.consumer.fetch_message_queues(&topic).await?;
    wait::until("the listener knows all", async || Ok(*hears.borrow() == queues)).await?;
    member.stop().await
}

async fn a_namespace_goes_before_every_name_and_is_not_shown(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    let wrapped = format!("ns%{topic}");
    server.create_topic(&wrapped, 1).await?;
    let (sender, producer) = server.producer().await?;
    producer.send(Message::new(&wrapped).body("hello")).await?;
    let mut cluster = server.cluster();
    cluster.client.namespace = Some("ns".to_owned());
    let mut member = Member::start(cluster, &group, config(), async |consumer| {
        consumer.subscribe(topic.as_str(), "*").await
    })
    .await?;

    let [message] = &member.poll(1).await?[..] else { anyhow::bail!("there is one") };

    assert_eq!((message.topic(), &*message.body_str()), (topic.as_str(), "hello"));
    let queue = MessageQueue::new(topic.as_str(), "broker-a", 0);
    assert_eq!(member.consumer.assignment(), std::slice::from_ref(&queue));
    assert_eq!(member.consumer.fetch_message_queues(&topic).await?, std::slice::from_ref(&queue));
    member.consumer.commit().await?;
    assert_eq!(member.consumer.committed(&queue).await?, Some(1));
    assert_eq!(server.admin().committed(&format!("ns%{group}"), &wrapped, 0).await?, Some(1));
    member.consumer.seek_to_begin(&queue).await?;
    assert_eq!(member.poll(1).await?.len(), 1);
    member.stop().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_group_has_one_consumer_of_whichever_kind(server: Server) -> Result<()> {
    let (manager, group) = (server.manager(), unique("group"));
    let push = || PushConsumer::builder(&group).build(&manager);
    let lite = || LitePullConsumer::builder(&group).build(&manager);
    let first = lite()?;
    assert!(lite().is_err() && push().is_err());
    first.shutdown().await;
    push()?;
    assert!(lite().is_err());
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
