//! A connection that its owner can end together with what waits on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{self, Instant};

use super::channel::{RemotingClient, send_over};
use super::connection::{Answer, Inbound};
use super::peer::{Frame, Peer, TimeLimit};
use super::{Address, RequestError};
use crate::protocol::{RemotingCommand, Request};
use crate::tasks::Tasks;

/// How long the end of a [`Line`] is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A request that came so long ago is at rest where the peer lets it wait. What came just now is on the way through the peer's
/// threads, and is carried out also where the connection has ended meanwhile.
const AT_REST_AFTER: Duration = Duration::from_millis(500);

/// A connection of one owner, who can end what waits on it: a broker forgets what it was asked over a connection that is
/// gone, and nothing else that it was asked.
#[derive(Debug)]
pub(crate) struct Line {
    remoting: RemotingClient,
    peer: Mutex<Peer>,
    address: Address,
    tasks: Tasks,
    asked: watch::Sender<Asked>,
}

/// What is asked over a [`Line`].
#[derive(Debug, Default)]
struct Asked {
    is_closed: bool,
    waiting: usize,
    /// When the last one was asked.
    last: Option<Instant>,
}

/// A request that waits for its answer, for as long as this lives.
struct Asking<'a>(&'a watch::Sender<Asked>);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|asked| asked.waiting -= 1);
    }
}

impl RemotingClient {
    /// A connection to `address` beside the one that all others share, not made before the first request.
    pub(crate) fn line(&self, address: &Address) -> Line {
        let tasks = self.tasks.child();
        let peer = Mutex::new(self.open(address, Arc::new(NotAsked), &tasks));
        Line {
            remoting: self.clone(),
            peer,
            address: Arc::clone(address),
            tasks,
            asked: watch::Sender::default(),
        }
    }
}

impl Line {
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Asks and waits for the answer, whatever that says; once more over a new connection where the broker is shutting down.
    pub(crate) async fn request<R: Request>(
        &self,
        request: &R,
        limit: Duration,
    ) -> Result<RemotingCommand, RequestError> {
        let _asking =
            self.ask().ok_or_else(|| RequestError::ShutDown { address: Arc::clone(&self.address) })?;
        let frame = self.remoting.frame(&self.address, R::CODE, request, Bytes::new())?;
        self.remoting.watch(&self.address, R::CODE, self.send(frame, limit.into())).await
    }

    fn ask(&self) -> Option<Asking<'_>> {
        let is_open = self.asked.send_if_modified(|asked| {
            if !asked.is_closed {
                asked.waiting += 1;
                asked.last = Some(Instant::now());
            }
            !asked.is_closed
        });
        is_open.then(|| Asking(&self.asked))
    }

    async fn send(&self, frame: Frame, limit: TimeLimit) -> Result<RemotingCommand, RequestError> {
        let peer = self.peer().clone();
        send_over(&peer, &self.address, frame, limit, || {
            let another = self.remoting.open(&self.address, Arc::new(NotAsked), &self.tasks);
            *self.peer() = another.clone();
            another
        })
        .await
    }

    fn peer(&self) -> MutexGuard<'_, Peer> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, and with it what waits at the peer for an answer; returns once the peer has ended it as well, which gets a
    /// moment for that. What the peer had answered before is not lost.
    ///
    /// Nothing more can be asked from now on. What was asked just now gets [half a second](AT_REST_AFTER) to be answered.
    pub(crate) async fn close(&self) {
        // Also where this is not awaited to its end.
        let end = self.tasks.stopping().clone().drop_guard();
        let mut asked = self.asked.subscribe();
        let mut last = None;
        self.asked.send_modify(|asked| {
            asked.is_closed = true;
            last = asked.last;
        });
        if let Some(last) = last {
            // Which of the two it was does not matter.
            let _ = time::timeout_at(last + AT_REST_AFTER, asked.wait_for(|asked| asked.waiting == 0)).await;
        }
        drop(end);
        // What is still there then has its own limit.
        let _ = self.tasks.join(CLOSE_TIMEOUT).await;
    }

    /// Whether its owner closes it, or has done so.
    pub(crate) fn is_closed(&self) -> bool {
        self.asked.borrow().is_closed
    }
}

/// Brokers ask those only who have sent heartbeats over a connection.
pub(super) struct NotAsked;

impl Inbound for NotAsked {
    fn request(&self, _: &Address, command: RemotingCommand, answer: Answer) {
        answer.unsupported(&command);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use super::super::channel::tests::{LIMITS, PATIENCE, client};
    use super::super::connection::serve;
    use super::*;
    use crate::protocol::header::GetMaxOffset;
    use crate::protocol::{HeaderForm, ResponseCode};

    /// Keeps what it is asked.
    struct Keeps(mpsc::Sender<Answer>);

    impl Inbound for Keeps {
        fn request(&self, _: &Address, _: RemotingCommand, answer: Answer) {
            let _ = self.0.try_send(answer);
        }
    }

    /// A broker that answers what it was asked once the test says so.
    async fn keeping() -> (Address, mpsc::Receiver<Answer>, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = listener.local_addr().unwrap().to_string().into();
        let (own, (keep, kept), mut tasks) = (Arc::clone(&address), mpsc::channel(1), JoinSet::new());
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (_peer, mut requests) = Peer::new(Arc::clone(&own), HeaderForm::Json);
            let never = CancellationToken::new();
            serve(stream.into_split(), &own, &mut requests, &Keeps(keep), LIMITS, &never).await;
        });
        (address, kept, tasks)
    }

    #[tokio::test]
    async fn a_line_that_is_closed_ends_what_waits_and_lets_what_was_asked_just_now_be_answered() {
        let request = GetMaxOffset { topic: "t".into(), queue_id: 0 };
        for is_answered in [true, false] {
            let (address, mut kept, _tasks) = keeping().await;
            let line = client().line(&address);
            let asked_at = Instant::now();
            let asking = line.request(&request, PATIENCE);
            let closing = async {
                let answer = kept.recv().await.unwrap();
                let close = line.close();
                let late = async {
                    let refused = line.request(&request, PATIENCE).await.unwrap_err();
                    assert!(matches!(refused, RequestError::ShutDown { .. }), "{refused}");
                    if is_answered {
                        answer.send(RemotingCommand::response(ResponseCode::SUCCESS, None));
                        return None;
                    }
                    Some(answer)
                };
                tokio::join!(biased; close, late)
            };
            let (answer, _) = tokio::join!(asking, closing);

            assert!(line.is_closed());
            if is_answered {
                assert_eq!(answer.unwrap().response_code(), ResponseCode::SUCCESS);
            } else {
                assert!(matches!(answer.unwrap_err(), RequestError::Disconnected { .. }));
                assert!(AT_REST_AFTER <= asked_at.elapsed(), "it was at rest: {:?}", asked_at.elapsed());
            }
        }
    }
}
