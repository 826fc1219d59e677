//! A port and the connections to it: opened, closed as a killed process would, and opened again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::protocol::{HeaderForm, RemotingCommand};
use crate::remoting::{Address, Answer, Inbound, Limits, Peer, serve};
use crate::tasks::Tasks;

/// As of a 5.x broker; it also answers in its own form, JSON, whatever it is asked in.
const LIMITS: Limits = Limits {
    max_frame_bytes: 16 << 20,
    max_in_flight: 1_024,
    idle_timeout: Duration::from_secs(120),
    max_silence: Duration::from_secs(120),
    form: HeaderForm::Json,
};
/// More connections than a test needs.
const MAX_CONNECTIONS: u64 = 4_096;
const BACKLOG: u32 = 1_024;
/// How long closing a port may take before that is reported.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a port that cannot accept (no file descriptors left) waits before it tries again.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What answers at a port.
pub(super) trait Service: Send + Sync + 'static {
    /// The port is about to open; `tasks` end with it.
    fn opened(self: Arc<Self>, _tasks: &Tasks) {}

    /// The port is closed and all of its connections are gone.
    fn closed(&self) {}

    /// Somebody asks. Called from the connection's task: must not wait.
    fn request(&self, connection: &Connection, command: RemotingCommand, answer: Answer);

    /// A connection is gone.
    fn disconnected(&self, _connection: &Connection) {}
}

/// Names a connection for as long as the server lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnectionId(pub(super) u64);

/// One connection, as those see it who answer.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) peer: Peer,
    pub(super) remote: SocketAddr,
}

/// A port that can be closed and opened again.
#[derive(Debug)]
pub(super) struct Endpoint<S> {
    service: Arc<S>,
    address: SocketAddr,
    tasks: Tasks,
    port: Mutex<Port>,
}

#[derive(Debug)]
enum Port {
    /// Nobody listens, but nobody else can take it either: not even as the near end of a connection to itself.
    Reserved(TcpSocket),
    /// The tasks that listen and serve.
    Open(Tasks),
    /// Being closed, or lost to somebody else.
    Gone,
}

/// Takes a port of the loopback address, without listening yet; 0 leaves the choice to the system.
pub(super) fn reserve(port: u16) -> io::Result<(SocketAddr, TcpSocket)> {
    let socket = TcpSocket::new_v4()?;
    // Connections of the last time may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok((socket.local_addr()?, socket))
}

impl<S: Service> Endpoint<S> {
    pub(super) fn new(service: Arc<S>, address: SocketAddr, socket: TcpSocket, tasks: Tasks) -> Self {
        Self { service, address, tasks, port: Mutex::new(Port::Reserved(socket)) }
    }

    pub(super) fn service(&self) -> &Arc<S> {
        &self.service
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens the port; nothing happens where it is open.
    pub(super) fn open(&self) -> io::Result<()> {
        let mut port = self.port();
        let socket = match std::mem::replace(&mut *port, Port::Gone) {
            Port::Reserved(socket) => socket,
            Port::Gone => reserve(self.address.port())?.1,
            open @ Port::Open(_) => {
                *port = open;
                return Ok(());
            }
        };
        let listener = socket.listen(BACKLOG)?;
        let tasks = self.tasks.child();
        Arc::clone(&self.service).opened(&tasks);
        tasks.spawn("embedded port", accept(Arc::clone(&self.service), listener, tasks.clone()));
        *port = Port::Open(tasks);
        Ok(())
    }

    /// Closes the port and cuts its connections, whatever they are about to say. Returns when all are gone.
    pub(super) async fn close(&self) {
        let tasks = match std::mem::replace(&mut *self.port(), Port::Gone) {
            Port::Open(tasks) => tasks,
            other => {
                *self.port() = other;
                return;
            }
        };
        tasks.cancel();
        let left = tasks.join(CLOSE_TIMEOUT).await;
        if left > 0 {
            warn!(address = %self.address, left, "connections did not end in time");
        }
        self.service.closed();
        match reserve(self.address.port()) {
            Ok((_, socket)) => *self.port() = Port::Reserved(socket),
            Err(error) => warn!(address = %self.address, %error, "the port could not be kept"),
        }
    }

    fn port(&self) -> MutexGuard<'_, Port> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept<S: Service>(service: Arc<S>, listener: TcpListener, tasks: Tasks) {
    let open = Arc::new(AtomicU64::new(0));
    let stopping = tasks.stopping().clone();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((_, remote)) if MAX_CONNECTIONS <= open.load(Ordering::Relaxed) => {
                warn!(%remote, limit = MAX_CONNECTIONS, "there are too many connections, one was refused");
            }
            Ok((stream, remote)) => {
                let served = serve_one(Arc::clone(&service), stream, remote, stopping.clone());
                let open = OpenConnection::new(&open);
                tasks.spawn("embedded connection", async move {
                    let _open = open;
                    served.await;
                });
            }
            Err(error) => {
                warn!(%error, "the embedded server cannot accept a connection");
                time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Counts a connection for as long as it lives.
struct OpenConnection(Arc<AtomicU64>);

impl OpenConnection {
    fn new(open: &Arc<AtomicU64>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve_one<S: Service>(
    service: Arc<S>,
    stream: TcpStream,
    remote: SocketAddr,
    stopping: CancellationToken,
) {
    static NEXT_ID: AtomicU64 = AtomicU64::new(0);
    // Small answers must not wait for more; where that cannot be said, they do.
    let _ = stream.set_nodelay(true);
    let address: Address = remote.to_string().into();
    let (peer, mut requests) = Peer::new(Arc::clone(&address), LIMITS.form);
    let id = ConnectionId(NEXT_ID.fetch_add(1, Ordering::Relaxed));
    let dispatch = Dispatch { service, connection: Connection { id, peer, remote } };
    debug!(%remote, "a client has connected");
    // Never asked to end politely: closing the port is to look like the death of the process.
    let never = CancellationToken::new();
    let served = serve(stream.into_split(), &address, &mut requests, &dispatch, LIMITS, &never);
    tokio::select! {
        () = stopping.cancelled() => debug!(%remote, "the connection was cut"),
        error = served => debug!(%remote, %error, "the connection ended"),
    }
}

/// Hands a connection's requests to the service, and its end, however it comes.
struct Dispatch<S: Service> {
    service: Arc<S>,
    connection: Connection,
}

impl<S: Service> Inbound for Dispatch<S> {
    fn request(&self, _: &Address, command: RemotingCommand, answer: Answer) {
        self.service.request(&self.connection, command, answer);
    }
}

impl<S: Service> Drop for Dispatch<S> {
    fn drop(&mut self) {
        self.service.disconnected(&self.connection);
    }
}
