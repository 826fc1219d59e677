use super::*;
use crate::protocol::header::GetRouteInfo;

#[tokio::test]
async fn a_broker_that_stops_cuts_its_connections_and_comes_back_with_its_store() {
    let server = started().await;
    let address = server.broker();
    let client = Client::new(&server);
    client.heartbeat("c", "g", &["t"]).await;
    client.send(message("t", 0, &[])).await.unwrap();
    let sys_flag = pull_flag::SUBSCRIPTION | pull_flag::COMMIT_OFFSET;
    client.pull(PullMessage { sys_flag, commit_offset: 1, ..pull("t", 0, 0) }).await;

    let fields = waiting_pull("t", 0, 1).to_fields();
    let cut = client.try_invoke(RequestCode::PULL_MESSAGE, fields, "");
    let stop = async {
        // The pull is waiting once a later request of the same connection is answered.
        client.pull(pull("t", 0, 0)).await;
        server.stop_broker().await;
    };
    let (cut, ()) = tokio::join!(cut, stop);
    assert!(matches!(cut.unwrap_err(), RequestError::Disconnected { .. }));
    assert!(server.members("g").is_empty());
    let refused = client.try_invoke(RequestCode::HEART_BEAT, ExtFields::default(), "{}").await;
    assert!(matches!(refused.unwrap_err(), RequestError::Connect { .. }));
    let request = GetRouteInfo { topic: "t".into(), accept_standard_json_only: None };
    let route = client.remoting.call(&client.name_server, &request, Bytes::new(), PATIENCE).await;
    assert_eq!(route.unwrap_err().response_code(), Some(ResponseCode::TOPIC_NOT_EXIST));

    server.start_broker().await.unwrap();
    server.start_broker().await.unwrap();
    assert_eq!(server.broker(), address);
    let client = Client::new(&server);
    assert_eq!(client.pull(pull("t", 0, 0)).await.bodies(), ["hello"]);
    assert_eq!(server.committed("g", "t", 0), Some(1));
    server.shutdown().await;
}

#[tokio::test]
async fn what_became_due_while_the_broker_was_stopped_is_delivered_when_it_is_back() {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let server = Server::builder().delay_levels([HOUR]).start().await.unwrap();
    let client = Client::new(&server);
    client.send(message("t", 0, &[("DELAY", "1")])).await.unwrap();
    server.stop_broker().await;
    time::pause();
    time::advance(2 * HOUR).await;
    time::resume();
    assert_eq!((server.delayed(), server.messages("t").len()), (1, 0));
    server.start_broker().await.unwrap();
    let client = Client::new(&server);
    assert_eq!(client.pull(waiting_pull("t", 0, 0)).await.bodies(), ["hello"]);
}

#[tokio::test]
async fn the_name_server_can_be_away_while_the_broker_works() {
    let server = started().await;
    let client = Client::new(&server);
    let request = GetRouteInfo { topic: "TBW102".into(), accept_standard_json_only: None };
    let ask = async |client: &Client| {
        client.remoting.call(&client.name_server, &request, Bytes::new(), PATIENCE).await.map(|_| ())
    };
    ask(&client).await.unwrap();
    server.stop_name_server().await;
    assert!(ask(&client).await.unwrap_err().is_transport());
    client.send(message("t", 0, &[])).await.unwrap();
    server.start_name_server().await.unwrap();
    ask(&Client::new(&server)).await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_a_server_that_is_dropped_frees_its_own() {
    let server = started().await;
    let port: u16 = server.name_server().rsplit(':').next().unwrap().parse().unwrap();
    let error = Server::builder().name_server_port(port).start().await.unwrap_err();
    assert_eq!(error.to_string(), format!("the embedded name server cannot listen on port {port}"));
    let client = Client::new(&server);
    client.heartbeat("c", "g", &[]).await;
    drop(server);
    while Server::builder().name_server_port(port).start().await.is_err() {
        time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_their_connection_alone() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let server = started().await;
    let client = Client::new(&server);
    client.heartbeat("c", "g", &[]).await;
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 5, 9, 0, 0, 1, 0], &[0x7F, 0xFF, 0xFF, 0xFF, 0]]
    {
        let mut stream = tokio::net::TcpStream::connect(server.broker()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        let read = time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(read.is_err() || answer.is_empty());
    }
    client.heartbeat("c", "g", &[]).await;
    assert_eq!(server.members("g"), ["c"]);
}
