use super::*;
use crate::protocol::header::{
    GetEarliestMessageTime, GetMaxOffset, GetMinOffset, QueryConsumerOffset, SearchOffset,
    UpdateConsumerOffset, ViewMessage,
};

/// A server with topic `t`, and messages `m0`, `m1`, … with these tags in its queue 0.
async fn with_messages(builder: ServerBuilder, tags: &[&str]) -> (Server, Client) {
    let server = builder.start().await.unwrap();
    server.create_topic("t", 2).unwrap();
    let client = Client::new(&server);
    for (at, tag) in tags.iter().enumerate() {
        client.call_with(&message("t", 0, &[("TAGS", tag)]), format!("m{at}")).await.unwrap();
    }
    (server, client)
}

#[tokio::test]
async fn the_code_says_where_the_offset_lies() {
    let (server, client) = with_messages(fast().max_messages_per_queue(3), &["a"; 5]).await;
    assert_eq!((server.min_offset("t", 0), server.max_offset("t", 0)), (2, 5));
    for (what, queue, offset, code, next) in [
        ("an empty queue from its start", 1, 0, ResponseCode::PULL_NOT_FOUND, 0),
        ("an empty queue from elsewhere", 1, 3, ResponseCode::PULL_OFFSET_MOVED, 0),
        ("what was dropped", 0, 1, ResponseCode::PULL_OFFSET_MOVED, 2),
        ("the first that is there", 0, 2, ResponseCode::SUCCESS, 5),
        ("the end", 0, 5, ResponseCode::PULL_NOT_FOUND, 5),
        ("beyond the end", 0, 6, ResponseCode::PULL_OFFSET_MOVED, 5),
    ] {
        let pulled = client.pull(pull("t", queue, offset)).await;
        assert_eq!((pulled.code, pulled.next()), (code, next), "{what}");
        if queue == 0 {
            let header = pulled.header.unwrap();
            assert_eq!((header.min_offset, header.max_offset), (2, 5), "{what}");
        }
    }
}

#[tokio::test]
async fn pulls_that_cannot_be_are_refused_with_the_brokers_codes() {
    let (_server, client) = with_messages(fast().property_filter(false), &["a"]).await;
    let from_heartbeat = |sub_version| PullMessage { sys_flag: 0, sub_version, ..pull("t", 0, 0) };
    let ask = async |header| client.pull(header).await.code.0;
    assert_eq!(ask(pull("u", 0, 0)).await, 17, "an unknown topic");
    assert_eq!(ask(pull("t", 2, 0)).await, 29, "an unknown queue");
    assert_eq!(ask(pull("t", -1, 0)).await, 29, "no queue at all");
    assert_eq!(ask(PullMessage { consumer_group: "a b".into(), ..pull("t", 0, 0) }).await, 26, "no group");
    assert_eq!(ask(PullMessage { subscription: Some("||".into()), ..pull("t", 0, 0) }).await, 23);
    let sql = PullMessage { expression_type: Some("SQL92".into()), ..pull("t", 0, 0) };
    assert_eq!(ask(sql).await, 1, "SQL");
    assert_eq!(ask(from_heartbeat(0)).await, 24, "no heartbeat");
    client.subscribe("c", "g", 5, &[("u", "*")]).await;
    assert_eq!(ask(from_heartbeat(0)).await, 24, "a heartbeat with other topics");
    client.subscribe("c", "g", 5, &[("t", "a = 1")]).await;
    assert_eq!(ask(from_heartbeat(0)).await, 1, "a heartbeat with SQL");
    client.subscribe("c", "g", 6, &[("t", "*")]).await;
    assert_eq!(ask(from_heartbeat(6)).await, 0);
    assert_eq!(ask(from_heartbeat(7)).await, 25, "newer than the heartbeat");
}

#[tokio::test]
async fn messages_are_filtered_by_the_tags_of_the_heartbeat_or_of_the_pull() {
    let (_server, client) = with_messages(fast(), &["a", "b", "c", "a", ""]).await;
    client.subscribe("c", "g", 1, &[("t", "a || c")]).await;
    let pulled = client.pull(PullMessage { sys_flag: 0, ..pull("t", 0, 0) }).await;
    assert_eq!((pulled.bodies(), pulled.next()), (vec!["m0".into(), "m2".into(), "m3".into()], 5));
    let only_b = PullMessage { subscription: Some("b".into()), ..pull("t", 0, 0) };
    assert_eq!(client.pull(only_b).await.bodies(), ["m1"]);
    let none = client.pull(PullMessage { subscription: Some("x".into()), ..pull("t", 0, 1) }).await;
    assert_eq!((none.code, none.next()), (ResponseCode::PULL_RETRY_IMMEDIATELY, 5));
}

#[tokio::test]
async fn an_answer_holds_no_more_than_is_asked_for_and_than_a_broker_gives() {
    let (_server, client) = with_messages(fast(), &["a"; 40]).await;
    let count = async |header| client.pull(header).await.messages.len();
    assert_eq!(count(PullMessage { max_msg_nums: 1_000, ..pull("t", 0, 0) }).await, 32);
    assert_eq!(count(PullMessage { max_msg_nums: 3, ..pull("t", 0, 0) }).await, 3);
    assert_eq!(count(PullMessage { max_msg_nums: 0, ..pull("t", 0, 0) }).await, 1);
    for _ in 0..3 {
        client.call_with(&message("t", 1, &[]), vec![b'x'; 100 << 10]).await.unwrap();
    }
    assert_eq!(count(pull("t", 1, 0)).await, 2);
}

#[tokio::test]
async fn a_waiting_pull_is_answered_when_a_message_with_its_tag_comes() {
    let (server, client) = with_messages(fast(), &[]).await;
    let other = Client::new(&server);
    let header = PullMessage { subscription: Some("b".into()), ..waiting_pull("t", 0, 0) };
    let send = async {
        // The pull is there before the messages are: the connection is the same, and its requests keep their order.
        for tag in ["a", "b"] {
            client.send(message("t", 0, &[("TAGS", tag)])).await.unwrap();
        }
        other.send(message("t", 1, &[("TAGS", "b")])).await.unwrap();
    };
    let (pulled, ()) = tokio::join!(client.pull(header), send);
    assert_eq!(pulled.code, ResponseCode::SUCCESS);
    assert_eq!(pulled.messages.iter().map(MessageExt::tag).collect::<Vec<_>>(), [Some("b")]);
    assert_eq!(pulled.next(), 2);
}

#[tokio::test]
async fn a_waiting_pull_is_answered_when_its_time_is_up() {
    let (_server, client) = with_messages(fast(), &["a"]).await;
    let header = PullMessage { suspend_timeout_millis: 20, ..waiting_pull("t", 0, 1) };
    let begun = time::Instant::now();
    let pulled = client.pull(header).await;
    assert_eq!((pulled.code, pulled.next()), (ResponseCode::PULL_NOT_FOUND, 1));
    assert!(begun.elapsed() >= Duration::from_millis(20));

    // What came in the meantime and does not match moves the offset.
    let header =
        PullMessage { suspend_timeout_millis: 20, subscription: Some("b".into()), ..waiting_pull("t", 0, 1) };
    let send = client.send(message("t", 0, &[("TAGS", "a")]));
    let (pulled, sent) = tokio::join!(client.pull(header), send);
    sent.unwrap();
    assert_eq!((pulled.code, pulled.next()), (ResponseCode::PULL_RETRY_IMMEDIATELY, 2));
}

#[tokio::test]
async fn a_batch_wakes_a_waiting_pull_once_with_all_of_its_messages() {
    let (_server, client) = with_messages(fast(), &[]).await;
    let header = SendMessageV2 { batch: Some(true), ..message("t", 0, &[]) };
    let body = batch_of(&[("one", "a"), ("two", "b")]);
    let send = client.invoke(RequestCode::SEND_BATCH_MESSAGE, header.to_fields(), body);
    let (pulled, _) = tokio::join!(client.pull(waiting_pull("t", 0, 0)), send);
    assert_eq!(pulled.bodies(), ["one", "two"]);
}

#[tokio::test]
async fn a_pull_may_commit_the_groups_offset() {
    let (server, client) = with_messages(fast(), &["a", "a"]).await;
    assert_eq!(server.committed("g", "t", 0), None);
    let sys_flag = pull_flag::SUBSCRIPTION | pull_flag::COMMIT_OFFSET;
    client.pull(PullMessage { sys_flag, commit_offset: 1, ..pull("t", 0, 1) }).await;
    assert_eq!(server.committed("g", "t", 0), Some(1));
}

#[tokio::test]
async fn an_offset_that_was_never_committed_is_0_only_for_a_young_queue_and_only_if_asked_for() {
    let (_server, client) = with_messages(fast().max_messages_per_queue(2), &["a"]).await;
    let ask = async |queue_id, set_zero_if_not_found| {
        let (consumer_group, topic) = ("g".into(), "t".into());
        let request = QueryConsumerOffset { consumer_group, topic, queue_id, set_zero_if_not_found };
        client.call(&request).await.map(|answer| answer.offset)
    };
    let none = Err(ResponseCode::QUERY_NOT_FOUND);
    assert_eq!(ask(0, None).await, Ok(0), "a young queue");
    assert_eq!(ask(0, Some(false)).await, none, "a young queue, but not if that is not wanted");
    assert_eq!(ask(1, None).await, none, "an empty queue");
    for _ in 0..3 {
        client.send(message("t", 0, &[])).await.unwrap();
    }
    assert_eq!(ask(0, None).await, none, "an old queue");
}

#[tokio::test]
async fn offsets_are_committed_for_groups_and_topics_that_exist() {
    let (server, client) = with_messages(fast(), &["a"]).await;
    let commit = async |group: &str, topic: &str, queue_id, commit_offset| {
        let (consumer_group, topic) = (group.into(), topic.into());
        client.call(&UpdateConsumerOffset { consumer_group, topic, queue_id, commit_offset }).await
    };
    assert_eq!(commit("g", "t", 0, 1).await, Err(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST));
    client.heartbeat("c", "g", &["t"]).await;
    assert_eq!(commit("g", "u", 0, 1).await, Err(ResponseCode::TOPIC_NOT_EXIST));
    assert_eq!(commit("g", "t", 5_000, 1).await, Err(ResponseCode::INVALID_PARAMETER));
    assert_eq!(commit("g", "t", 0, 7).await, Ok(()));
    assert_eq!(commit("g", "t", 0, 1).await, Ok(()));
    assert_eq!(server.committed("g", "t", 0), Some(1));
}

#[tokio::test]
async fn offsets_times_and_messages_are_looked_up() {
    let (server, client) = with_messages(fast(), &["a", "a"]).await;
    let (topic, queue_id): (Arc<str>, _) = ("t".into(), 0);
    let at = |timestamp| SearchOffset { topic: "t".into(), queue_id: 0, timestamp };
    let stored = server.messages("t");
    let first = stored[0].store_timestamp_ms();
    assert_eq!(client.call(&GetMaxOffset { topic: Arc::clone(&topic), queue_id }).await.unwrap().offset, 2);
    assert_eq!(client.call(&GetMinOffset { topic: Arc::clone(&topic), queue_id }).await.unwrap().offset, 0);
    assert_eq!(client.call(&at(first)).await.unwrap().offset, 0);
    assert_eq!(client.call(&at(first + 60_000)).await.unwrap().offset, 2);
    let mut upper = at(first + 60_000).to_fields();
    upper.put("boundaryType", "upper");
    let answer = client.invoke(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, upper, "").await;
    assert_eq!(answer.ext_fields.get("offset"), Some("1"));
    let earliest = |queue_id| GetEarliestMessageTime { topic: Arc::clone(&topic), queue_id };
    assert_eq!(client.call(&earliest(0)).await.unwrap().timestamp, first);
    assert_eq!(client.call(&earliest(1)).await.unwrap().timestamp, -1);

    let view = |offset| ViewMessage { offset };
    let viewed = client.call(&view(stored[1].commit_log_offset())).await.unwrap().body;
    assert_eq!(stored::decode(viewed, 1 << 20).unwrap().body(), "m1");
    assert_eq!(client.call(&view(1)).await.unwrap_err(), ResponseCode::SYSTEM_ERROR);
}
