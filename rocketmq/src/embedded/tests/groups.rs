use super::*;
use crate::message::MessageQueue;
use crate::protocol::body::{CheckClientConfig, LockBatch, LockedQueues};
use crate::protocol::header::{GetConsumerList, UnregisterClient};

const CHANGED: RequestCode = RequestCode::NOTIFY_CONSUMER_IDS_CHANGED;

async fn listed(client: &Client, group: &str) -> Result<Vec<String>, ResponseCode> {
    let request = GetConsumerList { consumer_group: group.into() };
    client.call(&request).await.map(|list| list.0.consumer_id_list)
}

#[tokio::test]
async fn members_learn_of_each_other_when_one_comes_and_when_one_leaves() {
    let server = started().await;
    let (mut one, mut two) = (Client::new(&server), Client::new(&server));
    assert_eq!(listed(&one, "g").await, Err(ResponseCode::SYSTEM_ERROR));
    let g = || Some("g".to_owned());
    one.heartbeat("one", "g", &["t"]).await;
    assert_eq!(one.told().await, (CHANGED, g()));
    two.heartbeat("two", "g", &["t"]).await;
    assert_eq!((one.told().await, two.told().await), ((CHANGED, g()), (CHANGED, g())));
    assert_eq!(listed(&one, "g").await.unwrap(), ["one", "two"]);
    assert_eq!(server.members("g"), ["one", "two"]);
    assert!(server.topics().contains(&"%RETRY%g".to_owned()));

    let leave = UnregisterClient {
        client_id: "two".into(),
        producer_group: Some("p".into()),
        consumer_group: Some("g".into()),
    };
    two.call(&leave).await.unwrap();
    assert_eq!(one.told().await, (CHANGED, g()));
    assert_eq!(server.members("g"), ["one"]);
}

#[tokio::test]
async fn a_member_whose_connection_is_lost_has_left() {
    let server = started().await;
    let (mut one, two) = (Client::new(&server), Client::new(&server));
    one.heartbeat("one", "g", &["t"]).await;
    two.heartbeat("two", "g", &["t"]).await;
    for _ in 0..2 {
        one.told().await;
    }
    two.disconnect();
    assert_eq!(one.told().await, (CHANGED, Some("g".into())));
    assert_eq!(listed(&one, "g").await.unwrap(), ["one"]);
}

#[tokio::test]
async fn queues_are_locked_for_one_member_at_a_time() {
    let server = started().await;
    let client = Client::new(&server);
    let queues: Vec<_> = (0..2).map(|id| MessageQueue::new("t", "broker-a", id)).collect();
    let ask = async |code, client_id: &str, queues: &[MessageQueue]| {
        let (consumer_group, client_id) = ("g".into(), client_id.into());
        let batch = LockBatch { consumer_group, client_id, mq_set: queues.into(), ..LockBatch::default() };
        let answer = client.invoke(code, ExtFields::default(), json::write(&batch)).await;
        assert_eq!(answer.code, 0);
        json::read::<LockedQueues>(&answer.body).unwrap_or_default().lock_ok_mq_set
    };
    assert_eq!(ask(RequestCode::LOCK_BATCH_MQ, "one", &queues[..1]).await, queues[..1]);
    assert_eq!(ask(RequestCode::LOCK_BATCH_MQ, "two", &queues).await, queues[1..]);
    ask(RequestCode::UNLOCK_BATCH_MQ, "two", &queues).await;
    ask(RequestCode::UNLOCK_BATCH_MQ, "one", &queues).await;
    assert_eq!(ask(RequestCode::LOCK_BATCH_MQ, "two", &queues).await, queues);
}

#[tokio::test]
async fn expressions_of_tags_are_accepted_and_others_only_if_they_can_be_read() {
    let server = started().await;
    let client = Client::new(&server);
    for (expression_type, code) in [("TAG", 0), ("", 0), ("SQL92", 23), ("SQL", 1)] {
        let subscription_data =
            SubscriptionData { expression_type: expression_type.into(), ..SubscriptionData::default() };
        let check = CheckClientConfig { subscription_data, ..CheckClientConfig::default() };
        let answer =
            client.invoke(RequestCode::CHECK_CLIENT_CONFIG, ExtFields::default(), json::write(&check)).await;
        assert_eq!(answer.code, code, "{expression_type}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_an_error_of_that_request() {
    let server = started().await;
    let client = Client::new(&server);
    for code in [RequestCode::HEART_BEAT, RequestCode::LOCK_BATCH_MQ, RequestCode::CHECK_CLIENT_CONFIG] {
        assert_eq!(client.invoke(code, ExtFields::default(), "{").await.code, 1, "{code}");
    }
    client.heartbeat("c", "g", &[]).await;
}
