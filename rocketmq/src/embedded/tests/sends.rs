use super::*;
use crate::message::topic::SCHEDULE_TOPIC;
use crate::message::{RecallHandle, properties};
use crate::protocol::body::{ClusterInfo, TopicList, TopicRouteData, perm};
use crate::protocol::header::{CreateTopic, GetRouteInfo, RecallMessage, SendMessageV1};

#[tokio::test]
async fn a_message_is_stored_with_what_a_5x_broker_adds() {
    let server = started().await;
    let client = Client::new(&server);
    let sent = client.send(message("t", 2, &[("KEYS", "k1"), ("POP_CK", "x")])).await.unwrap();
    assert_eq!((sent.queue_id, sent.queue_offset, sent.trace_on), (2, 0, Some(true)));
    assert_eq!(sent.region_id.as_deref(), Some("DefaultRegion"));

    let [stored] = &server.messages("t")[..] else { panic!("not one message") };
    assert_eq!((stored.topic(), stored.queue_id(), stored.flag()), ("t", 2, 7));
    assert_eq!(stored.offset_message_id(), sent.msg_id);
    assert_eq!(stored.property(properties::UNIQUE_KEY), sent.transaction_id.as_deref());
    assert_eq!(stored.store_host().to_string(), server.broker());
    assert_eq!((stored.born_timestamp_ms(), stored.broker_name()), (1_700_000_000_000, "broker-a"));
    for (name, value) in [
        ("KEYS", Some("k1")),
        ("CLUSTER", Some("DefaultCluster")),
        ("MSG_REGION", Some("DefaultRegion")),
        ("TRACE_ON", Some("true")),
        ("POP_CK", None),
    ] {
        assert_eq!(stored.property(name), value, "{name}");
    }

    let sent = client.send(message("t", 2, &[("UNIQ_KEY", "mine")])).await.unwrap();
    assert_eq!((sent.queue_offset, sent.transaction_id.as_deref()), (1, Some("mine")));
    server.shutdown().await;
}

#[tokio::test]
async fn the_older_form_of_a_send_and_oneway_sends_are_understood() {
    let server = started().await;
    let client = Client::new(&server);
    let SendMessageV2 { producer_group, topic, default_topic, properties, .. } = message("t", 0, &[]);
    let header = SendMessageV1 {
        producer_group,
        topic,
        default_topic,
        default_topic_queue_nums: 1,
        queue_id: -1,
        sys_flag: 0,
        born_timestamp: 0,
        flag: 0,
        properties,
        reconsume_times: None,
        unit_mode: None,
        max_reconsume_times: None,
        batch: None,
    };
    let answer = client.invoke(RequestCode::SEND_MESSAGE, header.to_fields(), "one").await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);

    let request = message("t", 0, &[]);
    let command =
        client.remoting.oneway_command(&client.broker, SendMessageV2::CODE, &request, Bytes::new()).unwrap();
    client.remoting.tell(&client.broker, command, PATIENCE).await.unwrap();
    // An empty body is refused, but nobody is told; the next answer is that of the next request.
    client.send(message("t", 0, &[])).await.unwrap();
    assert_eq!(server.max_offset("t", 0), 2);
}

#[tokio::test]
async fn a_first_send_creates_its_topic_with_as_many_queues_as_both_sides_allow() {
    let server = Server::builder().queues(3).start().await.unwrap();
    let client = Client::new(&server);
    for (topic, wanted, queues) in [("few", 2, 2), ("many", 16, 3)] {
        client
            .send(SendMessageV2 { default_topic_queue_nums: wanted, ..message(topic, -1, &[]) })
            .await
            .unwrap();
        let route = route(&client, topic).await.unwrap();
        assert_eq!(route.queue_datas[0].write_queue_nums, queues, "{topic}");
        assert_eq!(route.queue_datas[0].perm, perm::READ | perm::WRITE, "{topic}");
    }
}

#[tokio::test]
async fn sends_that_cannot_be_stored_are_refused_with_the_brokers_codes() {
    let server = fast().auto_create_topics(false).start().await.unwrap();
    server.create_topic("t", 2).unwrap();
    let client = Client::new(&server);
    let too_long = "x".repeat(properties::MAX_BYTES);
    let batch = SendMessageV2 { batch: Some(true), ..message("t", 0, &[]) };
    for (what, header, body, code) in [
        ("an unknown topic", message("u", 0, &[]), 5, 17),
        ("a topic with a blank", message("a b", 0, &[]), 5, 29),
        ("a queue that does not exist", message("t", 2, &[]), 5, 29),
        ("a topic of the broker's own", message(SCHEDULE_TOPIC, 0, &[]), 5, 16),
        ("no body", message("t", 0, &[]), 0, 1),
        ("a body that is too large", message("t", 0, &[]), (4 << 20) + 1, 13),
        ("too many properties", message("t", 0, &[("a", &too_long)]), 5, 13),
        ("a batch that is none", batch.clone(), 5, 1),
        ("a batch for a retry topic", SendMessageV2 { topic: "%RETRY%g".into(), ..batch }, 5, 13),
        ("a timer beyond three days", message("t", 0, &[("TIMER_DELAY_SEC", "300000")]), 5, 13),
    ] {
        let answer = client.invoke(RequestCode::SEND_MESSAGE_V2, header.to_fields(), vec![b'x'; body]).await;
        assert_eq!(answer.code, code, "{what}");
        assert_eq!(answer.ext_fields.get("TRACE_ON"), Some("true"), "{what}");
    }
    assert!(server.messages("t").is_empty());

    let mut fields = message("t", 0, &[]).to_fields();
    fields = fields.iter().filter(|(name, _)| *name != "e").fold(
        ExtFields::default(),
        |mut fields, (name, value)| {
            fields.put(name, value);
            fields
        },
    );
    let answer = client.invoke(RequestCode::SEND_MESSAGE_V2, fields, "x").await;
    assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
    assert_eq!(answer.remark.as_deref(), Some("the header field `e` is missing"));
}

#[tokio::test]
async fn a_batch_becomes_messages_next_to_each_other() {
    let server = started().await;
    let client = Client::new(&server);
    let header = SendMessageV2 { batch: Some(true), ..message("t", 1, &[]) };
    let body = batch_of(&[("one", "a"), ("two", "b")]);
    let answer = client.invoke(RequestCode::SEND_BATCH_MESSAGE, header.to_fields(), body).await;
    let sent = SendMessageResponse::read(&answer.ext_fields).unwrap();
    assert_eq!((sent.queue_id, sent.queue_offset), (1, 0));

    let stored = server.messages("t");
    let ids: Vec<_> = stored.iter().map(MessageExt::offset_message_id).collect();
    assert_eq!(sent.msg_id, ids.join(","));
    let seen: Vec<_> = stored.iter().map(|m| (m.body_str(), m.queue_offset(), m.tag(), m.flag())).collect();
    assert_eq!(seen, [("one".into(), 0, Some("a"), 3), ("two".into(), 1, Some("b"), 3)]);
}

#[tokio::test]
async fn a_delayed_message_comes_when_its_time_has_come() {
    let server = started().await;
    let client = Client::new(&server);
    for (at, delay) in [("DELAY", "2"), ("TIMER_DELAY_MS", "5")].into_iter().enumerate() {
        let sent = client.send(message("t", 1, &[delay, ("TAGS", "a")])).await.unwrap();
        assert_eq!(sent.queue_id, 1);
        let pulled = client.pull(waiting_pull("t", 1, at as i64)).await;
        let [message] = &pulled.messages[..] else { panic!("not one message") };
        let waited = message.store_timestamp_ms();
        assert!(message.property(delay.0).is_some() && waited > 0, "{delay:?}");
        assert_eq!(message.property(properties::REAL_TOPIC), Some("t"));
        assert_eq!(message.property(properties::REAL_QUEUE_ID), Some("1"));
    }
    assert_eq!(server.delayed(), 0);
}

#[tokio::test]
async fn a_timer_message_is_taken_back_by_its_handle_and_nothing_else_is() {
    let server = started().await;
    let client = Client::new(&server);
    let later = |key| message("t", 0, &[("TIMER_DELAY_SEC", "60"), ("UNIQ_KEY", key)]);
    let handle = client.send(later("one")).await.unwrap().recall_handle.unwrap();
    client.send(later("two")).await.unwrap();
    for other in [message("t", 0, &[("DELAY", "1")]), message("t", 0, &[])] {
        assert_eq!(client.send(other).await.unwrap().recall_handle, None);
    }
    while server.messages("t").len() < 2 {
        time::sleep(Duration::from_millis(1)).await;
    }

    let of = |handle: &str| RecallMessage {
        producer_group: None,
        topic: "t".into(),
        recall_handle: handle.to_owned(),
        broker_name: None,
    };
    let changed = |change: fn(&mut RecallHandle)| {
        let mut handle = RecallHandle::decode(&handle).unwrap();
        change(&mut handle);
        of(&handle.encode())
    };
    let unknown_topic = RecallMessage { topic: "unknown".into(), ..of(&handle) };
    for (wrong, code) in [
        (of("no handle"), ResponseCode::ILLEGAL_OPERATION),
        (unknown_topic, ResponseCode::TOPIC_NOT_EXIST),
        (changed(|handle| handle.topic.push('u')), ResponseCode::ILLEGAL_OPERATION),
        (changed(|handle| handle.broker_name.push('b')), ResponseCode::ILLEGAL_OPERATION),
        (changed(|handle| handle.deliver_ms = 1), ResponseCode::ILLEGAL_OPERATION),
        (changed(|handle| handle.deliver_ms = i64::MAX), ResponseCode::ILLEGAL_OPERATION),
    ] {
        assert_eq!(client.call(&wrong).await.unwrap_err(), code, "{wrong:?}");
    }
    assert_eq!(server.delayed(), 2);

    for _ in ["it is there", "it is gone, which the broker does not know"] {
        assert_eq!(client.call(&of(&handle)).await.unwrap().msg_id, "one");
        assert_eq!(server.delayed(), 1);
    }
}

#[tokio::test]
async fn delayed_messages_beyond_their_room_are_refused_not_dropped() {
    let server = Server::builder().max_bytes(2_000).start().await.unwrap();
    let client = Client::new(&server);
    let mut codes = Vec::new();
    for _ in 0..6 {
        codes.push(client.send(message("t", 0, &[("DELAY", "18")])).await.err());
    }
    assert_eq!(codes.last().unwrap(), &Some(ResponseCode::SYSTEM_BUSY));
    assert_eq!(server.delayed(), codes.iter().filter(|code| code.is_none()).count());
}

#[tokio::test]
async fn the_name_server_knows_topics_and_the_cluster() {
    let server = started().await;
    server.create_topic("t", 3).unwrap();
    let client = Client::new(&server);
    assert_eq!(route(&client, "u").await.unwrap_err(), ResponseCode::TOPIC_NOT_EXIST);
    let known = route(&client, "t").await.unwrap();
    assert_eq!(known.queue_datas[0].read_queue_nums, 3);
    assert_eq!(known.broker_datas[0].broker_addrs[&0], server.broker());
    assert_eq!(route(&client, "TBW102").await.unwrap().queue_datas[0].perm, 7);

    let ask = async |code| {
        let command = RemotingCommand::request(code, ExtFields::default(), Bytes::new());
        client.remoting.invoke(&client.name_server, command, PATIENCE).await.unwrap()
    };
    let cluster = ask(RequestCode::GET_BROKER_CLUSTER_INFO).await;
    let cluster: ClusterInfo = json::read(&cluster.body).unwrap();
    assert_eq!(cluster.cluster_addr_table["DefaultCluster"], ["broker-a"]);
    assert_eq!(cluster.broker_addr_table["broker-a"].broker_addrs[&0], server.broker());
    let topics = ask(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER).await;
    assert_eq!(
        json::read::<TopicList>(&topics.body).unwrap().topic_list,
        [
            "DefaultCluster_REPLY_TOPIC",
            "RMQ_SYS_TRANS_HALF_TOPIC",
            "TBW102",
            "TRANS_CHECK_MAX_TIME_TOPIC",
            "t"
        ]
    );
    assert_eq!(ask(RequestCode(9_999)).await.code, 3);
}

#[tokio::test]
async fn operators_create_topics_as_they_want_them() {
    let server = started().await;
    let client = Client::new(&server);
    let create = CreateTopic {
        topic: "t".into(),
        default_topic: "TBW102".into(),
        read_queue_nums: 3,
        write_queue_nums: 2,
        perm: perm::READ,
        topic_filter_type: "SINGLE_TAG".into(),
        topic_sys_flag: None,
        order: false,
    };
    client.call(&create).await.unwrap();
    let queues = route(&client, "t").await.unwrap().queue_datas.remove(0);
    assert_eq!((queues.read_queue_nums, queues.write_queue_nums, queues.perm), (3, 2, perm::READ));
    for (topic, read_queue_nums) in [("a b", 1), ("TBW102", 1), ("t", 5_000), ("t", -1)] {
        let create = CreateTopic { topic: topic.into(), read_queue_nums, ..create.clone() };
        assert_eq!(client.call(&create).await, Err(ResponseCode::INVALID_PARAMETER), "{topic}");
    }
}

#[tokio::test]
async fn topics_are_created_and_grow_but_not_under_any_name() {
    let server = started().await;
    server.create_topic("t", 1).unwrap();
    let client = Client::new(&server);
    client.send(message("t", 0, &[])).await.unwrap();
    server.create_topic("t", 2).unwrap();
    client.send(message("t", 1, &[])).await.unwrap();
    assert_eq!(server.messages("t").len(), 2);
    for (topic, queues) in [("a b", 1), ("TBW102", 1), ("t", 5_000)] {
        assert!(server.create_topic(topic, queues).is_err(), "{topic}");
    }
    assert_eq!(client.invoke(RequestCode(9_999), ExtFields::default(), "").await.code, 3);
}

async fn route(client: &Client, topic: &str) -> Result<TopicRouteData, ResponseCode> {
    let request = GetRouteInfo { topic: topic.into(), accept_standard_json_only: Some(true) };
    let called = client.remoting.call(&client.name_server, &request, Bytes::new(), PATIENCE).await;
    called.map(|route| route.0).map_err(|error| error.response_code().unwrap())
}
