use super::*;
use crate::message::{MessageQueue, properties};
use crate::protocol::body::LockBatch;
use crate::protocol::header::SendMessageBack;

fn back(message: &MessageExt, delay_level: i32, max_reconsume_times: i32) -> SendMessageBack {
    SendMessageBack {
        offset: message.commit_log_offset(),
        group: "g".into(),
        delay_level,
        origin_msg_id: None,
        origin_topic: None,
        unit_mode: None,
        max_reconsume_times: Some(max_reconsume_times),
        broker_name: None,
    }
}

async fn with_message() -> (Server, Client, MessageExt) {
    let server = started().await;
    let client = Client::new(&server);
    client.send(message("t", 1, &[("TAGS", "a"), ("mine", "kept")])).await.unwrap();
    let stored = server.messages("t").remove(0);
    (server, client, stored)
}

#[tokio::test]
async fn a_message_that_is_given_back_comes_again_until_it_is_a_dead_letter() {
    let (server, client, original) = with_message().await;
    let mut last = original.clone();
    for times in 1..=2 {
        client.call(&back(&last, 0, 2)).await.unwrap();
        let pulled = client.pull(waiting_pull("%RETRY%g", 0, i64::from(times) - 1)).await;
        last = pulled.messages[0].clone();
        assert_eq!(last.reconsume_times(), times);
        let level = (3 + times - 1).to_string();
        for (name, value) in [
            (properties::RETRY_TOPIC, "t"),
            (properties::ORIGIN_MESSAGE_ID, &original.offset_message_id()),
            (properties::REAL_TOPIC, "%RETRY%g"),
            (properties::REAL_QUEUE_ID, "0"),
            (properties::DELAY, &level),
            (properties::WAIT, "false"),
            ("mine", "kept"),
        ] {
            assert_eq!(last.property(name), Some(value), "{name}");
        }
        assert_eq!((last.message_id(), last.tag()), (original.message_id(), Some("a")));
    }
    assert_eq!((server.retries("g"), server.dead_letters("g")), (2, 0));

    client.call(&back(&last, 0, 2)).await.unwrap();
    assert_eq!((server.retries("g"), server.dead_letters("g"), server.delayed()), (2, 1, 0));
    let dead = server.messages("%DLQ%g").remove(0);
    assert_eq!((dead.body(), dead.reconsume_times()), (original.body(), 3));
    assert_eq!(dead.property(properties::RETRY_TOPIC), Some("t"));
}

#[tokio::test]
async fn the_delay_level_is_the_consumers_if_it_names_one() {
    let (server, client, original) = with_message().await;
    client.call(&back(&original, 1, 16)).await.unwrap();
    let pulled = client.pull(waiting_pull("%RETRY%g", 0, 0)).await;
    assert_eq!(pulled.messages[0].property(properties::DELAY), Some("1"));
    client.call(&back(&original, -1, 16)).await.unwrap();
    assert_eq!(server.dead_letters("g"), 1);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_given_back() {
    let (_server, client, original) = with_message().await;
    let gone = SendMessageBack { offset: original.commit_log_offset() + 1, ..back(&original, 0, 16) };
    assert_eq!(client.call(&gone).await.unwrap_err(), ResponseCode::SYSTEM_ERROR);
    let illegal = SendMessageBack { group: "a b".into(), ..back(&original, 0, 16) };
    assert_eq!(client.call(&illegal).await.unwrap_err(), ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST);
}

#[tokio::test]
async fn a_consumer_may_send_to_its_retry_topic_instead_of_giving_back() {
    let (server, client, _) = with_message().await;
    let retry = |times| SendMessageV2 {
        reconsume_times: Some(times),
        max_reconsume_times: Some(2),
        ..message("%RETRY%g", 0, &[("RETRY_TOPIC", "t"), ("DELAY", "1")])
    };
    client.send(retry(2)).await.unwrap();
    let pulled = client.pull(waiting_pull("%RETRY%g", 0, 0)).await;
    assert_eq!(pulled.messages[0].reconsume_times(), 2);
    client.send(retry(3)).await.unwrap();
    assert_eq!((server.retries("g"), server.dead_letters("g")), (1, 1));
}

#[tokio::test]
async fn what_a_group_that_consumes_in_order_sends_to_its_retry_topic_is_a_dead_letter() {
    let (server, client, _) = with_message().await;
    let lock = LockBatch {
        consumer_group: "g".into(),
        client_id: "c".into(),
        mq_set: vec![MessageQueue::new("t", "broker-a", 0)],
        ..LockBatch::default()
    };
    client.invoke(RequestCode::LOCK_BATCH_MQ, ExtFields::default(), json::write(&lock)).await;
    client.send(message("%RETRY%g", 0, &[("DELAY", "1")])).await.unwrap();
    assert_eq!((server.dead_letters("g"), server.delayed()), (1, 0));
}
