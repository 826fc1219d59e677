//! Just enough of the remoting protocol to ask a server whether it is ready, and what it knows. It is written apart from
//! the library on purpose: the harness must not believe what the tests are about to test.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;

const UPDATE_AND_CREATE_TOPIC: u16 = 17;
const UPDATE_BROKER_CONFIG: u16 = 25;
const GET_ROUTE_BY_TOPIC: u16 = 105;
const GET_BROKER_CLUSTER_INFO: u16 = 106;

/// Whether something accepts connections there.
pub(super) async fn is_listening(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).await.is_ok()
}

/// Whether a name server answers there, and not whoever else may have taken its port.
pub(super) async fn is_name_server(addr: SocketAddr) -> bool {
    call(addr, GET_BROKER_CLUSTER_INFO, "{}", "").await.is_ok()
}

/// Whether the name server says that the broker at this address has the topic, or its master.
pub(super) async fn has_route(name_server: SocketAddr, topic: &str, broker: &str) -> bool {
    let ext_fields = format!(r#"{{"topic":"{topic}"}}"#);
    let body = call(name_server, GET_ROUTE_BY_TOPIC, &ext_fields, "").await.unwrap_or_default();
    String::from_utf8_lossy(&body).contains(&format!(r#""{broker}""#))
}

/// Creates a topic to read from and write to. The broker registers it before it answers.
pub(super) async fn create_topic(broker: SocketAddr, topic: &str, queues: u32) -> Result<()> {
    let ext_fields = format!(
        r#"{{"topic":"{topic}","defaultTopic":"TBW102","readQueueNums":"{queues}","writeQueueNums":"{queues}",
            "perm":"6","topicFilterType":"SINGLE_TAG","topicSysFlag":"0","order":"false"}}"#
    );
    call(broker, UPDATE_AND_CREATE_TOPIC, &ext_fields, "").await.map(drop)
}

/// Makes the broker register. There is no request for it, but it does so whenever its permission is set,
/// here to the 6, read and write, that it has. Best effort: the caller looks at the route.
pub(super) async fn register_now(broker: SocketAddr) {
    drop(call(broker, UPDATE_BROKER_CONFIG, "{}", "brokerPermission=6\n").await);
}

/// What a server answered, whether yes or no.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 0 is yes.
    pub(crate) code: i64,
    /// The header, a JSON object.
    pub(crate) header: Value,
    pub(crate) body: Vec<u8>,
}

/// One request on a connection of its own; returns the body of an answer that says yes.
async fn call(addr: SocketAddr, code: u16, ext_fields: &str, body: &str) -> Result<Vec<u8>> {
    let answer = ask(addr, code, ext_fields, body).await?;
    ensure!(answer.code == 0, "{addr} answered {}", answer.header);
    Ok(answer.body)
}

/// One request on a connection of its own.
pub(crate) async fn ask(addr: SocketAddr, code: u16, ext_fields: &str, body: &str) -> Result<Answer> {
    ask_in("OTHER", addr, code, ext_fields, body).await
}

/// The same from a client that says that it is written in `language`, which some answers depend on.
pub(crate) async fn ask_in(
    language: &str,
    addr: SocketAddr,
    code: u16,
    ext_fields: &str,
    body: &str,
) -> Result<Answer> {
    // A broker that has just begun on a busy machine takes its time.
    let limit = Duration::from_secs(15);
    time::timeout(limit, exchange(addr, &request(language, code, ext_fields, body)))
        .await
        .with_context(|| format!("{addr} did not answer {code} within {limit:?}"))?
}

/// ```text
/// | length: u32, all that follows | header type: u8, 0 is JSON | header length: u24 | header | body |
/// ```
fn request(language: &str, code: u16, ext_fields: &str, body: &str) -> Vec<u8> {
    let header = format!(
        r#"{{"code":{code},"language":"{language}","version":407,"opaque":1,"flag":0,"extFields":{ext_fields}}}"#
    );
    let header_length = u32::try_from(header.len()).expect("a header of some hundred bytes");
    let length = u32::try_from(4 + header.len() + body.len()).expect("a request of some hundred bytes");
    [&length.to_be_bytes(), &header_length.to_be_bytes(), header.as_bytes(), body.as_bytes()].concat()
}

async fn exchange(addr: SocketAddr, request: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(request).await?;
    let length = stream.read_u32().await? as usize;
    ensure!((4..1 << 24).contains(&length), "{addr} sent a frame of {length} bytes");
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    // The header's type in the upper byte: 0, for that is how we asked.
    let header_length = frame.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
    ensure!(4 + header_length <= length, "{addr} sent a header of {header_length} in {length} bytes");
    let body = frame.split_off(4 + header_length);
    let header: Value = serde_json::from_slice(&frame[4..])
        .with_context(|| format!("{addr} sent the header {}", String::from_utf8_lossy(&frame[4..])))?;
    let code =
        header["code"].as_i64().with_context(|| format!("{addr} answered without a code: {header}"))?;
    Ok(Answer { code, header, body })
}
