//! Messages that are delivered later, and those that are taken back before.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rocketmq::message::properties;
use rocketmq::{Message, PushConsumer, SendError};
use tokio::time;

use crate::seen::Seen;
use crate::server::{Server, consumer_config, unique};

on_each_server! { Shared:
    a_delayed_message_comes_after_the_time_of_its_level,
    a_timer_message_comes_after_its_time_or_is_refused,
    a_timer_message_can_be_taken_back,
}

async fn a_delayed_message_comes_after_the_time_of_its_level(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&sender)?
        .start()
        .await?;
    let start = time::Instant::now();
    let sent = producer.send(Message::new(&topic).body("later").delay_level(2)).await?;
    assert_eq!(sent.recall_handle, None);
    producer.send(Message::new(&topic).body("at once").delay_level(0)).await?;
    seen.until_count(1).await?;
    assert_eq!(seen.bodies(), BTreeSet::from(["at once".to_owned()]));
    seen.until_count(2).await?;
    let took = start.elapsed();
    // Brokers look once a second, or less.
    assert!(server.second_delay() <= took + Duration::from_millis(100), "it took {took:?}");
    let messages = seen.messages();
    assert_eq!(messages[1].message_id(), sent.message_id);
    assert_eq!(messages[1].property(properties::DELAY), Some("2"));
    sender.shutdown().await?;
    Ok(())
}

async fn a_timer_message_comes_after_its_time_or_is_refused(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&sender)?
        .start()
        .await?;
    let message = |body: &str| Message::new(&topic).body(body.to_owned());
    let start = time::Instant::now();
    let later = [
        message("in seconds").delay(Duration::from_secs(3)),
        message("in milliseconds").delay(Duration::from_millis(3_100)),
        message("at a time").deliver_at(SystemTime::now() + Duration::from_secs(3)),
    ];
    let knows_timers = server.knows_timers();
    for message in later {
        match producer.send(message).await {
            Ok(sent) => {
                assert!(knows_timers);
                assert!(sent.recall_handle.is_some(), "{sent:?}");
            }
            Err(error) => {
                assert!(matches!(error, SendError::Unsupported { .. }) && !knows_timers, "{error:?}")
            }
        }
    }
    // What is due already is no timer message for anybody.
    let past = message("in the past").deliver_at(SystemTime::now() - Duration::from_secs(60));
    if knows_timers {
        producer.send(past).await?;
    } else {
        producer.send(past).await.expect_err("the broker is too old");
        producer.send(message("in the past")).await?;
    }
    seen.until_count(1).await?;
    assert_eq!(seen.bodies(), BTreeSet::from(["in the past".to_owned()]));
    if knows_timers {
        seen.until_count(4).await?;
        // To the second, and a broker rounds down.
        assert!(Duration::from_millis(1_500) <= start.elapsed(), "{:?}", start.elapsed());
        seen.ensure_once()?;
    } else {
        time::sleep(Duration::from_millis(500)).await;
        assert_eq!(server.admin().max_offset(&topic, 0).await?, 1, "a refused message was sent");
    }
    sender.shutdown().await?;
    Ok(())
}

async fn a_timer_message_can_be_taken_back(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    if !server.knows_timers() {
        let handle = "djEgdDEgYnJva2VyLWEgMTcwMDAwMDAwMDAwMSBBQzExMDAwMTAwMDAyQTlGMDAwMDAwMDAwMDAwMDNFOA==";
        producer.send(Message::new(&topic).body("x")).await?;
        let error = producer.recall(handle).await.expect_err("the broker is too old");
        assert!(matches!(error, SendError::Unsupported { .. }), "{error:?}");
        sender.shutdown().await?;
        return Ok(());
    }
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&sender)?
        .start()
        .await?;
    let delayed = |body: &str| Message::new(&topic).body(body.to_owned()).delay(Duration::from_secs(4));
    let taken_back = producer.send(delayed("taken back")).await?;
    let sent = producer.send(delayed("delivered")).await?;
    let handle = taken_back.recall_handle.context("it can be taken back")?;
    assert_eq!(producer.recall(&handle).await?, taken_back.message_id);
    seen.until_count(1).await?;
    // Both were due at the same time.
    time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(seen.bodies(), BTreeSet::from(["delivered".to_owned()]));
    let late = producer.recall(&sent.recall_handle.context("it could be taken back")?).await;
    let late = late.expect_err("it has been delivered");
    assert_eq!(late.response_code(), Some(rocketmq::ResponseCode::ILLEGAL_OPERATION), "{late:?}");
    sender.shutdown().await?;
    Ok(())
}
