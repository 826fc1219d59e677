//! From a topic to the listeners of a group.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use rocketmq::client::MqClientManager;
use rocketmq::config::{Compression, ConsumeFrom, SerializeType};
use rocketmq::{ConsumeResult, Message, MessageExt, Producer, PushConsumer};
use tokio::time;

use crate::seen::{Handled, Seen};
use crate::sending::{send, send_all, send_numbers};
use crate::server::{Server, consumer_config, producer_config, unique};
use crate::wait;

on_each_server! { Shared:
    ten_thousand_messages_are_each_handled_and_their_offsets_stored,
    what_was_sent_arrives_unchanged,
    compressed_bodies_arrive_unpacked,
    a_tag_filter_passes_foreign_tags_and_the_offset_moves,
    a_message_goes_to_the_listener_of_its_tag,
    a_new_group_reads_a_young_topic_from_its_beginning,
    an_offset_beyond_the_end_is_corrected,
    a_suspended_consumer_gets_nothing_until_it_is_resumed,
    a_batch_holds_messages_of_one_queue_and_one_listener,
    a_namespace_goes_before_every_name_and_is_not_shown,
    headers_may_travel_in_the_binary_form,
}

on_each_server! { Alone:
    a_group_begins_where_consume_from_says_or_at_the_first_message_that_is_left,
}

async fn ten_thousand_messages_are_each_handled_and_their_offsets_stored(server: Server) -> Result<()> {
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

    let sent = send_numbers(&producer, &topic, 10_000).await?;

    assert_eq!(sent.len(), 10_000);
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    let mut stored = 0;
    for queue in 0..QUEUES {
        let in_queue = server.admin().max_offset(&topic, queue).await?;
        assert!(0 < in_queue, "queue {queue} got nothing");
        stored += in_queue;
    }
    assert_eq!(stored, 10_000);
    wait::until("the offsets of all are stored while the consumer runs", async || {
        Ok(server.committed(&group, &topic, QUEUES).await? == 10_000)
    })
    .await?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn what_was_sent_arrives_unchanged(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let manager = server.manager();
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;

    let body = "Grüße, 世界, \u{0} and \u{1F600}";
    let message = Message::new(&topic)
        .tag("paid")
        .keys(["order-7", "客户"])
        .property("region", "eu west")
        .property("empty-ish", "-")
        .flag(17)
        .body(body);
    let before = SystemTime::now();
    let sent = producer.send(message).await?;
    let bare = producer.send(Message::new(&topic).body("bare")).await?;

    seen.until_all(&[body, "bare"].map(str::to_owned).into()).await?;
    let find = |body: &str| seen.messages().into_iter().find(|message| message.body_str() == body);
    let got = find(body).expect("it was handled");
    assert_eq!(got.topic(), topic);
    assert_eq!(got.body_utf8()?, body);
    assert_eq!(got.tag(), Some("paid"));
    assert_eq!(got.keys().collect::<Vec<_>>(), ["order-7", "客户"]);
    assert_eq!(got.property("region"), Some("eu west"));
    assert_eq!(got.property("empty-ish"), Some("-"));
    assert_eq!(got.flag(), 17);
    assert_eq!(got.message_id(), sent.message_id);
    assert_eq!(got.offset_message_id(), sent.offset_message_id);
    assert_eq!(got.message_queue(), sent.queue);
    assert_eq!(got.queue_offset(), sent.queue_offset);
    assert_eq!(got.reconsume_times(), 0);
    assert!(got.born_host().ip().is_loopback());
    let before = before.duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64;
    assert!(before <= got.born_timestamp_ms() && got.born_timestamp_ms() <= got.store_timestamp_ms());
    let got = find("bare").expect("it was handled");
    assert_eq!((got.tag(), got.keys().count(), got.flag()), (None, 0, 0));
    assert_eq!(got.message_id(), bare.message_id);
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn compressed_bodies_arrive_unpacked(server: Server) -> Result<()> {
    const COMPRESSED: i32 = 1;
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let manager = server.manager();
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    let producers: Vec<Producer> = [Compression::Zlib, Compression::Lz4, Compression::Zstd]
        .into_iter()
        .map(|compression| {
            let mut config = producer_config();
            config.compression = compression;
            Producer::builder(unique("producer")).config(config).build(&manager)
        })
        .collect::<rocketmq::Result<_>>()?;
    manager.start().await?;

    let mut sent = BTreeSet::new();
    for (number, producer) in producers.iter().enumerate() {
        // Beneath `compress_over`, above it, and large enough for a thread of its own.
        for size in [1_000, 10_000, 200_000] {
            sent.extend(send(producer, &topic, [format!("{number} {}", "again ".repeat(size / 6))]).await?);
        }
    }

    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    for message in seen.messages() {
        let is_compressed = message.sys_flag() & COMPRESSED != 0;
        assert_eq!(is_compressed, 4096 <= message.body().len(), "{message:?}");
    }
    manager.shutdown().await?;
    Ok(())
}

async fn a_tag_filter_passes_foreign_tags_and_the_offset_moves(server: Server) -> Result<()> {
    const QUEUES: u32 = 2;
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    // Brokers compare hashes, and these two have the same.
    let tags = ["wanted", "Aa", "BB", "foreign"];
    let message = |tag: &str, number: u32| Message::new(&topic).tag(tag).body(format!("{tag} {number}"));
    let messages = (0..25).flat_map(|number| tags.map(|tag| message(tag, number)));
    let sent = send_all(&producer, messages).await?;
    send(&producer, &topic, ["without a tag"]).await?;
    // The last ones of each queue are foreign.
    let last = (25..35).map(|number| message("foreign", number));
    send_all(&producer, last).await?;

    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "wanted || Aa", seen.listener())
        .build(&manager)?;
    manager.start().await?;

    let is_wanted = |body: &&String| body.starts_with("wanted") || body.starts_with("Aa");
    let wanted: BTreeSet<String> = sent.iter().filter(is_wanted).cloned().collect();
    assert_eq!(wanted.len(), 50);
    seen.until_all(&wanted).await?;
    wait::until("the offset has passed all 111 messages", async || {
        Ok(server.committed(&group, &topic, QUEUES).await? == 111)
    })
    .await?;
    seen.until_all(&wanted).await?;
    seen.ensure_once()?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_message_goes_to_the_listener_of_its_tag(server: Server) -> Result<()> {
    let (orders, mails) = (unique("orders"), unique("mails"));
    server.create_topic(&orders, 4).await?;
    server.create_topic(&mails, 1).await?;
    let (sender, producer) = server.producer().await?;
    let [paid, gone, rest, mail] = [(); 4].map(|()| Seen::default());
    let manager = server.manager();
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(orders.as_str(), "*", rest.listener())
        .subscribe(orders.as_str(), "paid", paid.listener())
        .subscribe(orders.as_str(), "cancelled || refunded", gone.listener())
        .subscribe(mails.as_str(), "paid", mail.listener())
        .build(&manager)?;
    manager.start().await?;

    let message =
        |topic: &str, tag: &str, n: u32| Message::new(topic).tag(tag).body(format!("{topic} {tag} {n}"));
    let sent = |topic: &str, tag: &str| {
        let messages: Vec<_> = (0..20).map(|number| message(topic, tag, number)).collect();
        let producer = producer.clone();
        async move { send_all(&producer, messages).await }
    };
    let (is_paid, is_paid_mail) = (sent(&orders, "paid").await?, sent(&mails, "paid").await?);
    let mut is_gone = sent(&orders, "cancelled").await?;
    is_gone.extend(sent(&orders, "refunded").await?);
    let mut is_rest = sent(&orders, "new").await?;
    is_rest.extend(send(&producer, &orders, ["without a tag"]).await?);
    sent(&mails, "new").await?;

    for (seen, sent) in [(&paid, &is_paid), (&gone, &is_gone), (&rest, &is_rest), (&mail, &is_paid_mail)] {
        seen.until_all(sent).await?;
        seen.ensure_once()?;
    }
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// Not what its setting says, but what brokers do: as long as a queue has its first message in memory, they answer
/// that a group that they do not know stands at 0.
async fn a_new_group_reads_a_young_topic_from_its_beginning(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 4).await?;
    let (sender, producer) = server.producer().await?;
    let mut sent = send_numbers(&producer, &topic, 20).await?;
    let manager = server.manager();
    let mut config = consumer_config();
    config.consume_from = ConsumeFrom::Last;
    PushConsumer::builder(unique("group"))
        .config(config)
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    sent.extend(send(&producer, &topic, ["later"]).await?);
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// A topic that was deleted and made anew, say: what the group has stored of it is not there any more.
async fn an_offset_beyond_the_end_is_corrected(server: Server) -> Result<()> {
    for orderly in [false, true] {
        let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
        server.create_topic(&topic, 1).await?;
        let (sender, producer) = server.producer().await?;
        let mut sent = send_numbers(&producer, &topic, 3).await?;
        let join = async || -> Result<MqClientManager> {
            let manager = server.manager();
            let builder = PushConsumer::builder(&group).config(consumer_config());
            let builder = if orderly { builder.orderly() } else { builder };
            builder.subscribe(topic.as_str(), "*", seen.listener()).build(&manager)?;
            manager.start().await?;
            Ok(manager)
        };
        let manager = join().await?;
        seen.until_all(&sent).await?;
        manager.shutdown().await?;
        server.admin().commit(&group, &topic, 0, 1_000).await?;

        let manager = join().await?;
        wait::until("the stored offset is that of the end", async || {
            Ok(server.committed(&group, &topic, 1).await? == 3)
        })
        .await?;
        sent.extend(send(&producer, &topic, ["new"]).await?);
        seen.until_all(&sent).await?;
        wait::until("it goes on from there", async || Ok(server.committed(&group, &topic, 1).await? == 4))
            .await?;
        seen.ensure_once()?;
        manager.shutdown().await?;
        sender.shutdown().await?;
    }
    Ok(())
}

async fn a_group_begins_where_consume_from_says_or_at_the_first_message_that_is_left(
    mut server: Server,
) -> Result<()> {
    let topic = unique("orders");
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let known = unique("known");
    let manager = server.manager();
    PushConsumer::builder(&known)
        .subscribe(topic.as_str(), "*", Seen::default().listener())
        .build(&manager)?;
    manager.start().await?;
    manager.shutdown().await?;
    // A topic that is no longer young: brokers then say that they do not know a new group.
    server.lose_oldest(&producer, &topic).await?;
    assert!(0 < server.admin().min_offset(&topic, 0).await?);
    assert_eq!(server.admin().committed(&unique("nobody"), &topic, 0).await?, None);
    // Clocks count milliseconds: what follows is stored in a later one.
    time::sleep(Duration::from_millis(20)).await;
    let noon = SystemTime::now();
    time::sleep(Duration::from_millis(20)).await;
    let mut afternoon = send(&producer, &topic, ["afternoon 1", "afternoon 2"]).await?;

    // It was away while what it has not handled went.
    server.admin().commit(&known, &topic, 0, 5).await?;
    let groups = [
        (unique("group"), ConsumeFrom::First),
        (unique("group"), ConsumeFrom::Timestamp(noon)),
        (unique("group"), ConsumeFrom::Last),
        (known, ConsumeFrom::Last),
    ];
    let mut consumers = Vec::new();
    for (group, from) in groups {
        let (seen, manager) = (Seen::default(), server.manager());
        let mut config = consumer_config();
        config.consume_from = from;
        PushConsumer::builder(&group)
            .config(config)
            .subscribe(topic.as_str(), "*", seen.listener())
            .build(&manager)?;
        manager.start().await?;
        // Stored before there is a message: otherwise one that stops now would begin later the next time.
        wait::until_within(Duration::from_secs(5), "the group has an offset", async || {
            Ok(server.admin().committed(&group, &topic, 0).await?.is_some())
        })
        .await?;
        consumers.push((seen, manager));
    }
    let evening = send(&producer, &topic, ["evening"]).await?;

    let [(from_first, _), (from_noon, _), (from_last, _), (from_gap, _)] = &consumers[..] else {
        unreachable!()
    };
    afternoon.extend(evening.clone());
    from_last.until_all(&evening).await?;
    from_noon.until_all(&afternoon).await?;
    // From the oldest that was still there to the newest, without a gap.
    let newest = server.admin().max_offset(&topic, 0).await?;
    let offsets = |handled: &Handled| -> BTreeSet<i64> {
        handled.messages.iter().map(MessageExt::queue_offset).collect()
    };
    for seen in [from_first, from_gap] {
        seen.until("all that there is was handled", |handled| {
            let offsets = offsets(handled);
            offsets.first().is_some_and(|first| (*first..newest).all(|offset| offsets.contains(&offset)))
        })
        .await?;
        let begun = offsets(&seen.handled()).first().copied().unwrap_or_default();
        let kept = server.admin().min_offset(&topic, 0).await?;
        assert!(begun <= kept, "it began at {begun}, but {kept} is there");
    }
    for (seen, manager) in consumers {
        seen.ensure_once()?;
        manager.shutdown().await?;
    }
    sender.shutdown().await?;
    Ok(())
}

async fn a_suspended_consumer_gets_nothing_until_it_is_resumed(server: Server) -> Result<()> {
    const QUEUES: u32 = 2;
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let manager = server.manager();
    let consumer = PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    let mut sent = send_numbers(&producer, &topic, 20).await?;
    seen.until_all(&sent).await?;

    consumer.suspend();
    // Also not what the pulls bring that were on their way, one of each queue.
    let meanwhile = send(&producer, &topic, (0..20).map(|number| format!("meanwhile {number}"))).await?;
    // There is nothing to wait for: it is what does not happen that counts.
    time::sleep(Duration::from_millis(1_500)).await;
    seen.until_all(&sent).await?;

    consumer.resume();
    sent.extend(meanwhile);
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_batch_holds_messages_of_one_queue_and_one_listener(server: Server) -> Result<()> {
    const BATCH: usize = 8;
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let messages =
        (0..100).map(|number| Message::new(&topic).tag(["a", "b"][number % 2]).body(number.to_string()));
    let sent = send_all(&producer, messages).await?;
    let mut config = consumer_config();
    config.batch = BATCH as u32;
    let (notes, sizes) = (seen.clone(), Seen::default());
    let all_sizes = sizes.clone();
    let listener = move |tag: &'static str| {
        let (notes, sizes) = (notes.clone(), sizes.clone());
        move |messages: Vec<MessageExt>| {
            sizes.note_body(&messages.len().to_string());
            let is_pure = messages
                .iter()
                .all(|message| message.tag() == Some(tag) && message.queue_id() == messages[0].queue_id());
            if is_pure && (1..=BATCH).contains(&messages.len()) {
                messages.iter().for_each(|message| notes.note(message));
            }
            async { ConsumeResult::Success }
        }
    };
    let manager = server.manager();
    PushConsumer::builder(unique("group"))
        .config(config)
        .subscribe(topic.as_str(), "a", listener("a"))
        .subscribe(topic.as_str(), "b", listener("b"))
        .build(&manager)?;
    manager.start().await?;
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    assert!(all_sizes.bodies().contains(&BATCH.to_string()), "no batch was full: {:?}", all_sizes.bodies());
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_namespace_goes_before_every_name_and_is_not_shown(server: Server) -> Result<()> {
    let (namespace, topic, group, seen) = (unique("ns"), unique("orders"), unique("group"), Seen::default());
    server.create_topic(&format!("{namespace}%{topic}"), 2).await?;
    let mut cluster = server.cluster();
    cluster.client.namespace = Some(namespace.clone());
    let manager = MqClientManager::new(cluster);
    let mut config = consumer_config();
    config.max_reconsume = Some(1);
    let notes = seen.clone();
    PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            async { ConsumeResult::ReconsumeLater }
        })
        .build(&manager)?;
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    manager.start().await?;
    let sent = send_numbers(&producer, &topic, 10).await?;
    seen.until("each came twice", |handled| handled.messages.len() == 20).await?;
    seen.until_all(&sent).await?;
    assert!(seen.messages().iter().all(|message| message.topic() == topic));
    let group = format!("{namespace}%{group}");
    wait::until("all are dead letters", async || Ok(server.dead_letters(&group).await? == 10)).await?;
    assert_eq!(server.admin().members(&group).await?.len(), 1);
    manager.shutdown().await?;
    Ok(())
}

async fn headers_may_travel_in_the_binary_form(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let mut cluster = server.cluster();
    cluster.client.serialize = SerializeType::Rocketmq;
    let manager = MqClientManager::new(cluster);
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    manager.start().await?;
    let sent = send_numbers(&producer, &topic, 100).await?;
    seen.until_all(&sent).await?;
    manager.shutdown().await?;
    assert_eq!(server.committed(&group, &topic, 2).await?, 100);
    assert_eq!(server.admin().members(&group).await?, [""; 0]);
    Ok(())
}
