//! The other end of a connection, as those see it who have something to ask; and what they ask, until it is answered.
//!
//! Whoever asks waits without a timer of its own: the connection's task tells those whose time is over. It therefore
//! takes requests also while it cannot send them, and permits bound how many those are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::time::{self, Instant};

use super::{Address, RequestError};
use crate::protocol::{HeaderForm, RemotingCommand, RequestCode};

/// Requests handed to the connection's task that it has not sent yet; whoever comes later waits.
const UNSENT_REQUESTS: usize = 256;

/// A request as it leaves: encoded once, however often it is sent.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) code: RequestCode,
    pub(super) opaque: i32,
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Frame {
    /// `opaque` is a number that no other request has which may be under way on the same connection.
    pub(super) fn new(mut command: RemotingCommand, opaque: i32, form: HeaderForm) -> Self {
        command.opaque = opaque;
        let head = command.encode_head(form);
        Self { code: command.request_code(), opaque, head, body: command.body }
    }
}

/// How long an answer is waited for, and when that is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimit {
    length: Duration,
    end: Instant,
}

impl TimeLimit {
    /// What is left at `now` until `end`.
    pub(crate) fn between(now: Instant, end: Instant) -> Self {
        Self { length: end.saturating_duration_since(now), end }
    }
}

impl From<Duration> for TimeLimit {
    fn from(length: Duration) -> Self {
        Self { length, end: Instant::now() + length }
    }
}

/// One request on its way out, and who waits for the answer to it.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) head: Bytes,
    pub(super) body: Bytes,
    pub(super) waiting: Option<Waiting>,
    /// Its place among those that are not sent yet.
    _place: OwnedSemaphorePermit,
}

/// Who waits for an answer, and until when.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) opaque: i32,
    code: RequestCode,
    limit: TimeLimit,
    reply: oneshot::Sender<Result<RemotingCommand, RequestError>>,
}

impl Waiting {
    /// Whoever waited may have given up just now.
    pub(super) fn end(self, answer: Result<RemotingCommand, RequestError>) {
        let _ = self.reply.send(answer);
    }

    pub(super) fn deadline(&self) -> Instant {
        self.limit.end
    }

    pub(super) fn time_out(self, address: &Address) {
        let (code, limit) = (self.code, self.limit.length);
        self.end(Err(RequestError::TimedOut { address: Arc::clone(address), code, limit }));
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

impl Outbound {
    pub(super) fn fail(self, error: RequestError) {
        if let Some(waiting) = self.waiting {
            waiting.end(Err(error));
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.waiting.as_ref().is_some_and(Waiting::is_abandoned)
    }

    fn deadline(&self) -> Option<Instant> {
        self.waiting.as_ref().map(Waiting::deadline)
    }
}

/// The other end of a connection, as those see it who have something to ask. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    address: Address,
    form: HeaderForm,
    opaques: Opaques,
    places: Arc<Semaphore>,
    outbound: mpsc::UnboundedSender<Outbound>,
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
    /// A peer, and the end of its queue that [`serve`](super::serve) takes.
    pub(crate) fn new(address: Address, form: HeaderForm) -> (Self, Requests) {
        Self::numbered(address, form, Opaques::default())
    }

    /// The same, with numbers that it shares with other peers.
    #[expect(clippy::disallowed_methods, reason = "every request in it has a place, of which there are few")]
    pub(super) fn numbered(address: Address, form: HeaderForm, opaques: Opaques) -> (Self, Requests) {
        let (outbound, arriving) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(UNSENT_REQUESTS));
        let requests = Requests { arriving, unsent: VecDeque::new() };
        (Self { address, form, opaques, places, outbound }, requests)
    }

    /// Sends a request and waits for its answer, whatever the answer says.
    ///
    /// # Cancel safety
    ///
    /// Whoever gives up leaves nothing behind; the peer may do the work all the same.
    pub(super) async fn invoke(
        &self,
        frame: Frame,
        limit: TimeLimit,
    ) -> Result<RemotingCommand, RequestError> {
        let Frame { code, opaque, head, body } = frame;
        let place = self.place(code, limit).await?;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { opaque, code, limit, reply };
        self.push(Outbound { head, body, waiting: Some(waiting), _place: place })?;
        answer.await.map_err(|_| self.shut_down())?
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
        let frame = Frame::new(command, self.opaques.next(), self.form);
        self.invoke(frame, limit.into()).await
    }

    /// Sends a request that is not answered; returns once the connection has taken it, not once it has left.
    pub(super) async fn oneway(&self, command: RemotingCommand, limit: Duration) -> Result<(), RequestError> {
        let place = self.place(command.request_code(), limit.into()).await?;
        self.push(self.unanswered(command, place))
    }

    /// Sends a request that is not answered, unless the connection is too busy to take it.
    pub(crate) fn try_oneway(&self, command: RemotingCommand) -> bool {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.is_ok_and(|place| self.push(self.unanswered(command, place)).is_ok())
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.outbound.same_channel(&other.outbound)
    }

    /// Waits for a place among the requests that are not sent yet.
    async fn place(&self, code: RequestCode, limit: TimeLimit) -> Result<OwnedSemaphorePermit, RequestError> {
        // The usual case, without a timer.
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => return Ok(place),
            Err(TryAcquireError::Closed) => return Err(self.shut_down()),
            Err(TryAcquireError::NoPermits) => {}
        }
        match time::timeout_at(limit.end, Arc::clone(&self.places).acquire_owned()).await {
            Ok(place) => place.map_err(|_| self.shut_down()),
            Err(_) => {
                let (address, limit) = (Arc::clone(&self.address), limit.length);
                Err(RequestError::TimedOut { address, code, limit })
            }
        }
    }

    fn push(&self, outbound: Outbound) -> Result<(), RequestError> {
        self.outbound.send(outbound).map_err(|_| self.shut_down())
    }

    fn unanswered(&self, command: RemotingCommand, place: OwnedSemaphorePermit) -> Outbound {
        let Frame { head, body, .. } = Frame::new(command.oneway(), self.opaques.next(), self.form);
        Outbound { head, body, waiting: None, _place: place }
    }

    fn shut_down(&self) -> RequestError {
        RequestError::ShutDown { address: Arc::clone(&self.address) }
    }
}

/// The requests of others that a connection is to send.
#[derive(Debug)]
pub(crate) struct Requests {
    arriving: mpsc::UnboundedReceiver<Outbound>,
    /// Taken by the connection's task, but not sent yet. Each has its permit.
    unsent: VecDeque<Outbound>,
}

impl Requests {
    /// Waits until another request is there; `false` once nobody is left who could ask. Cancel safe.
    pub(super) async fn arrive(&mut self) -> bool {
        let arrived = self.arriving.recv().await;
        let is_one = arrived.is_some();
        self.unsent.extend(arrived);
        is_one
    }

    /// The same, if there is one already.
    pub(super) async fn exist(&mut self) -> bool {
        !self.unsent.is_empty() || self.arrive().await
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unsent.is_empty()
    }

    pub(super) fn try_next(&mut self) -> Option<Outbound> {
        self.unsent.pop_front().or_else(|| self.arriving.try_recv().ok())
    }

    /// When the time of the first of those is over that could not be sent yet.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.unsent.iter().filter_map(Outbound::deadline).min()
    }

    /// Tells those whose time is over by `now`.
    pub(super) fn expire(&mut self, address: &Address, now: Instant) {
        let is_over = |request: &Outbound| request.deadline().is_some_and(|deadline| deadline <= now);
        if !self.unsent.iter().any(is_over) {
            return;
        }
        for request in std::mem::take(&mut self.unsent) {
            match request.waiting {
                Some(waiting) if waiting.deadline() <= now => waiting.time_out(address),
                _ => self.unsent.push_back(request),
            }
        }
    }

    /// Looks after those that come while nothing can be sent. Never ends.
    pub(super) async fn hold(&mut self, address: &Address) {
        loop {
            let earliest = self.earliest_deadline();
            let over = async {
                match earliest {
                    Some(deadline) => time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                is_one = self.arriving.recv() => match is_one {
                    Some(request) => self.unsent.push_back(request),
                    // The others may still wait for the connection.
                    None => std::future::pending().await,
                },
                () = over => self.expire(address, Instant::now()),
            }
        }
    }

    /// Tells those who wait by now that there is no connection.
    pub(super) fn fail_waiting(&mut self, error: impl Fn() -> RequestError) {
        while let Some(request) = self.try_next() {
            request.fail(error());
        }
    }

    /// The same, for good.
    pub(super) fn close(&mut self, error: impl Fn() -> RequestError) {
        self.arriving.close();
        self.fail_waiting(error);
    }
}
