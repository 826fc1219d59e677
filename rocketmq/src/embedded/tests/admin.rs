//! What operators get and do; that Apache's own tool is content with it is tested from outside.

use std::collections::BTreeMap;

use super::*;
use crate::message::MessageQueue;
use crate::protocol::broker_calls::{ResetOffset, read_offset_table};
use crate::protocol::header::{QueryConsumerOffset, UpdateConsumerOffset};

fn reset(timestamp: i64) -> ResetOffset {
    ResetOffset {
        topic: "t".to_owned(),
        group: "g".to_owned(),
        timestamp,
        is_force: Some(true),
        queue_id: Some(-1),
        offset: Some(-1),
    }
}

fn to(offset: i64) -> ResetOffset {
    ResetOffset { queue_id: Some(0), offset: Some(offset), ..reset(-1) }
}

async fn invoke(client: &Client, header: &impl Header) -> RemotingCommand {
    client.invoke(RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, header.to_fields(), Bytes::new()).await
}

async fn commit(client: &Client, commit_offset: i64) {
    let header =
        UpdateConsumerOffset { consumer_group: "g".into(), topic: "t".into(), queue_id: 0, commit_offset };
    client.call(&header).await.unwrap();
}

async fn committed(client: &Client) -> i64 {
    let header = QueryConsumerOffset {
        consumer_group: "g".into(),
        topic: "t".into(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    client.call(&header).await.unwrap().offset
}

fn target(offset: i64) -> BTreeMap<MessageQueue, i64> {
    BTreeMap::from([(MessageQueue::new("t", "broker-a", 0), offset)])
}

/// A server with three messages, and a member that has two of them.
async fn with_a_group(builder: ServerBuilder) -> (Server, Client) {
    let server = builder.start().await.unwrap();
    server.create_topic("t", 1).unwrap();
    let client = Client::new(&server);
    for _ in 0..3 {
        client.send(message("t", 0, &[])).await.unwrap();
    }
    client.heartbeat("one", "g", &["t"]).await;
    commit(&client, 2).await;
    (server, client)
}

#[tokio::test]
async fn a_group_learns_with_its_next_pull_where_to_go_on_and_commits_nothing_until_then() {
    let (server, client) = with_a_group(Server::builder()).await;
    let answer = invoke(&client, &to(1)).await;
    assert_eq!(read_offset_table(&answer.body).unwrap(), target(1), "{answer:?}");
    commit(&client, 3).await;
    assert_eq!(committed(&client).await, 1);
    for (code, next) in [(ResponseCode::PULL_OFFSET_MOVED, 1), (ResponseCode::SUCCESS, 3)] {
        let pulled = client.pull(pull("t", 0, 2)).await;
        assert_eq!((pulled.code, pulled.header.unwrap().next_begin_offset), (code, next));
    }
    commit(&client, 3).await;
    assert_eq!(committed(&client).await, 3);

    // One that waits is not left waiting.
    let (pulled, answer) = tokio::join!(client.pull(waiting_pull("t", 0, 3)), async {
        time::sleep(Duration::from_millis(50)).await;
        invoke(&client, &reset(0)).await
    });
    assert_eq!((pulled.code, pulled.header.unwrap().next_begin_offset), (ResponseCode::PULL_OFFSET_MOVED, 0));
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
    for (header, code) in [
        (to(4), ResponseCode::SYSTEM_ERROR),
        (ResetOffset { topic: "u".to_owned(), ..to(1) }, ResponseCode::TOPIC_NOT_EXIST),
        (ResetOffset { group: "h".to_owned(), ..to(1) }, ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST),
    ] {
        assert_eq!(invoke(&client, &header).await.response_code(), code, "{header:?}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn members_are_told_where_to_go_on_as_by_older_brokers() {
    let (server, mut client) = with_a_group(Server::builder().server_side_reset_offset(false)).await;
    let answer = invoke(&client, &reset(0)).await;
    assert_eq!(read_offset_table(&answer.body).unwrap(), target(0), "{answer:?}");
    let told = loop {
        let told = client.told.recv().await.unwrap();
        if told.request_code() != RequestCode::NOTIFY_CONSUMER_IDS_CHANGED {
            break told;
        }
    };
    assert_eq!(told.request_code(), RequestCode::RESET_CONSUMER_CLIENT_OFFSET);
    assert_eq!(read_offset_table(&told.body).unwrap(), target(0));
    assert_eq!(committed(&client).await, 2, "the members store it");
    // Not ahead, unless that is forced.
    let gently = ResetOffset { is_force: Some(false), ..reset(-1) };
    assert_eq!(read_offset_table(&invoke(&client, &gently).await.body).unwrap(), target(2));
    client.disconnect();
    let client = Client::new(&server);
    time::timeout(PATIENCE, async {
        while invoke(&client, &reset(0)).await.response_code() != ResponseCode::CONSUMER_NOT_ONLINE {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_in_the_words_of_a_broker() {
    let (server, client) = with_a_group(Server::builder()).await;
    for (code, fields, expected) in [
        (
            RequestCode::GET_CONSUMER_RUNNING_INFO,
            &[("consumerGroup", "g"), ("clientId", "x")][..],
            ResponseCode::SYSTEM_ERROR,
        ),
        (
            RequestCode::CONSUME_MESSAGE_DIRECTLY,
            &[("consumerGroup", "g"), ("msgId", "x")],
            ResponseCode::SYSTEM_ERROR,
        ),
        (
            RequestCode::GET_CONSUMER_CONNECTION_LIST,
            &[("consumerGroup", "h")],
            ResponseCode::CONSUMER_NOT_ONLINE,
        ),
        (RequestCode::GET_CONSUMER_CONNECTION_LIST, &[("consumerGroup", "g")], ResponseCode::SUCCESS),
        (RequestCode::GET_TOPIC_CONFIG, &[("topic", "u")], ResponseCode::TOPIC_NOT_EXIST),
        (RequestCode::GET_TOPIC_STATS_INFO, &[("topic", "t")], ResponseCode::SUCCESS),
        (RequestCode(9_999), &[], ResponseCode::REQUEST_CODE_NOT_SUPPORTED),
    ] {
        let mut ext_fields = ExtFields::default();
        fields.iter().for_each(|(name, value)| ext_fields.put(name, value));
        let answer = client.invoke(code, ext_fields, Bytes::new()).await;
        assert_eq!(answer.response_code(), expected, "{code}: {answer:?}");
    }
    server.shutdown().await;
}
