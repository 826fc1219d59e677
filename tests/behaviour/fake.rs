//! A name server that says what it is told to, a broker that says nothing, and a network that cuts connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Listens on loopback until it is dropped.
pub(crate) struct Fake {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Fake {
    /// Knows one topic, of which each of these brokers (name and address) has two queues.
    pub(crate) async fn name_server(topic: &str, brokers: &[(&str, SocketAddr)]) -> Result<Self> {
        let queues = |name: &str| json!({"brokerName": name, "readQueueNums": 2, "writeQueueNums": 2, "perm": 6, "topicSysFlag": 0});
        let addresses = |name: &str, addr: &SocketAddr| json!({"cluster": "DefaultCluster", "brokerName": name, "brokerAddrs": {"0": addr.to_string()}});
        let route = json!({
            "queueDatas": brokers.iter().map(|(name, _)| queues(name)).collect::<Vec<_>>(),
            "brokerDatas": brokers.iter().map(|(name, addr)| addresses(name, addr)).collect::<Vec<_>>(),
        });
        let known = (topic.to_owned(), route.to_string());
        Self::listen(move |stream| {
            let (topic, route) = known.clone();
            async move {
                // It ends with the connection.
                drop(tell_routes(stream, |asked| Some((asked == topic).then_some(route.as_str()))).await);
            }
        })
        .await
    }

    /// Knows no topic, and closes each connection on which it is asked about `cuts`.
    pub(crate) async fn name_server_without_topics(cuts: &'static str) -> Result<Self> {
        Self::listen(move |stream| async move {
            // It ends with the connection.
            drop(tell_routes(stream, |topic| (topic != cuts).then_some(None)).await);
        })
        .await
    }

    /// Takes every connection and answers nothing.
    pub(crate) async fn silent() -> Result<Self> {
        Self::listen(|mut stream| async move {
            let mut received = [0; 1024];
            while stream.read(&mut received).await.is_ok_and(|count| count > 0) {}
        })
        .await
    }

    /// Takes every connection, and closes it once something is asked.
    pub(crate) async fn closing() -> Result<Self> {
        Self::listen(|mut stream| async move {
            // Whether it was all of it does not matter.
            let _ = stream.read(&mut [0; 1024]).await;
        })
        .await
    }

    /// Leads to `server`, but cuts each connection once so many bytes came back on it.
    pub(crate) async fn cutting(server: SocketAddr, after_bytes: u64) -> Result<Self> {
        Self::listen(move |stream| async move {
            // It ends with one of the two connections.
            drop(pass_on(stream, server, after_bytes).await);
        })
        .await
    }

    /// Leads to `server`, until `freeze` says that all connections there are fall silent for good, without an end; new ones work.
    pub(crate) async fn freezing(server: SocketAddr, freeze: &watch::Sender<()>) -> Result<Self> {
        let freeze = freeze.subscribe();
        Self::listen(move |stream| {
            let mut freeze = freeze.clone();
            // Of what was said before this connection was made, it knows nothing.
            freeze.mark_unchanged();
            async move {
                // It ends with one of the two connections.
                drop(pass_on_until(stream, server, freeze).await);
            }
        })
        .await
    }

    /// Leads to `server`, and notes what is asked there and how it is answered.
    pub(crate) async fn noting(server: SocketAddr, notes: &Notes) -> Result<Self> {
        let notes = notes.clone();
        Self::listen(move |stream| {
            let notes = notes.clone();
            async move {
                // It ends with one of the two connections.
                drop(note(stream, server, &notes).await);
            }
        })
        .await
    }

    async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(stream));
            }
        });
        Ok(Self { addr, connections, _task: task })
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Requests that were answered: the code of each, and that of its answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<(i64, i64)>>>);

impl Notes {
    /// How often this was asked and answered so.
    pub(crate) fn count(&self, request: i64, answer: i64) -> usize {
        lock(&self.0).iter().filter(|noted| **noted == (request, answer)).count()
    }
}

/// An address at which nobody listens.
pub(crate) async fn nobody() -> Result<SocketAddr> {
    // The port was just given to us, and is not given to anybody else soon.
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

/// Answers questions about topics with what `route` says, if there is such a topic, until it says nothing.
async fn tell_routes<'a>(
    mut stream: TcpStream,
    route: impl Fn(&str) -> Option<Option<&'a str>>,
) -> Result<()> {
    const SUCCESS: u32 = 0;
    const TOPIC_NOT_EXIST: u32 = 17;
    loop {
        let (header, _) = read_frame(&mut stream).await?;
        let topic = header["extFields"]["topic"].as_str().unwrap_or_default();
        let Some(route) = route(topic) else { return Ok(()) };
        let (code, body) = route.map_or((TOPIC_NOT_EXIST, ""), |route| (SUCCESS, route));
        let answer =
            json!({"code": code, "language": "JAVA", "version": 479, "opaque": header["opaque"], "flag": 1});
        let answer = answer.to_string();
        let header_length = u32::try_from(answer.len())?;
        let length = u32::try_from(4 + answer.len() + body.len())?;
        let frame = [&length.to_be_bytes(), &header_length.to_be_bytes(), answer.as_bytes(), body.as_bytes()]
            .concat();
        stream.write_all(&frame).await?;
    }
}

/// Passes bytes on, both ways, until this many came back, which is in the middle of a frame.
async fn pass_on(client: TcpStream, server: SocketAddr, most: u64) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let mut answers = from_server.take(most);
    tokio::select! {
        asked = tokio::io::copy(&mut from_client, &mut to_server) => asked?,
        answered = tokio::io::copy(&mut answers, &mut to_client) => answered?,
    };
    Ok(())
}

/// Passes bytes on, both ways, then takes nothing more, and holds on to both connections.
async fn pass_on_until(
    mut client: TcpStream,
    server: SocketAddr,
    mut frozen: watch::Receiver<()>,
) -> Result<()> {
    let mut server = TcpStream::connect(server).await?;
    tokio::select! {
        passed = tokio::io::copy_bidirectional(&mut client, &mut server) => drop(passed?),
        said = frozen.changed() => {
            said?;
            std::future::pending().await
        }
    }
    Ok(())
}

/// Passes frames on, both ways.
async fn note(client: TcpStream, server: SocketAddr, notes: &Notes) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let open = Mutex::new(HashMap::new());
    let asking = async {
        loop {
            let (header, frame) = read_frame(&mut from_client).await?;
            lock(&open).insert(header["opaque"].as_i64(), header["code"].as_i64());
            to_server.write_all(&frame).await?;
        }
    };
    let answering = async {
        loop {
            let (header, frame) = read_frame(&mut from_server).await?;
            let is_answer = header["flag"].as_i64().is_some_and(|flag| flag & 1 == 1);
            let asked = if is_answer { lock(&open).remove(&header["opaque"].as_i64()) } else { None };
            lock(&notes.0).extend(asked.flatten().zip(header["code"].as_i64()));
            to_client.write_all(&frame).await?;
        }
    };
    tokio::select! {
        end = asking => end,
        end = answering => end,
    }
}

/// A frame as it is, and its header.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Value, Vec<u8>)> {
    let length = stream.read_u32().await?;
    ensure!((4..16 << 20).contains(&length), "a frame of {length} bytes");
    let mut frame = length.to_be_bytes().to_vec();
    frame.resize(4 + length as usize, 0);
    stream.read_exact(&mut frame[4..]).await?;
    // The first byte says how the header is written: as JSON.
    let header_length = u32::from_be_bytes([0, frame[5], frame[6], frame[7]]) as usize;
    let header = frame.get(8..8 + header_length).context("the header is longer than the frame")?;
    Ok((serde_json::from_slice(header)?, frame))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
