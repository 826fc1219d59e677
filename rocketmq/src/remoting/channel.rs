//! The connections of a client: one per address, made when first needed, and again after it was lost.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};
use tracing::{debug, info};

use super::connection::{Inbound, Limits, serve};
use super::peer::{Frame, Opaques, Peer, Requests, TimeLimit};
use super::rpc_hook::{RpcCall, RpcHooks};
use super::{Address, RequestError, Signer, Tls};
use crate::protocol::header::Response;
use crate::protocol::{
    HeaderForm, PutField, RemotingCommand, Request, RequestCode, ResponseCode, encode_request,
};
use crate::tasks::Tasks;

/// After a connection could not be made, the next try waits so long at first, and twice as long each time.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// But never longer: a broker that is back should be found at once.
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// How a client connects and what it adds to its requests.
#[derive(Debug, Clone)]
pub(crate) struct RemotingSettings {
    pub(crate) connect_timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) signer: Option<Signer>,
    pub(crate) tls: Option<Tls>,
    /// The namespace (v2) that every request names; its topics and groups stay as they are.
    pub(crate) namespace_v2: Option<String>,
    pub(crate) request_type: RequestType,
    pub(crate) hooks: RpcHooks,
}

/// What a client is for, as far as its requests tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestType {
    /// Requests say nothing of it.
    Plain,
    /// For lite pull consumers: every request carries `ReqT`. Source: `StreamTypeRPCHook`.
    Stream,
}

/// All connections of one client.
#[derive(Clone)]
pub(crate) struct RemotingClient {
    settings: Arc<RemotingSettings>,
    channels: Arc<Mutex<HashMap<Address, Peer>>>,
    opaques: Opaques,
    inbound: Arc<dyn Inbound>,
    pub(super) tasks: Tasks,
}

impl std::fmt::Debug for RemotingClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemotingClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RemotingClient {
    /// `inbound` gets what peers ask by themselves; `tasks` owns the connections and ends them.
    pub(crate) fn new(settings: RemotingSettings, inbound: Arc<dyn Inbound>, tasks: Tasks) -> Self {
        Self {
            settings: Arc::new(settings),
            channels: Arc::default(),
            opaques: Opaques::default(),
            inbound,
            tasks,
        }
    }

    /// Asks and waits for a successful answer.
    pub(crate) async fn call<R: Request>(
        &self,
        address: &Address,
        request: &R,
        body: Bytes,
        limit: Duration,
    ) -> Result<R::Response, RequestError> {
        let answer = self.ask(address, request, body, limit).await?;
        R::Response::from_command(answer).map_err(|error| RequestError::bad_answer(address, R::CODE, &error))
    }

    /// The same, for the whole answer.
    pub(crate) async fn ask<R: Request>(
        &self,
        address: &Address,
        request: &R,
        body: Bytes,
        limit: Duration,
    ) -> Result<RemotingCommand, RequestError> {
        let answer = self.request(address, R::CODE, request, body, limit).await?;
        match answer.response_code() {
            ResponseCode::SUCCESS => Ok(answer),
            _ => Err(refused(address, R::CODE, &answer)),
        }
    }

    /// Asks without waiting for an answer; returns once the connection has taken the request.
    pub(crate) async fn tell(
        &self,
        address: &Address,
        command: RemotingCommand,
        limit: Duration,
    ) -> Result<(), RequestError> {
        self.channel(address).oneway(command, limit).await
    }

    /// The command for a request that is [told](Self::tell) to `address`, under this code, which may be another one than
    /// the request's own.
    pub(crate) fn oneway_command<R: Request>(
        &self,
        address: &Address,
        code: RequestCode,
        request: &R,
        body: Bytes,
    ) -> Result<RemotingCommand, RequestError> {
        self.command(address, code, request, body, true)
    }

    /// The command for a request, with what hooks add, and signed if this client signs.
    fn command<R: Request>(
        &self,
        address: &Address,
        code: RequestCode,
        request: &R,
        body: Bytes,
        is_oneway: bool,
    ) -> Result<RemotingCommand, RequestError> {
        let mut fields = request.to_fields();
        self.put_own_fields(&mut fields);
        self.settings.hooks.before(address, code, is_oneway, &mut fields, &body)?;
        // Last, because it covers all that is there.
        if let Some(signer) = &self.settings.signer {
            signer.sign(&mut fields, &body);
        }
        Ok(RemotingCommand::request(code, fields, body))
    }

    /// What every request of this client says.
    fn put_own_fields(&self, fields: &mut impl PutField) {
        if let Some(namespace) = &self.settings.namespace_v2 {
            fields.put_field("nsd", "true");
            fields.put_field("ns", namespace);
        }
        if self.settings.request_type == RequestType::Stream {
            fields.put_field("ReqT", "0");
        }
    }

    /// The frame of a request.
    pub(super) fn frame<R: Request>(
        &self,
        address: &Address,
        code: RequestCode,
        request: &R,
        body: Bytes,
    ) -> Result<Frame, RequestError> {
        let (opaque, form) = (self.opaques.next(), self.settings.limits.form);
        // Hooks, and who signs, have to see all fields first.
        if form != HeaderForm::Json || self.settings.signer.is_some() || !self.settings.hooks.is_empty() {
            return Ok(Frame::new(self.command(address, code, request, body, false)?, opaque, form));
        }
        let head = encode_request(code, opaque, body.len(), |fields| {
            request.write(fields);
            self.put_own_fields(fields);
        });
        Ok(Frame { code, opaque, head, body })
    }

    /// Asks under this code, which may be another one than the request's own, and waits for the answer, whatever that
    /// says.
    pub(crate) async fn request<R: Request>(
        &self,
        address: &Address,
        code: RequestCode,
        request: &R,
        body: Bytes,
        limit: impl Into<TimeLimit>,
    ) -> Result<RemotingCommand, RequestError> {
        self.exchange(address, self.frame(address, code, request, body)?, limit.into()).await
    }

    /// Sends a command as it is and waits for its answer, whatever that says.
    #[cfg(test)]
    pub(crate) async fn invoke(
        &self,
        address: &Address,
        command: RemotingCommand,
        limit: impl Into<TimeLimit>,
    ) -> Result<RemotingCommand, RequestError> {
        let frame = Frame::new(command, self.opaques.next(), self.settings.limits.form);
        self.exchange(address, frame, limit.into()).await
    }

    /// Sends a request and waits for its answer, and tells hooks of it.
    async fn exchange(
        &self,
        address: &Address,
        frame: Frame,
        limit: TimeLimit,
    ) -> Result<RemotingCommand, RequestError> {
        self.watch(address, frame.code, self.send(address, frame, limit)).await
    }

    /// Waits for an answer, and tells hooks of it.
    pub(super) async fn watch(
        &self,
        address: &Address,
        code: RequestCode,
        answer: impl Future<Output = Result<RemotingCommand, RequestError>>,
    ) -> Result<RemotingCommand, RequestError> {
        let hooks = &self.settings.hooks;
        if hooks.is_empty() {
            return answer.await;
        }
        let begun = Instant::now();
        let answer = answer.await;
        hooks.after(&RpcCall { address, code, took: begun.elapsed() }, answer.as_ref());
        answer
    }

    /// Sends a request and waits for its answer.
    async fn send(
        &self,
        address: &Address,
        frame: Frame,
        limit: TimeLimit,
    ) -> Result<RemotingCommand, RequestError> {
        let channel = self.channel(address);
        send_over(&channel, address, frame, limit, || {
            self.forget(address, &channel);
            self.channel(address)
        })
        .await
    }

    /// The channel to `address`, which is not connected before its first request.
    fn channel(&self, address: &Address) -> Peer {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = channels.get(address) {
            return peer.clone();
        }
        let peer = self.open(address, Arc::clone(&self.inbound), &self.tasks);
        channels.insert(Arc::clone(address), peer.clone());
        peer
    }

    pub(super) fn open(&self, address: &Address, inbound: Arc<dyn Inbound>, tasks: &Tasks) -> Peer {
        let (peer, requests) =
            Peer::numbered(Arc::clone(address), self.settings.limits.form, self.opaques.clone());
        let task = ChannelTask {
            settings: Arc::clone(&self.settings),
            inbound,
            address: Arc::clone(address),
            // Only the queue, not a `Peer`: the task ends when the last handle goes.
            requests,
            backoff: None,
            was_tried: false,
            tasks: tasks.clone(),
        };
        tasks.spawn("connection", task.run());
        peer
    }

    /// Lets go of a channel; its connection ends when those who still wait on it have their answers.
    fn forget(&self, address: &Address, channel: &Peer) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if channels.get(address).is_some_and(|current| current.is_same(channel)) {
            channels.remove(address);
        }
    }

    /// Closes the connections to addresses that `keep` does not know.
    pub(crate) fn retain(&self, keep: impl Fn(&Address) -> bool) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|address, _| keep(address));
    }
}

/// Sends a request and waits for its answer.
///
/// A broker that is shutting down answers GO_AWAY: the request is sent once more, over a new connection.
pub(super) async fn send_over(
    peer: &Peer,
    address: &Address,
    frame: Frame,
    limit: TimeLimit,
    connect_anew: impl FnOnce() -> Peer,
) -> Result<RemotingCommand, RequestError> {
    let answer = peer.invoke(frame.clone(), limit).await?;
    if answer.response_code() != ResponseCode::GO_AWAY {
        return Ok(answer);
    }
    debug!(%address, "the broker is shutting down, the request is sent again over a new connection");
    connect_anew().invoke(frame, limit).await
}

pub(crate) fn refused(address: &Address, code: RequestCode, answer: &RemotingCommand) -> RequestError {
    RequestError::Refused {
        address: Arc::clone(address),
        code,
        response: answer.response_code(),
        remark: answer.remark.clone().unwrap_or_default(),
    }
}

/// Makes the connection when there is something to send, serves it, and starts over.
struct ChannelTask {
    settings: Arc<RemotingSettings>,
    inbound: Arc<dyn Inbound>,
    address: Address,
    requests: Requests,
    /// Set while the address cannot be reached.
    backoff: Option<Backoff>,
    /// Whether it is known already if the address can be reached at all.
    was_tried: bool,
    tasks: Tasks,
}

/// Why the address cannot be reached, and when it will be tried again.
struct Backoff {
    error: Arc<io::Error>,
    wait: Duration,
    until: Instant,
}

impl ChannelTask {
    async fn run(mut self) {
        let stopping = self.tasks.stopping().clone();
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                is_one = self.requests.exist() => if !is_one {
                    return;
                },
            }
            // Whoever comes during the wait learns at once that nothing can be sent, and may try another broker.
            if let Some(backoff) = self.backoff.as_ref().filter(|backoff| Instant::now() < backoff.until) {
                self.requests.fail_waiting(|| cannot_connect(&self.address, &backoff.error));
                continue;
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.requests.hold(&self.address) => {}
                connected = self.settings.connect(&self.address) => match connected {
                    Ok(Stream::Plain(stream)) => self.serve(stream.into_split()).await,
                    Ok(Stream::Tls(stream)) => self.serve(tokio::io::split(stream)).await,
                    Err(error) => self.back_off(error),
                },
            }
        }
        self.requests.close(|| RequestError::ShutDown { address: Arc::clone(&self.address) });
    }

    async fn serve<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(&mut self, stream: (R, W)) {
        debug!(address = %self.address, "connected");
        (self.backoff, self.was_tried) = (None, true);
        let (limits, stopping) = (self.settings.limits, self.tasks.stopping());
        let error = serve(stream, &self.address, &mut self.requests, &*self.inbound, limits, stopping).await;
        if !stopping.is_cancelled() {
            info!(address = %self.address, %error, "the connection ended; it is made again when there is something to send");
        }
    }

    fn back_off(&mut self, error: io::Error) {
        let error = Arc::new(error);
        let wait = self.backoff.as_ref().map_or(MIN_BACKOFF, |last| (last.wait * 2).min(MAX_BACKOFF));
        // Up to a fifth less, so that the clients of a broker that went away do not come back all at once.
        let until = Instant::now() + wait.mul_f64(1.0 - 0.2 * fastrand::f64());
        debug!(address = %self.address, %error, ?wait, "cannot connect");
        if !std::mem::replace(&mut self.was_tried, true) {
            self.inbound.unreachable(&self.address, &error);
        }
        self.requests.fail_waiting(|| cannot_connect(&self.address, &error));
        self.backoff = Some(Backoff { error, wait, until });
    }
}

fn cannot_connect(address: &Address, source: &Arc<io::Error>) -> RequestError {
    RequestError::Connect { address: Arc::clone(address), source: Arc::clone(source) }
}

/// A connection before it is split into its two directions.
enum Stream<T> {
    Plain(TcpStream),
    Tls(T),
}

impl RemotingSettings {
    /// Connects, and shakes hands where TLS is spoken, all within the connect timeout.
    async fn connect(
        &self,
        address: &str,
    ) -> io::Result<Stream<impl AsyncRead + AsyncWrite + Send + Unpin + use<>>> {
        let limit = self.connect_timeout;
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(match &self.tls {
                Some(tls) => Stream::Tls(tls.connect(address, stream).await?),
                None => Stream::Plain(stream),
            })
        };
        match time::timeout(limit, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}"))),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use super::super::connection::Answer;
    use super::super::line::NotAsked;
    use super::*;
    use crate::protocol::header::GetMaxOffset;

    pub(in crate::remoting) const PATIENCE: Duration = Duration::from_secs(10);
    pub(in crate::remoting) const LIMITS: Limits = Limits {
        max_frame_bytes: 1 << 20,
        max_in_flight: 10,
        idle_timeout: PATIENCE,
        max_silence: PATIENCE,
        form: HeaderForm::Json,
    };

    /// Answers everything so.
    struct Says(ResponseCode);

    impl Inbound for Says {
        fn request(&self, _: &Address, _: RemotingCommand, answer: Answer) {
            answer.send(RemotingCommand::response(self.0, None));
        }
    }

    /// A broker that is shutting down on its first connections, as many as it is said, and was started anew then.
    async fn leaving(connections: usize) -> (Address, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = listener.local_addr().unwrap().to_string().into();
        let (own, mut tasks) = (Arc::clone(&address), JoinSet::new());
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let says =
                    Says(if number < connections { ResponseCode::GO_AWAY } else { ResponseCode::SUCCESS });
                let own = Arc::clone(&own);
                serving.spawn(async move {
                    let (_peer, mut requests) = Peer::new(Arc::clone(&own), HeaderForm::Json);
                    let never = CancellationToken::new();
                    serve(stream.into_split(), &own, &mut requests, &says, LIMITS, &never).await;
                });
            }
        });
        (address, tasks)
    }

    pub(crate) fn client() -> RemotingClient {
        let settings = RemotingSettings {
            connect_timeout: PATIENCE,
            limits: LIMITS,
            signer: None,
            tls: None,
            namespace_v2: None,
            request_type: RequestType::Plain,
            hooks: RpcHooks::default(),
        };
        RemotingClient::new(settings, Arc::new(NotAsked), Tasks::default())
    }

    #[tokio::test]
    async fn a_request_goes_once_more_over_a_new_connection_where_a_broker_is_shutting_down() {
        let client = client();
        let request = GetMaxOffset { topic: "t".into(), queue_id: 0 };
        for (connections, expected) in [(1, ResponseCode::SUCCESS), (2, ResponseCode::GO_AWAY)] {
            let (address, _shared) = leaving(connections).await;
            let answer =
                client.request(&address, GetMaxOffset::CODE, &request, Bytes::new(), PATIENCE).await.unwrap();
            assert_eq!(answer.response_code(), expected);

            let (address, _own) = leaving(connections).await;
            let line = client.line(&address);
            assert_eq!(line.request(&request, PATIENCE).await.unwrap().response_code(), expected);
            // The new connection is the one that stays.
            assert_eq!(
                line.request(&request, PATIENCE).await.unwrap().response_code(),
                ResponseCode::SUCCESS
            );
        }
    }
}
