//! A broker that answers sends as a test says, and remembers what it was asked; it also serves as a name server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const ONEWAY: i64 = 2;
const GET_ROUTE: i64 = 105;

/// A request, as far as tests look at it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) code: i64,
    pub(crate) fields: Value,
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) port: u16,
}

impl Asked {
    pub(crate) fn is_send(&self) -> bool {
        matches!(self.code, 310 | 320)
    }
}

/// Listens on loopback until it is dropped.
pub(crate) struct Scripted {
    addr: SocketAddr,
    known: Arc<Known>,
    _tasks: JoinSet<()>,
}

/// The code with which a send is answered that is the n-th.
type Script = Box<dyn Fn(&Asked, usize) -> i64 + Send + Sync>;

/// What its connections share.
struct Known {
    version: i64,
    script: Script,
    asked: Mutex<Vec<Asked>>,
    /// What it says of every topic, as a name server.
    route: Mutex<String>,
}

impl Scripted {
    /// Calls itself `version`, and answers the n-th send, from 0, with the code that `script` chooses; negative is none.
    pub(crate) async fn start(
        version: i64,
        script: impl Fn(&Asked, usize) -> i64 + Send + Sync + 'static,
    ) -> Result<Self> {
        let (listener, second) = two_ports().await?;
        let addr = listener.local_addr()?;
        let known = Arc::new(Known {
            version,
            script: Box::new(script),
            asked: Mutex::default(),
            route: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for listener in [listener, second] {
            tasks.spawn(serve_port(listener, Arc::clone(&known)));
        }
        Ok(Self { addr, known, _tasks: tasks })
    }

    /// As a name server, names this broker for every topic from now on.
    pub(crate) fn route_to(&self, name: &str, broker: &Self) {
        self.route_to_member(name, broker, "0");
    }

    /// The same, where the master is gone.
    pub(crate) fn route_to_slave(&self, name: &str, broker: &Self) {
        self.route_to_member(name, broker, "1");
    }

    fn route_to_member(&self, name: &str, broker: &Self, id: &str) {
        *lock(&self.known.route) = json!({
            "queueDatas": [{"brokerName": name, "readQueueNums": 2, "writeQueueNums": 2, "perm": 6, "topicSysFlag": 0}],
            "brokerDatas": [{"cluster": "c", "brokerName": name, "brokerAddrs": {id: broker.addr.to_string()}}],
        })
        .to_string();
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn sends(&self) -> Vec<Asked> {
        lock(&self.known.asked).iter().filter(|asked| asked.is_send()).cloned().collect()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.known.asked).clone()
    }
}

/// A port, and the one two below it.
async fn two_ports() -> Result<(TcpListener, TcpListener)> {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").await?;
        let port = first.local_addr()?.port();
        if let Ok(second) = TcpListener::bind(("127.0.0.1", port - 2)).await {
            return Ok((first, second));
        }
    }
    anyhow::bail!("there are no two free ports")
}

async fn serve_port(listener: TcpListener, known: Arc<Known>) {
    let mut connections = JoinSet::new();
    let mut count = 0;
    while let Ok((stream, _)) = listener.accept().await {
        let (known, connection) = (Arc::clone(&known), count);
        count += 1;
        // It ends with the connection.
        connections.spawn(async move { drop(serve(stream, connection, &known).await) });
    }
}

async fn serve(mut stream: TcpStream, connection: usize, known: &Known) -> Result<()> {
    let port = stream.local_addr()?.port();
    loop {
        let header = read_header(&mut stream).await?;
        let request = Asked {
            code: header["code"].as_i64().context("no code")?,
            fields: header["extFields"].clone(),
            connection,
            port,
        };
        let at = {
            let mut asked = lock(&known.asked);
            let at = asked.iter().filter(|asked| asked.is_send()).count();
            asked.push(request.clone());
            at
        };
        let code = if request.is_send() { (known.script)(&request, at) } else { 0 };
        if code < 0 || header["flag"].as_i64() == Some(ONEWAY) {
            continue;
        }
        let fields = json!({"msgId": format!("ID{at}"), "queueId": request.fields["e"], "queueOffset": "7", "offset": "0"});
        let answer = json!({
            "code": code, "language": "JAVA", "version": known.version, "opaque": header["opaque"], "flag": 1,
            "remark": format!("scripted {code}"), "extFields": fields,
        });
        let body = if request.code == GET_ROUTE { lock(&known.route).clone() } else { String::new() };
        stream.write_all(&frame(&answer.to_string(), &body)?).await?;
    }
}

fn frame(header: &str, body: &str) -> Result<Vec<u8>> {
    let header_length = u32::try_from(header.len())?;
    let length = u32::try_from(4 + header.len() + body.len())?;
    Ok([&length.to_be_bytes(), &header_length.to_be_bytes(), header.as_bytes(), body.as_bytes()].concat())
}

async fn read_header(stream: &mut TcpStream) -> Result<Value> {
    let length = stream.read_u32().await? as usize;
    ensure!((4..16 << 20).contains(&length), "a frame of {length} bytes");
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    let length = frame.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
    Ok(serde_json::from_slice(frame.get(4..4 + length).context("the header is longer than the frame")?)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
