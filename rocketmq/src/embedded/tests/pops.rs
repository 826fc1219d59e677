use super::*;
use crate::protocol::pop::{
    AckMessage, Assignment, AssignmentQuestion, BatchAckBody, BatchAckMessage, ChangeInvisibleTime,
    MessageRequestMode, OffsetInfo, PopHandle, PopMessage, PopMessageResponse, QueryAssignment, RequestMode,
    RetryFlag, SetMessageRequestMode, init_mode,
};

/// A pop of the group `g` that does not wait.
fn pop(topic: &str, invisible: Duration) -> PopMessage {
    PopMessage {
        consumer_group: "g".into(),
        topic: topic.into(),
        queue_id: -1,
        max_msg_nums: 32,
        invisible_time: invisible.as_millis() as i64,
        poll_time: 0,
        born_time: 0,
        init_mode: init_mode::MIN,
        exp_type: None,
        exp: None,
        order: None,
        broker_name: None,
    }
}

/// The same, waiting for as long as a test has patience.
fn waiting_pop(topic: &str, invisible: Duration) -> PopMessage {
    PopMessage { poll_time: 2 * PATIENCE.as_millis() as i64, ..pop(topic, invisible) }
}

struct Popped {
    code: ResponseCode,
    messages: Vec<(MessageExt, PopHandle)>,
}

impl Client {
    async fn pop(&self, header: PopMessage) -> Popped {
        let answer = self.invoke(RequestCode::POP_MESSAGE, header.to_fields(), Bytes::new()).await;
        let code = answer.response_code();
        let header = PopMessageResponse::read(&answer.ext_fields).unwrap();
        let info = |text: &Option<String>| OffsetInfo::read(text.as_deref().unwrap_or_default()).unwrap();
        let starts = info(&header.start_offset_info);
        let messages = stored::decode_all(answer.body, 16 << 20).map(Result::unwrap).map(|message| {
            let key = (RetryFlag::Normal, message.queue_id());
            let handle = match message.property("POP_CK") {
                Some(text) => text.parse().unwrap(),
                None => PopHandle {
                    start_offset: starts.offsets(key)[0],
                    pop_time: header.pop_time,
                    invisible_time: header.invisible_time,
                    revive_qid: header.revive_qid,
                    retry: key.0,
                    broker_name: "broker-a".into(),
                    queue_id: key.1,
                    queue_offset: message.queue_offset(),
                },
            };
            (message, handle)
        });
        Popped { code, messages: messages.collect() }
    }

    async fn ack(&self, handle: &PopHandle) -> Result<(), ResponseCode> {
        let request = AckMessage {
            consumer_group: "g".into(),
            topic: handle.retry.topic("g", &"t".into()),
            queue_id: handle.queue_id,
            extra_info: handle.to_string(),
            offset: handle.queue_offset,
            broker_name: None,
        };
        self.call(&request).await
    }

    async fn change(&self, handle: &PopHandle, time: Duration) -> Result<PopHandle, ResponseCode> {
        let request = ChangeInvisibleTime {
            consumer_group: "g".into(),
            topic: handle.retry.topic("g", &"t".into()),
            queue_id: handle.queue_id,
            extra_info: handle.to_string(),
            offset: handle.queue_offset,
            invisible_time: time.as_millis() as i64,
            broker_name: None,
        };
        let changed = self.call(&request).await?;
        Ok(PopHandle { start_offset: handle.queue_offset, pop_time: changed.pop_time, ..handle.clone() })
    }
}

fn bodies(popped: &Popped) -> usize {
    popped.messages.len()
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

async fn with_messages(count: i32) -> (Server, Client) {
    let server = started().await;
    let client = Client::new(&server);
    for queue in 0..count {
        client.send(message("t", queue % 4, &[("TAGS", "a")])).await.unwrap();
    }
    (server, client)
}

#[tokio::test]
async fn what_was_popped_is_seen_by_nobody_and_comes_again_unless_it_is_acknowledged() {
    let (server, client) = with_messages(3).await;
    let first = client.pop(pop("t", LONG)).await;
    assert_eq!(bodies(&first), 3);
    assert_eq!(client.pop(pop("t", SHORT)).await.code, ResponseCode::POLLING_TIMEOUT);
    client.ack(&first.messages[0].1).await.unwrap();
    client.ack(&first.messages[1].1).await.unwrap();
    // Not before: a busy machine may need longer than that for what is above.
    let last = client.change(&first.messages[2].1, SHORT).await.unwrap();

    let again = client.pop(waiting_pop("t", LONG)).await;
    let [(message, handle)] = &again.messages[..] else { panic!("{}", bodies(&again)) };
    assert_eq!((message.topic(), message.reconsume_times(), handle.retry), ("t", 1, RetryFlag::V1));
    let first_pop = last.pop_time.to_string();
    assert_eq!(message.property("1ST_POP_TIME"), Some(first_pop.as_str()));
    assert_eq!(message.message_id(), first.messages[2].0.message_id());
    client.ack(handle).await.unwrap();
    assert_eq!(server.messages("%RETRY%g_t").len(), 1);
}

#[tokio::test]
async fn a_waiting_pop_gets_what_comes_and_what_comes_again() {
    let (_server, client) = with_messages(0).await;
    client.send(message("t", 0, &[])).await.unwrap();
    let first = client.pop(pop("t", SHORT)).await;
    assert_eq!(bodies(&first), 1);
    let again = client.pop(waiting_pop("t", LONG)).await;
    assert_eq!(again.messages[0].0.reconsume_times(), 1);
    let (popped, sent) = tokio::join!(client.pop(waiting_pop("t", LONG)), client.send(message("t", 3, &[])));
    sent.unwrap();
    assert_eq!(popped.messages[0].0.queue_id(), 3);
}

#[tokio::test]
async fn an_invisible_time_that_was_changed_has_a_new_handle_and_the_old_one_does_nothing() {
    let (_server, client) = with_messages(2).await;
    let popped = client.pop(pop("t", LONG)).await;
    let [(_, one), (_, two)] = &popped.messages[..] else { panic!("{}", bodies(&popped)) };
    // So that the times, by which handles differ, do; the broker's clock may be a little behind.
    while unix_ms() <= one.pop_time + 20 {
        time::sleep(Duration::from_millis(1)).await;
    }
    let soon = client.change(one, SHORT).await.unwrap();
    let late = client.change(two, LONG).await.unwrap();
    assert!(soon.pop_time > one.pop_time);
    client.ack(one).await.unwrap();
    client.ack(&late).await.unwrap();
    let again = client.pop(waiting_pop("t", LONG)).await;
    assert_eq!(again.messages[0].0.message_id(), popped.messages[0].0.message_id());
    let beyond = PopHandle { queue_offset: 1, ..one.clone() };
    assert_eq!(client.change(&beyond, LONG).await.unwrap_err(), ResponseCode::NO_MESSAGE);
}

fn unix_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis() as i64
}

#[tokio::test]
async fn many_are_acknowledged_at_once_whatever_topic_they_stand_in() {
    let (_server, client) = with_messages(8).await;
    let first = client.pop(pop("t", SHORT)).await;
    let handles: Vec<_> = first.messages.iter().skip(1).map(|(_, handle)| handle.clone()).collect();
    let ack = |handles: &[PopHandle]| json::write(&BatchAckBody::new("g", "t", "broker-a", handles));
    client.call_with(&BatchAckMessage, ack(&handles)).await.unwrap();
    let again = client.pop(waiting_pop("t", SHORT)).await;
    assert_eq!(bodies(&again), 1);
    client.call_with(&BatchAckMessage, ack(&[again.messages[0].1.clone()])).await.unwrap();
    let nothing = PopMessage { poll_time: 100, ..pop("t", SHORT) };
    assert_eq!(client.pop(nothing).await.code, ResponseCode::POLLING_TIMEOUT);
    let empty = client.call_with(&BatchAckMessage, json::write(&BatchAckBody::default())).await;
    assert_eq!(empty.unwrap_err(), ResponseCode::NO_MESSAGE);
}

#[tokio::test]
async fn tags_are_filtered_where_the_pop_names_them() {
    let (_server, client) = with_messages(4).await;
    let of = |tag: &str| PopMessage { exp: Some(tag.into()), exp_type: Some("TAG".into()), ..pop("t", LONG) };
    assert_eq!(bodies(&client.pop(of("b")).await), 0);
    client.send(message("t", 0, &[("TAGS", "b")])).await.unwrap();
    assert_eq!(bodies(&client.pop(of("b || c")).await), 1);
}

#[tokio::test]
async fn what_is_not_there_is_not_popped() {
    let (_server, client) = with_messages(1).await;
    let code = async |header: PopMessage| client.call(&header).await.unwrap_err();
    assert_eq!(code(pop("missing", LONG)).await, ResponseCode::TOPIC_NOT_EXIST);
    assert_eq!(code(PopMessage { queue_id: 4, ..pop("t", LONG) }).await, ResponseCode::INVALID_PARAMETER);
    assert_eq!(
        code(PopMessage { max_msg_nums: 33, ..pop("t", LONG) }).await,
        ResponseCode::INVALID_PARAMETER
    );
    let elsewhere: PopHandle = "0 1 2 3 0 broker-a 9 0".parse().unwrap();
    assert_eq!(client.ack(&elsewhere).await.unwrap_err(), ResponseCode::MESSAGE_ILLEGAL);
}

#[tokio::test]
async fn members_ask_for_their_share_and_an_operator_says_how_it_comes() {
    use MessageRequestMode::{Pop, Pull};

    let (server, client) = with_messages(1).await;
    let other = Client::new(&server);
    let set = async |topic: &str, group: &str, share| {
        let mode = RequestMode {
            topic: topic.into(),
            consumer_group: group.into(),
            mode: Pop,
            pop_share_queue_num: share,
        };
        client.call_with(&SetMessageRequestMode, json::write(&mode)).await
    };
    let ask = async |topic: &str, id: &str| {
        let question = AssignmentQuestion {
            topic: topic.into(),
            consumer_group: "g".into(),
            client_id: id.into(),
            strategy_name: "AVG".into(),
            ..AssignmentQuestion::default()
        };
        let answer = client.call_with(&QueryAssignment, json::write(&question)).await.unwrap().0;
        let show = |one: Assignment| (one.message_queue.queue_id, one.mode);
        let all = answer.message_queue_assignments?;
        Some(all.into_iter().map(show).collect::<Vec<_>>())
    };
    assert_eq!(set("t", "g", 0).await.unwrap_err(), ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST);
    assert_eq!(ask("t", "one").await, None, "nobody is there");
    client.heartbeat("one", "g", &["t"]).await;
    other.heartbeat("two", "g", &["t"]).await;
    assert_eq!(ask("t", "one").await, Some(vec![(0, Pull), (1, Pull)]));
    assert_eq!(ask("%RETRY%g", "one").await, Some(vec![(0, Pull)]));
    assert_eq!(ask("missing", "one").await, None);
    assert_eq!(set("missing", "g", 0).await.unwrap_err(), ResponseCode::TOPIC_NOT_EXIST);
    assert_eq!(set("%RETRY%g", "g", 0).await.unwrap_err(), ResponseCode::NO_PERMISSION);
    set("t", "g", 0).await.unwrap();
    assert_eq!(ask("t", "two").await, Some(vec![(-1, Pop)]));
    set("t", "g", 1).await.unwrap();
    assert_eq!(ask("t", "two").await, Some(vec![(0, Pop), (1, Pop), (2, Pop), (3, Pop)]));
}
