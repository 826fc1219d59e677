//! One connection: a task that owns the socket and everything that waits on it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{trace, warn};

use super::frame::{FrameReader, FrameWriter};
use super::peer::{Outbound, Requests, Waiting};
use super::{Address, RequestError};
use crate::protocol::{HeaderForm, RemotingCommand, ResponseCode};

/// Answers to the peer's own requests; a peer that asks faster than it reads loses the answers beyond.
const ANSWER_QUEUE: usize = 256;
/// Bytes that wait to be written, beyond which no further request is accepted.
const UNSENT_BYTES: usize = 1 << 20;
/// So many requests in flight mean that others are about to come, for which it is worth to wait a moment.
const CROWD: usize = 16;
/// How often requests that nobody waits for any more are forgotten, and the idle time is looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// What a connection that ends gets to write what it was given, and to hear what was said by then.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection may hold and how long it may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_frame_bytes: usize,
    /// Requests that wait for their answer.
    pub(crate) max_in_flight: usize,
    /// Nothing read and nothing written for so long ends the connection.
    pub(crate) idle_timeout: Duration,
    /// Nothing read for so long, after a request was not answered in its time, ends it as well: where the way is cut without a
    /// word, the system goes on trying for a quarter of an hour, and every request would wait in vain.
    pub(crate) max_silence: Duration,
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

/// The way back to who asked. Dropping it leaves the question open, as for a request that wants no answer.
#[derive(Debug)]
pub(crate) struct Answer {
    opaque: i32,
    form: HeaderForm,
    oneway: bool,
    answers: mpsc::Sender<Leaving>,
}

/// An answer on its way out.
#[derive(Debug)]
struct Leaving {
    head: Bytes,
    body: Bytes,
}

impl Answer {
    /// Answers, unless the request wanted no answer or the connection is gone.
    pub(crate) fn send(self, mut command: RemotingCommand) {
        if self.oneway {
            return;
        }
        command.opaque = self.opaque;
        let leaving = Leaving { head: command.encode_head(self.form), body: command.body };
        if let Err(mpsc::error::TrySendError::Full(_)) = self.answers.try_send(leaving) {
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
        in_flight: InFlight::default(),
        answers,
        has_written: false,
        last_traffic: Instant::now(),
        silent_since: None,
        next_sweep: Instant::now() + SWEEP_INTERVAL,
    };
    inbound.connected(address);
    let error = Arc::new(match connection.run(requests, answers_receiver, stopping).await {
        Ok(()) => io::Error::other("the client closed the connection"),
        Err(error) => error,
    });
    for (_, waiting) in connection.in_flight.drain() {
        let source = Arc::clone(&error);
        waiting.end(Err(RequestError::Disconnected { address: Arc::clone(address), source }));
    }
    error
}

/// Who waits for which answer.
type InFlight = HashMap<i32, Waiting, BuildHasherDefault<OpaqueHasher>>;

/// Spreads numbers that this side has chosen itself, so that nobody can choose them to collide.
#[derive(Debug, Default)]
struct OpaqueHasher(u64);

impl Hasher for OpaqueHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = (self.0 << 8) ^ u64::from(*byte));
    }

    fn write_i32(&mut self, opaque: i32) {
        // Tables look at the highest bits and at the lowest: an odd factor, that of the golden ratio, moves all of them.
        self.0 = u64::from(opaque as u32).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Owns the socket and everything that waits on it, so nothing here needs a lock.
struct Connection<'a, R, W> {
    address: &'a Address,
    inbound: &'a dyn Inbound,
    limits: Limits,
    reader: FrameReader<R>,
    writer: FrameWriter<W>,
    in_flight: InFlight,
    answers: mpsc::Sender<Leaving>,
    /// Whether anything was written since the last sweep: that needs no clock.
    has_written: bool,
    last_traffic: Instant,
    /// When a request was not answered in its time, unless something was read after that.
    silent_since: Option<Instant>,
    /// No later than the first deadline of those who wait.
    next_sweep: Instant,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<'_, R, W> {
    async fn run(
        &mut self,
        requests: &mut Requests,
        mut answers: mpsc::Receiver<Leaving>,
        stopping: &CancellationToken,
    ) -> io::Result<()> {
        let mut stopped = pin!(stopping.cancelled());
        // One timer for all who wait: most of them get their answers long before, and need none.
        let mut sweep = pin!(time::sleep_until(self.next_sweep));
        loop {
            // Those that waited for the connection, or for room on it.
            if !requests.is_empty() {
                self.take(requests);
            }
            if self.next_sweep < sweep.deadline() {
                sweep.as_mut().reset(self.next_sweep);
            }
            // Every branch is cancel safe and every body synchronous: a slow peer holds up those who write to it,
            // never the reading of its answers.
            tokio::select! {
                // A peer that asks faster than its answers can leave is not read until they have.
                frame = self.reader.next(), if self.answers.capacity() > 0 => self.receive(frame?),
                is_one = requests.arrive() => {
                    if !is_one {
                        return self.finish(requests).await;
                    }
                    self.take(requests);
                    if CROWD <= self.in_flight.len() {
                        // Those who were woken by the same answers get the time to ask, too: what they ask leaves
                        // in the same write.
                        task::yield_now().await;
                        self.take(requests);
                    }
                }
                written = self.writer.write_some(), if self.writer.has_unsent() => {
                    written?;
                    self.has_written = true;
                }
                // `self` holds a sender, so this never ends by itself.
                Some(answer) = answers.recv(), if !self.writer.is_full() => {
                    self.writer.push(answer.head, answer.body);
                    while !self.writer.is_full() && let Ok(next) = answers.try_recv() {
                        self.writer.push(next.head, next.body);
                    }
                }
                () = &mut sweep => {
                    self.sweep(requests)?;
                    sweep.as_mut().reset(self.next_sweep);
                }
                () = &mut stopped => return self.finish(requests).await,
            }
        }
    }

    fn has_room(&self) -> bool {
        !self.writer.is_full() && self.in_flight.len() < self.limits.max_in_flight
    }

    /// Takes as many requests as there is room for, so that they leave in one write.
    fn take(&mut self, requests: &mut Requests) {
        while self.has_room() {
            match requests.try_next() {
                Some(request) => self.push(request),
                None => return,
            }
        }
        if let Some(deadline) = requests.earliest_deadline() {
            self.next_sweep = self.next_sweep.min(deadline);
        }
    }

    fn push(&mut self, outbound: Outbound) {
        if outbound.is_abandoned() {
            return;
        }
        if let Some(waiting) = outbound.waiting {
            self.next_sweep = self.next_sweep.min(waiting.deadline());
            self.in_flight.insert(waiting.opaque, waiting);
        }
        self.writer.push(outbound.head, outbound.body);
    }

    fn receive(&mut self, command: RemotingCommand) {
        if command.is_response() {
            match self.in_flight.remove(&command.opaque) {
                Some(waiting) => waiting.end(Ok(command)),
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

    /// Tells those whose time is over, and forgets those that have given up.
    fn sweep(&mut self, requests: &mut Requests) -> io::Result<()> {
        let now = Instant::now();
        let was_heard = self.reader.take_heard();
        if was_heard {
            self.silent_since = None;
        }
        let is_over = |_: &i32, waiting: &mut Waiting| waiting.deadline() <= now || waiting.is_abandoned();
        for (_, waiting) in self.in_flight.extract_if(is_over) {
            if !waiting.is_abandoned() {
                self.silent_since.get_or_insert(now);
            }
            waiting.time_out(self.address);
        }
        requests.expire(self.address, now);
        let deadlines = self.in_flight.values().map(Waiting::deadline);
        let deadlines = deadlines.chain(requests.earliest_deadline());
        self.next_sweep = deadlines.fold(now + SWEEP_INTERVAL, Instant::min);
        if std::mem::take(&mut self.has_written) || was_heard {
            self.last_traffic = now;
        }
        if self.silent_since.is_some_and(|since| self.limits.max_silence <= now - since) {
            let error =
                format!("requests are not answered, and nothing was heard for {:?}", self.limits.max_silence);
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        if self.limits.idle_timeout <= now - self.last_traffic {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was said for the idle timeout"));
        }
        Ok(())
    }

    /// Writes what was given to this connection, then ends it. Those who wait still get what the peer had said before it
    /// noticed.
    async fn finish(&mut self, requests: &mut Requests) -> io::Result<()> {
        while let Some(request) = requests.try_next() {
            self.push(request);
        }
        let finished = async {
            self.writer.finish().await?;
            while self.in_flight.values().any(|waiting| !waiting.is_abandoned()) {
                let frame = self.reader.next().await?;
                self.receive(frame);
            }
            Ok(())
        };
        match time::timeout(FINISH_TIMEOUT, finished).await {
            Ok(finished) => finished,
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the peer did not end the connection in time"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
    use tokio::task::JoinSet;

    use super::super::Peer;
    use super::*;
    use crate::protocol::{ExtFields, RequestCode};

    const MS: Duration = Duration::from_millis(1);
    const MAX_SILENCE: Duration = Duration::from_secs(6);

    struct Nobody;

    impl Inbound for Nobody {
        fn request(&self, _: &Address, _: RemotingCommand, _: Answer) {}
    }

    /// A connection that holds so many bytes that are not read, and what its task is.
    fn connect(unread: usize, max_in_flight: usize) -> (Peer, DuplexStream, JoinSet<Arc<io::Error>>) {
        connect_until(unread, max_in_flight, CancellationToken::new())
    }

    fn connect_until(
        unread: usize,
        max_in_flight: usize,
        stopping: CancellationToken,
    ) -> (Peer, DuplexStream, JoinSet<Arc<io::Error>>) {
        let address: Address = "far:1".into();
        let (peer, mut requests) = Peer::new(Arc::clone(&address), HeaderForm::Json);
        let (near, far) = duplex(unread);
        let (form, idle_timeout) = (HeaderForm::Json, Duration::from_secs(3_600));
        let limits =
            Limits { max_frame_bytes: 1 << 24, max_in_flight, idle_timeout, max_silence: MAX_SILENCE, form };
        let mut task = JoinSet::new();
        task.spawn(
            async move { serve(split(near), &address, &mut requests, &Nobody, limits, &stopping).await },
        );
        (peer, far, task)
    }

    fn request(bytes: usize) -> RemotingCommand {
        RemotingCommand::request(RequestCode::SEND_MESSAGE, ExtFields::default(), vec![0; bytes].into())
    }

    async fn answer(far: &mut DuplexStream, opaque: i32) {
        let mut answer = RemotingCommand::response(ResponseCode::SUCCESS, None);
        answer.opaque = opaque;
        far.write_all(&answer.encode_head(HeaderForm::Json)).await.unwrap();
    }

    /// That each of `calls` ends when its time is over, and not before.
    async fn all_time_out(calls: impl IntoIterator<Item = (Peer, usize, Duration)>) {
        let mut ends = JoinSet::new();
        for (peer, bytes, limit) in calls {
            ends.spawn(async move {
                let start = Instant::now();
                let error = peer.call(request(bytes), limit).await.unwrap_err();
                assert!(
                    matches!(&error, RequestError::TimedOut { limit: told, .. } if *told == limit),
                    "{error}"
                );
                let took = start.elapsed();
                assert!(limit <= took && took <= limit + 2 * MS, "{took:?} of {limit:?}");
            });
        }
        while let Some(end) = ends.join_next().await {
            end.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_ends_with_its_own_time_however_many_wait() {
        let (peer, _far, _task) = connect(1 << 20, 10);
        // Of which ten are on their way, 256 wait for that, and the others for a place behind them.
        all_time_out((0..300).map(|at| (peer.clone(), 1, (1 + at % 7) * 300 * MS))).await;
        // Shorter than what others wait for already.
        all_time_out([3_000, 5, 700].map(|ms| (peer.clone(), 1, ms * MS))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn requests_to_a_peer_that_does_not_read_end_with_their_time() {
        let (peer, _far, _task) = connect(10, 4_096);
        let (large, small) = (2 << 20, 1);
        all_time_out([large, small, large, small].map(|bytes| (peer.clone(), bytes, 250 * MS))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_or_to_nobody_harms_no_other() {
        let (peer, mut far, _task) = connect(1 << 20, 10);
        peer.call(request(1), 5 * MS).await.unwrap_err();
        let given_up = peer.call(request(1), 500 * MS);
        time::timeout(5 * MS, given_up).await.unwrap_err();
        let asked = peer.call(request(1), 500 * MS);
        let answered = async {
            // Time passes once the request has left.
            time::sleep(MS).await;
            for opaque in [0, 1, 7, 2] {
                answer(&mut far, opaque).await;
            }
        };
        let (asked, ()) = tokio::join!(asked, answered);
        assert_eq!(asked.unwrap().opaque, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_on_which_nothing_is_heard_any_more() {
        let (peer, _far, mut task) = connect(1 << 20, 10);
        let start = Instant::now();
        let (short, long) = tokio::join!(
            peer.call(request(1), 3_000 * MS),
            // Those who have more patience may ask anew.
            peer.call(request(1), 60_000 * MS),
        );
        assert!(matches!(short, Err(RequestError::TimedOut { .. })), "{short:?}");
        assert!(matches!(long, Err(RequestError::Disconnected { .. })), "{long:?}");
        let took = start.elapsed();
        assert!(3_000 * MS + MAX_SILENCE <= took && took < 11_000 * MS, "{took:?}");
        let error = task.join_next().await.unwrap().unwrap();
        assert!(error.to_string().contains("nothing was heard for 6s"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_stays_while_anything_is_heard_or_nothing_is_asked() {
        let (peer, mut far, _task) = connect(1 << 20, 10);
        let whole = peer.call(request(1), 60_000 * MS);
        let answers = async {
            peer.call(request(1), 3_000 * MS).await.unwrap_err();
            let mut answer = RemotingCommand::response(ResponseCode::SUCCESS, None);
            answer.opaque = 0;
            // Over a slow line.
            for byte in answer.encode_head(HeaderForm::Json) {
                time::sleep(300 * MS).await;
                far.write_all(&[byte]).await.unwrap();
            }
        };
        let (whole, ()) = tokio::join!(whole, answers);
        assert_eq!(whole.unwrap().opaque, 0);

        time::sleep(10 * MAX_SILENCE).await;
        let answered = async {
            time::sleep(MS).await;
            answer(&mut far, 2).await;
        };
        let (again, ()) = tokio::join!(peer.call(request(1), 3_000 * MS), answered);
        assert_eq!(again.unwrap().opaque, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_needs_any_more_writes_what_it_was_given() {
        let (peer, mut far, mut task) = connect(16, 1);
        for _ in 0..100 {
            assert!(peer.try_oneway(request(100)));
        }
        drop(peer);
        let mut written = Vec::new();
        far.read_to_end(&mut written).await.unwrap();
        assert!(100 * 100 < written.len());
        task.join_next().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_answered_before_the_peer_notices_the_end_still_comes() {
        let stopping = CancellationToken::new();
        let (peer, mut far, _task) = connect_until(1 << 20, 10, stopping.clone());
        let ends = async {
            // Both have been sent then.
            time::sleep(MS).await;
            stopping.cancel();
            far.read_to_end(&mut Vec::new()).await.unwrap();
            answer(&mut far, 0).await;
            drop(far);
        };
        let (first, second, ()) =
            tokio::join!(peer.call(request(1), 500 * MS), peer.call(request(1), 500 * MS), ends);
        assert_eq!(first.unwrap().opaque, 0);
        let lost = second.unwrap_err();
        assert!(matches!(lost, RequestError::Disconnected { .. }), "{lost}");
    }
}
