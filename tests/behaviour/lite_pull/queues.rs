//! Which queues a lite pull consumer has, and which of their messages: by subscription, with others or alone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rocketmq::{Error, LitePullConsumer, LitePullError, Message, MessageQueue, PushConsumer};
use tokio::sync::watch;

use super::{A_WHILE, Member, PATIENCE, QUEUES, bodies, config, refusal, set};
use crate::sending::{send, send_all, send_numbers};
use crate::server::{Server, unique};
use crate::wait;

on_each_server! { Shared:
    a_tag_filter_passes_foreign_tags_and_the_offset_moves,
    two_members_share_the_queues_and_the_rest_goes_to_the_one_that_stays,
    a_topic_may_be_subscribed_and_given_up_while_the_consumer_runs,
    another_filter_takes_effect_at_once_and_nothing_is_passed_over,
    assigned_queues_are_shared_with_nobody,
    subscribing_and_assigning_exclude_each_other,
    a_listener_hears_of_new_queues,
    a_namespace_goes_before_every_name_and_is_not_shown,
    a_group_has_one_consumer_of_whichever_kind,
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
