use super::*;
use crate::message::{id, properties, sys_flag};
use crate::protocol::body::ProducerData;
use crate::protocol::transactions::{CheckTransactionState, EndTransaction};

const TIMEOUT: Duration = Duration::from_millis(50);

async fn impatient(max_checks: u32) -> Server {
    let server = fast().transaction_timeout(TIMEOUT).transaction_check_interval(TIMEOUT);
    let server = server.transaction_check_max(max_checks).start().await.unwrap();
    server.create_topic("t", 2).unwrap();
    server
}

fn half(more: &[(&str, &str)]) -> SendMessageV2 {
    let all = [
        (properties::TRANSACTION_PREPARED, "true"),
        (properties::PRODUCER_GROUP, "producers"),
        (properties::UNIQUE_KEY, "K"),
    ];
    let all: Vec<_> = all.iter().chain(more).copied().collect();
    SendMessageV2 { sys_flag: sys_flag::TRANSACTION_PREPARED, ..message("t", 1, &all) }
}

/// What the sender of a half message says of it.
fn end(sent: &SendMessageResponse, state: i32) -> EndTransaction {
    EndTransaction {
        topic: Some("t".into()),
        producer_group: "producers".into(),
        tran_state_table_offset: sent.queue_offset,
        commit_log_offset: id::offset_of(&sent.msg_id).unwrap(),
        commit_or_rollback: state,
        from_transaction_check: Some(false),
        msg_id: "K".into(),
        transaction_id: sent.transaction_id.clone(),
        broker_name: None,
    }
}

impl Client {
    /// A producer of this group lives here.
    async fn produce(&self, client_id: &str, group: &str) {
        let heartbeat = HeartbeatData {
            client_id: client_id.into(),
            producer_data_set: vec![ProducerData { group_name: group.into() }],
            ..HeartbeatData::default()
        };
        self.call_with(&Heartbeat, json::write(&heartbeat)).await.unwrap();
    }

    /// The next question about a transaction, and its message.
    async fn asked(&mut self) -> (CheckTransactionState, MessageExt) {
        let command = time::timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap();
        assert_eq!(command.request_code(), RequestCode::CHECK_TRANSACTION_STATE);
        let header = CheckTransactionState::read(&command.ext_fields).unwrap();
        (header, stored::decode(command.body, 1 << 20).unwrap())
    }
}

#[tokio::test]
async fn a_half_message_is_delivered_when_it_is_committed_and_never_twice() {
    let server = fast().start().await.unwrap();
    server.create_topic("t", 2).unwrap();
    let client = Client::new(&server);
    let sent = client.send(half(&[("TAGS", "a")])).await.unwrap();
    assert_eq!((sent.queue_id, sent.transaction_id.as_deref()), (1, Some("K")));
    assert_eq!((server.open_transactions(), server.messages("t").len()), (1, 0));

    // Answers come in the order of the requests: the first would be there before the second.
    let (open, commit) = (end(&sent, 0), end(&sent, sys_flag::TRANSACTION_COMMIT));
    tokio::select! {
        biased;
        answered = client.call(&open) => panic!("that it is open was answered with {answered:?}"),
        committed = client.call(&commit) => committed.unwrap(),
    }
    let again = client.call(&end(&sent, sys_flag::TRANSACTION_COMMIT)).await;
    assert_eq!(again, Err(ResponseCode::SYSTEM_ERROR));
    let delivered = server.messages("t");
    assert_eq!((server.open_transactions(), delivered.len()), (0, 1));
    let message = &delivered[0];
    assert_eq!((message.queue_id(), message.tag(), &*message.message_id()), (1, Some("a"), "K"));
    assert_eq!(message.sys_flag(), sys_flag::TRANSACTION_COMMIT);
    assert_eq!(message.prepared_transaction_offset(), end(&sent, 0).commit_log_offset);
    server.shutdown().await;
}

#[tokio::test]
async fn a_decision_counts_for_the_half_message_that_it_names() {
    let server = fast().start().await.unwrap();
    server.create_topic("t", 2).unwrap();
    let client = Client::new(&server);
    let sent = client.send(half(&[])).await.unwrap();
    let good = || end(&sent, sys_flag::TRANSACTION_ROLLBACK);
    for wrong in [
        EndTransaction { producer_group: "others".into(), ..good() },
        EndTransaction { tran_state_table_offset: sent.queue_offset + 1, ..good() },
        EndTransaction { commit_log_offset: good().commit_log_offset + 1, ..good() },
    ] {
        assert_eq!(client.call(&wrong).await, Err(ResponseCode::SYSTEM_ERROR), "{wrong:?}");
    }
    assert_eq!(server.open_transactions(), 1);
    client.call(&good()).await.unwrap();
    assert_eq!((server.open_transactions(), server.messages("t").len()), (0, 0));
    server.shutdown().await;
}

#[tokio::test]
async fn a_producer_of_the_group_is_asked_with_the_place_that_the_message_has_then() {
    let server = impatient(100).await;
    let (sender, mut other) = (Client::new(&server), Client::new(&server));
    sender.produce("sender", "others").await;
    other.produce("other", "producers").await;
    let sent = sender.send(half(&[])).await.unwrap();

    let (first, message) = other.asked().await;
    let (second, _) = other.asked().await;
    assert_eq!((message.topic(), message.queue_id(), message.body_str().as_ref()), ("t", 1, "hello"));
    for (name, value) in
        [("REAL_TOPIC", "t"), ("REAL_QID", "1"), ("TRANSACTION_CHECK_TIMES", "1"), ("PGROUP", "producers")]
    {
        assert_eq!(message.property(name), Some(value), "{name}");
    }
    assert_eq!(message.commit_log_offset(), first.commit_log_offset);
    assert!(sent.queue_offset < first.tran_state_table_offset);
    assert!(first.tran_state_table_offset < second.tran_state_table_offset);
    let answer = EndTransaction {
        tran_state_table_offset: second.tran_state_table_offset,
        commit_log_offset: second.commit_log_offset,
        from_transaction_check: Some(true),
        ..end(&sent, sys_flag::TRANSACTION_COMMIT)
    };
    other.call(&answer).await.unwrap();
    assert_eq!((server.open_transactions(), server.messages("t").len()), (0, 1));
    server.shutdown().await;
}

#[tokio::test]
async fn what_nobody_decides_is_given_up_after_so_many_checks() {
    let server = impatient(2).await;
    let mut client = Client::new(&server);
    client.produce("client", "producers").await;
    client.send(half(&[])).await.unwrap();
    for times in ["1", "2"] {
        assert_eq!(client.asked().await.1.property("TRANSACTION_CHECK_TIMES"), Some(times));
    }
    time::timeout(PATIENCE, async {
        while server.messages("TRANS_CHECK_MAX_TIME_TOPIC").is_empty() {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!((server.open_transactions(), server.messages("t").len()), (0, 0));
    server.shutdown().await;
}

#[tokio::test]
async fn a_message_may_ask_for_more_time_and_outlives_its_broker() {
    let server = impatient(100).await;
    let mut client = Client::new(&server);
    client.produce("client", "producers").await;
    client.send(half(&[("CHECK_IMMUNITY_TIME_IN_SECONDS", "3600")])).await.unwrap();
    client.send(half(&[("KEYS", "soon")])).await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.asked().await.1.keys().next(), Some("soon"));
    }
    server.stop_broker().await;
    server.start_broker().await.unwrap();
    assert_eq!(server.open_transactions(), 2);
    server.shutdown().await;
}
