//! One connection: a task that owns the socket and everything that waits on it.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{trace, warn};

use super::frame::{FrameReader, FrameWriter};
use super::{Address, RequestError};
use crate::protocol::{HeaderForm, RemotingCommand, RequestCode, ResponseCode};

/// Requests handed to the connection's task that it has not looked at yet; whoever comes later waits.
const OUTBOUND_QUEUE: usize = 256;
/// Answers to the peer's own requests; a peer that asks faster than it reads loses the answers beyond.
const ANSWER_QUEUE: usize = 256;
/// Bytes that wait to be written, beyond which no further request is accepted.
const UNSENT_BYTES: usize = 1 << 20;
/// So many requests in flight mean that others are about to come, for which it is worth to wait a moment.
const CROWD: usize = 16;
/// How often requests that nobody waits for any more are forgotten, and the idle time is looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What a connection may hold and how long it may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_frame_bytes: usize,
    /// Requests that wait for their answer.
    pub(crate) max_in_flight: usize,
    /// Nothing read and nothing written for so long ends the connection.
    pub(crate) idle_timeout: Duration,
    pub(crate) form: HeaderForm,
}

/// What the owner of a connection does with what comes in by itself. Both are called from the connection's task and
/// must not wait: whatever takes time belongs into a task of its own.
pub(crate) trait Inbound: Send + Sync + 'static {
    /// The connection has just been made.
    fn connected(&self, _address: &Address) {}

    /// The first connection to this address could not be made. Others will be tried.
    fn unreachable(&self, _address: &Address, _error: &io::Error) {}

    /// The peer asks. `answer` is not needed for a request that wants none.
    fn request(&self, address: &Address, command: RemotingCommand, answer: Answer);
}

/// A request as it leaves: encoded once, however often it is sent.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    code: RequestCode,
    opaque: i32,
    head: Bytes,
    body: Bytes,
}

impl Frame {
    /// `opaque` is a number that no other request has which may be under way on the same connection.
    pub(super) fn new(mut command: RemotingCommand, opaque: i32, form: HeaderForm) -> Self {
        command.opaque = opaque;
        let head = command.encode_head(form);
        Self { code: command.request_code(), opaque, head, body: command.body }
    }
}

/// One frame on its way out, and who waits for the answer to it.
#[derive(Debug)]
pub(super) struct Outbound {
    head: Bytes,
    body: Bytes,
    waiting: Option<(i32, Waiting)>,
}

type Waiting = oneshot::Sender<Result<RemotingCommand, RequestError>>;

impl Outbound {
    pub(super) fn fail(self, error: RequestError) {
        if let Some((_, waiting)) = self.waiting {
            // Whoever waited may have given up.
            let _ = waiting.send(Err(error));
        }
    }

    fn is_abandoned(&self) -> bool {
        self.waiting.as_ref().is_some_and(|(_, waiting)| waiting.is_closed())
    }
}

/// The other end of a connection, as those see it who have something to ask. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    address: Address,
    form: HeaderForm,
    opaques: Opaques,
    outbound: mpsc::Sender<Outbound>,
}

/// Numbers for requests: each is given once, so that a request may move from one connection to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Opaques(Arc<AtomicI32>);

impl Opaques {
    pub(super) fn next(&self) -> i32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Peer {
    /// A peer, and the end of its queue that [`serve`] takes.
    pub(crate) fn new(address: Address, form: HeaderForm) -> (Self, Requests) {
        Self::numbered(address, form, Opaques::default())
    }

    /// The same, with numbers that it shares with other peers.
    pub(super) fn numbered(address: Address, form: HeaderForm, opaques: Opaques) -> (Self, Requests) {
        let (outbound, receiver) = mpsc::channel(OUTBOUND_QUEUE);
        (Self { address, form, opaques, outbound }, Requests::new(receiver))
    }

    /// Sends a request and waits for its answer, whatever the answer says.
    ///
    /// # Cancel safety
    ///
    /// Whoever gives up leaves nothing behind; the peer may do the work all the same.
    pub(super) async fn invoke(
        &self,
        frame: Frame,
        limit: Duration,
    ) -> Result<RemotingCommand, RequestError> {
        let Frame { code, opaque, head, body } = frame;
        let (reply, answer) = oneshot::channel();
        let outbound = Outbound { head, body, waiting: Some((opaque, reply)) };
        let wait = async {
            self.outbound.send(outbound).await.map_err(|_| self.shut_down())?;
            answer.await.map_err(|_| self.shut_down())?
        };
        match time::timeout(limit, wait).await {
            Ok(answer) => answer,
            Err(_) => Err(RequestError::TimedOut { address: Arc::clone(&self.address), code, limit }),
        }
    }

    /// Sends a command and waits for its answer, whatever the answer says.
    ///
    /// # Cancel safety
    ///
    /// That of [`invoke`](Self::invoke).
    pub(crate) async fn call(
        &self,
        command: RemotingCommand,
        limit: Duration,
    ) -> Result<RemotingCommand, RequestError> {
        self.invoke(Frame::new(command, self.opaques.next(), self.form), limit).await
    }

    /// Sends a request that is not answered; returns once the connection has taken it, not once it has left.
    pub(super) async fn oneway(&self, command: RemotingCommand, limit: Duration) -> Result<(), RequestError> {
        let code = command.request_code();
        match time::timeout(limit, self.outbound.send(self.unanswered(command))).await {
            Ok(sent) => sent.map_err(|_| self.shut_down()),
            Err(_) => Err(RequestError::TimedOut { address: Arc::clone(&self.address), code, limit }),
        }
    }

    /// Sends a request that is not answered, unless the connection is too busy to take it.
    pub(crate) fn try_oneway(&self, command: RemotingCommand) -> bool {
        self.outbound.try_send(self.unanswered(command)).is_ok()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.outbound.same_channel(&other.outbound)
    }

    fn unanswered(&self, command: RemotingCommand) -> Outbound {
        let Frame { head, body, .. } = Frame::new(command.oneway(), self.opaques.next(), self.form);
        Outbound { head, body, waiting: None }
    }

    fn shut_down(&self) -> RequestError {
        RequestError::ShutDown { address: Arc::clone(&self.address) }
    }
}

/// The requests of others that a connection is to send.
#[derive(Debug)]
pub(crate) struct Requests {
    receiver: mpsc::Receiver<Outbound>,
    /// The request for whose sake the connection is being made.
    first: Option<Outbound>,
}

impl Requests {
    fn new(receiver: mpsc::Receiver<Outbound>) -> Self {
        Self { receiver, first: None }
    }

    /// The next request; `None` once nobody is left who could ask. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Outbound> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.receiver.recv().await,
        }
    }

    fn try_next(&mut self) -> Option<Outbound> {
        self.first.take().or_else(|| self.receiver.try_recv().ok())
    }

    pub(super) fn put_back(&mut self, first: Outbound) {
        self.first = Some(first);
    }

    /// Tells those who wait by now that there is no connection.
    pub(super) fn fail_waiting(&mut self, error: impl Fn() -> RequestError) {
        while let Some(request) = self.try_next() {
            request.fail(error());
        }
    }

    /// The same, for good.
    pub(super) fn close(&mut self, error: impl Fn() -> RequestError) {
        self.receiver.close();
        self.fail_waiting(error);
    }
}

/// The way back to who asked. Dropping it leaves the question open, as for a request that wants no answer.
#[derive(Debug)]
pub(crate) struct Answer {
    opaque: i32,
    form: HeaderForm,
    oneway: bool,
    answers: mpsc::Sender<Outbound>,
}

impl Answer {
    /// Answers, unless the request wanted no answer or the connection is gone.
    pub(crate) fn send(self, mut command: RemotingCommand) {
        if self.oneway {
            return;
        }
        command.opaque = self.opaque;
        let outbound = Outbound { head: command.encode_head(self.form), body: command.body, waiting: None };
        if let Err(mpsc::error::TrySendError::Full(_)) = self.answers.try_send(outbound) {
            warn!(opaque = self.opaque, "the peer does not read its answers, one was dropped");
        }
    }

    /// The answer to what is not understood; silence would make the peer wait for its timeout.
    pub(crate) fn unsupported(self, command: &RemotingCommand) {
        let remark = format!(" request type {} not supported", command.code);
        self.send(RemotingCommand::response(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark));
    }
}

/// Serves a connection until it fails, falls silent, nobody holds its [`Peer`] any more, or `stopping` is cancelled.
/// Everyone who still waits on it is told why, and gets the same error. Returns that error.
pub(crate) async fn serve<R, W>(
    stream: (R, W),
    address: &Address,
    requests: &mut Requests,
    inbound: &dyn Inbound,
    limits: Limits,
    stopping: &CancellationToken,
) -> Arc<io::Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (answers, answers_receiver) = mpsc::channel(ANSWER_QUEUE);
    let mut connection = Connection {
        address,
        inbound,
        limits,
        reader: FrameReader::new(stream.0, limits.max_frame_bytes),
        writer: FrameWriter::new(stream.1, UNSENT_BYTES),
        in_flight: HashMap::new(),
        answers,
        last_traffic: Instant::now(),
    };
    inbound.connected(address);
    let error = Arc::new(match connection.run(requests, answers_receiver, stopping).await {
        Ok(()) => io::Error::other("the client closed the connection"),
        Err(error) => error,
    });
    for (_, waiting) in connection.in_flight.drain() {
        let source = Arc::clone(&error);
        // Whoever waited may have given up.
        let _ = waiting.send(Err(RequestError::Disconnected { address: Arc::clone(address), source }));
    }
    error
}

/// Owns the socket and everything that waits on it, so nothing here needs a lock.
struct Connection<'a, R, W> {
    address: &'a Address,
    inbound: &'a dyn Inbound,
    limits: Limits,
    reader: FrameReader<R>,
    writer: FrameWriter<W>,
    in_flight: HashMap<i32, Waiting>,
    answers: mpsc::Sender<Outbound>,
    last_traffic: Instant,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<'_, R, W> {
    async fn run(
        &mut self,
        requests: &mut Requests,
        mut answers: mpsc::Receiver<Outbound>,
        stopping: &CancellationToken,
    ) -> io::Result<()> {
        let mut stopped = pin!(stopping.cancelled());
        let mut sweep = time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Every branch is cancel safe and every body synchronous: a slow peer holds up those who write to it,
            // never the reading of its answers.
            tokio::select! {
                // A peer that asks faster than its answers can leave is not read until they have.
                frame = self.reader.next(), if self.answers.capacity() > 0 => self.receive(frame?),
                request = requests.next(), if self.has_room() => match request {
                    Some(request) => {
                        self.take(request, requests);
                        if CROWD <= self.in_flight.len() {
                            // Those who were woken by the same answers get the time to ask, too: what they ask leaves
                            // in the same write.
                            task::yield_now().await;
                            self.take_waiting(requests);
                        }
                    }
                    None => return self.writer.finish().await,
                },
                written = self.writer.write_some(), if self.writer.has_unsent() => {
                    written?;
                    self.last_traffic = Instant::now();
                }
                // `self` holds a sender, so this never ends by itself.
                Some(answer) = answers.recv(), if !self.writer.is_full() => {
                    self.push(answer);
                    while !self.writer.is_full() && let Ok(next) = answers.try_recv() {
                        self.push(next);
                    }
                }
                _ = sweep.tick() => self.sweep()?,
                () = &mut stopped => return self.writer.finish().await,
            }
        }
    }

    fn has_room(&self) -> bool {
        !self.writer.is_full() && self.in_flight.len() < self.limits.max_in_flight
    }

    /// Takes one request and those that came with it, so that they leave in one write.
    fn take(&mut self, first: Outbound, requests: &mut Requests) {
        self.push(first);
        self.take_waiting(requests);
    }

    fn take_waiting(&mut self, requests: &mut Requests) {
        while self.has_room()
            && let Some(next) = requests.try_next()
        {
            self.push(next);
        }
    }

    fn push(&mut self, outbound: Outbound) {
        if outbound.is_abandoned() {
            return;
        }
        if let Some((opaque, waiting)) = outbound.waiting {
            self.in_flight.insert(opaque, waiting);
        }
        self.writer.push(outbound.head, outbound.body);
    }

    fn receive(&mut self, command: RemotingCommand) {
        self.last_traffic = Instant::now();
        if command.is_response() {
            match self.in_flight.remove(&command.opaque) {
                // Whoever waited may have given up just now.
                Some(waiting) => drop(waiting.send(Ok(command))),
                None => trace!(opaque = command.opaque, "an answer that nobody waits for any more"),
            }
            return;
        }
        let answer = Answer {
            opaque: command.opaque,
            form: self.limits.form,
            oneway: command.is_oneway(),
            answers: self.answers.clone(),
        };
        self.inbound.request(self.address, command, answer);
    }

    fn sweep(&mut self) -> io::Result<()> {
        self.in_flight.retain(|_, waiting| !waiting.is_closed());
        if self.limits.idle_timeout <= self.last_traffic.elapsed() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was said for the idle timeout"));
        }
        Ok(())
    }
}
