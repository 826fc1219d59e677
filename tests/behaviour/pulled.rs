//! A broker whose answers to pulls a test writes by itself, damaged ones too; it is also the name server that leads there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const PULL: i64 = 11;
const LITE_PULL: i64 = 361;
const QUERY_OFFSET: i64 = 14;
const UPDATE_OFFSET: i64 = 15;
const MAX_OFFSET: i64 = 30;
const HEARTBEAT: i64 = 34;
const SEND_BACK: i64 = 36;
const CONSUMER_LIST: i64 = 38;
const LOCK: i64 = 41;
const ROUTE: i64 = 105;
pub(crate) const POP: i64 = 200_050;
pub(crate) const ACK: i64 = 200_051;

const NOT_FOUND: i64 = 19;
const QUERY_NOT_FOUND: i64 = 22;
const PULL_PATIENCE: std::time::Duration = std::time::Duration::from_millis(100);

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) code: i64,
    pub(crate) fields: Value,
    /// Which of the broker's members was asked: 0 is the master. Or which of the brokers.
    pub(crate) member: usize,
    pub(crate) at: Instant,
}

impl Request {
    /// A number among the fields, which are all texts.
    pub(crate) fn number(&self, name: &str) -> i64 {
        self.fields[name].as_str().and_then(|text| text.parse().ok()).unwrap_or(-1)
    }
}

/// What an answer holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) code: i64,
    pub(crate) fields: Value,
    pub(crate) body: Vec<u8>,
}

/// Answers what is not answered as usual; a negative code is no answer.
type Script = Box<dyn Fn(&Request) -> Option<Answer> + Send + Sync>;

/// One broker, `broker-a`, with some members, and one queue of each topic; or several brokers. Listens until it is dropped.
pub(crate) struct Pulled {
    addresses: Vec<SocketAddr>,
    known: Arc<Known>,
    _tasks: JoinSet<()>,
}

struct Known {
    route: Mutex<String>,
    script: Script,
    asked: Mutex<Vec<Request>>,
    clients: Mutex<Vec<String>>,
}

impl Pulled {
    /// Listens with so many members.
    pub(crate) async fn start(
        members: usize,
        script: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::listen(members, |addresses| route(addresses.iter().enumerate()), script).await
    }

    /// Listens as so many brokers, each with one queue of each topic. The first is the name server.
    pub(crate) async fn start_apart(
        brokers: usize,
        script: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Result<Self> {
        let name = |number: usize| format!("broker-{number}");
        let route = |addresses: &[SocketAddr]| {
            let brokers = addresses.iter().enumerate();
            json!({
                "queueDatas": (0..addresses.len()).map(|number| queue_data(&name(number))).collect::<Vec<_>>(),
                "brokerDatas": brokers.map(|(number, addr)| json!({
                    "cluster": "c", "brokerName": name(number), "brokerAddrs": {"0": addr.to_string()},
                })).collect::<Vec<_>>(),
            })
            .to_string()
        };
        Self::listen(brokers, route, script).await
    }

    async fn listen(
        members: usize,
        route: impl Fn(&[SocketAddr]) -> String,
        script: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Result<Self> {
        let mut listeners = Vec::new();
        for _ in 0..members {
            listeners.push(TcpListener::bind("127.0.0.1:0").await?);
        }
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        let known = Arc::new(Known {
            route: Mutex::new(route(&addresses)),
            script: Box::new(script),
            asked: Mutex::default(),
            clients: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for (member, listener) in listeners.into_iter().enumerate() {
            let known = Arc::clone(&known);
            tasks.spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let known = Arc::clone(&known);
                    // It ends with the connection.
                    connections.spawn(async move { drop(serve(stream, member, &known).await) });
                }
            });
        }
        Ok(Self { addresses, known, _tasks: tasks })
    }

    /// Where to ask for routes.
    pub(crate) fn name_server(&self) -> String {
        self.addresses[0].to_string()
    }

    /// Names these members from now on, by their ids in the route: 0 is that of the master.
    pub(crate) fn route_to(&self, members: &[(usize, usize)]) {
        *lock(&self.known.route) = route(members.iter().map(|(id, member)| (*id, &self.addresses[*member])));
    }

    /// All requests with this code about topics that are not the group's own.
    pub(crate) fn asked(&self, code: i64) -> Vec<Request> {
        lock(&self.known.asked).iter().filter(|request| request.code == code).cloned().collect()
    }

    pub(crate) fn pulls(&self) -> Vec<Request> {
        self.asked(PULL).into_iter().filter(|pull| !is_retry(pull)).collect()
    }

    /// The commit log offsets of what was made a dead letter.
    pub(crate) fn buried(&self) -> Vec<i64> {
        let dead = |request: &Request| request.number("delayLevel") == -1;
        self.asked(SEND_BACK)
            .iter()
            .filter(|request| dead(request))
            .map(|request| request.number("offset"))
            .collect()
    }

    /// The offsets in the queue of what was acknowledged, one by one.
    pub(crate) fn acknowledged(&self) -> BTreeSet<i64> {
        self.asked(ACK).iter().map(|request| request.number("offset")).collect()
    }

    /// What was stored last for the group in the queue of its topic.
    pub(crate) fn stored(&self) -> Option<i64> {
        let stores = self.asked(UPDATE_OFFSET);
        stores.iter().rfind(|request| !is_retry(request)).map(|request| request.number("commitOffset"))
    }
}

fn route<'a>(members: impl Iterator<Item = (usize, &'a SocketAddr)>) -> String {
    let by_id: BTreeMap<_, _> = members.map(|(id, addr)| (id.to_string(), addr.to_string())).collect();
    json!({
        "queueDatas": [queue_data("broker-a")],
        "brokerDatas": [{"cluster": "c", "brokerName": "broker-a", "brokerAddrs": by_id}],
    })
    .to_string()
}

fn queue_data(broker: &str) -> Value {
    json!({"brokerName": broker, "readQueueNums": 1, "writeQueueNums": 1, "perm": 6, "topicSysFlag": 0})
}

fn is_retry(request: &Request) -> bool {
    request.fields["topic"].as_str().is_some_and(|topic| topic.starts_with("%RETRY%"))
}

/// An answer to a pull.
pub(crate) fn found(records: &[Vec<u8>], next: i64) -> Answer {
    pull_answer(0, next, 0, records.concat())
}

/// An answer to a pull: its code, the offset to go on from, and the member to ask next.
pub(crate) fn pull_answer(code: i64, next: i64, member: usize, body: Vec<u8>) -> Answer {
    let fields = json!({
        "suggestWhichBrokerId": member.to_string(), "nextBeginOffset": next.to_string(), "minOffset": "0", "maxOffset": next.to_string(),
    });
    Answer { code, fields, body }
}

/// A record as brokers store them, at this offset of the queue; its commit log offset is 1000 more.
pub(crate) fn record(topic: &str, offset: i64, body: &str) -> Vec<u8> {
    record_with(topic, offset, body.as_bytes(), 0)
}

/// The same with flags.
pub(crate) fn record_with(topic: &str, offset: i64, body: &[u8], sys_flag: i32) -> Vec<u8> {
    let host = [127, 0, 0, 1, 0, 0, 0, 1];
    // A checksum of 0 is none.
    let mut record = [
        &[0; 4][..],
        &0xDAA3_20A7_u32.to_be_bytes(),
        &[0; 12],
        &offset.to_be_bytes(),
        &(1_000 + offset).to_be_bytes(),
        &sys_flag.to_be_bytes(),
        &[0; 8],
        &host,
        &[0; 8],
        &host,
        &[0; 12],
        &(body.len() as i32).to_be_bytes(),
        body,
        &[topic.len() as u8],
        topic.as_bytes(),
        &[0; 2],
    ]
    .concat();
    let size = record.len() as i32;
    record[..4].copy_from_slice(&size.to_be_bytes());
    record
}

async fn serve(mut stream: TcpStream, member: usize, known: &Known) -> Result<()> {
    loop {
        let length = stream.read_u32().await? as usize;
        ensure!((4..16 << 20).contains(&length), "a frame of {length} bytes");
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame).await?;
        let header_length = frame.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
        let header = frame.get(4..4 + header_length).context("the header is longer than the frame")?;
        let body = &frame[4 + header_length..];
        let header: Value = serde_json::from_slice(header)?;
        let request = Request {
            code: header["code"].as_i64().context("no code")?,
            fields: header["extFields"].clone(),
            member,
            at: Instant::now(),
        };
        lock(&known.asked).push(request.clone());
        let answer = (known.script)(&request).unwrap_or_else(|| usual(&request, body, known));
        if matches!(request.code, PULL | LITE_PULL) && answer.code == NOT_FOUND {
            tokio::time::sleep(PULL_PATIENCE).await;
        }
        if answer.code < 0 || header["flag"].as_i64() == Some(2) {
            continue;
        }
        let header = json!({
            "code": answer.code, "language": "JAVA", "version": 513, "opaque": header["opaque"], "flag": 1,
            "remark": format!("scripted {}", answer.code), "extFields": answer.fields,
        })
        .to_string();
        let length = u32::try_from(4 + header.len() + answer.body.len())?;
        let header_length = u32::try_from(header.len())?;
        let frame = [&length.to_be_bytes(), &header_length.to_be_bytes(), header.as_bytes(), &answer.body];
        stream.write_all(&frame.concat()).await?;
    }
}

fn usual(request: &Request, body: &[u8], known: &Known) -> Answer {
    let empty = || json!({});
    let (code, fields, body) = match request.code {
        ROUTE => (0, empty(), lock(&known.route).clone().into_bytes()),
        HEARTBEAT => {
            let heartbeat: Value = serde_json::from_slice(body).unwrap_or_default();
            let id = heartbeat["clientID"].as_str().unwrap_or_default().to_owned();
            let mut clients = lock(&known.clients);
            if !clients.contains(&id) {
                clients.push(id);
            }
            (0, empty(), Vec::new())
        }
        CONSUMER_LIST => {
            let list = json!({ "consumerIdList": *lock(&known.clients) });
            (0, empty(), list.to_string().into_bytes())
        }
        LOCK => {
            let asked: Value = serde_json::from_slice(body).unwrap_or_default();
            let granted = json!({ "lockOKMQSet": asked["mqSet"] });
            (0, empty(), granted.to_string().into_bytes())
        }
        QUERY_OFFSET => (QUERY_NOT_FOUND, empty(), Vec::new()),
        MAX_OFFSET | 29 | 31 => (0, json!({ "offset": "0" }), Vec::new()),
        PULL | LITE_PULL => return pull_answer(NOT_FOUND, request.number("queueOffset"), 0, Vec::new()),
        _ => (0, empty(), Vec::new()),
    };
    Answer { code, fields, body }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
