//! The task that tells one broker what is done: what comes while a request is on its way goes along with the next.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::held::{Patience, is_gone};
use super::queue::PopQueue;
use crate::consumer::Shared;
use crate::protocol::ResponseCode;
use crate::protocol::pop::{BatchAck, PopHandle};
use crate::remoting::RequestError;

/// Acknowledgements in one request.
const BATCH: usize = 64;
/// Acknowledgements that wait for the request before them; handlers wait where there is no room.
pub(super) const WAITING: usize = 1024;

/// Acknowledges the messages of one [`PopQueue`].
pub(super) struct Acker {
    shared: Arc<Shared>,
    queue: Arc<PopQueue>,
    acks: mpsc::Receiver<PopHandle>,
    /// Whether the broker knows batches, as far as is known.
    knows_batches: bool,
}

impl Acker {
    pub(super) fn new(shared: Arc<Shared>, queue: Arc<PopQueue>, acks: mpsc::Receiver<PopHandle>) -> Self {
        Self { shared, queue, acks, knows_batches: true }
    }

    /// Runs until nobody is left who could have something to acknowledge, or is waited for.
    pub(super) async fn run(mut self) {
        let mut handles = Vec::with_capacity(BATCH);
        while self.receive(&mut handles).await {
            self.acknowledge(&handles).await;
            self.queue.settled(handles.len());
            handles.clear();
        }
    }

    /// Takes what is to be acknowledged together; `false` where nothing is, nor will be.
    async fn receive(&mut self, handles: &mut Vec<PopHandle>) -> bool {
        let arrived = self.acks.recv_many(handles, BATCH);
        if self.shared.drained.run_until_cancelled(arrived).await.is_none() {
            while handles.len() < BATCH
                && let Ok(handle) = self.acks.try_recv()
            {
                handles.push(handle);
            }
        }
        !handles.is_empty()
    }

    async fn acknowledge(&mut self, handles: &[PopHandle]) {
        let (together, alone): (Vec<_>, Vec<_>) = handles.iter().cloned().partition(BatchAck::can_hold);
        let mut one_by_one = alone;
        if together.len() == 1 || !self.knows_batches {
            one_by_one.extend(together);
        } else if !together.is_empty() {
            match self.ack_batch(&together).await {
                Err(error) if error.response_code() == Some(ResponseCode::REQUEST_CODE_NOT_SUPPORTED) => {
                    info!(group = %self.shared.group, broker = %self.queue.queue.broker_name, "the broker knows no batches of acknowledgements, it gets one by one");
                    self.knows_batches = false;
                    one_by_one.extend(together);
                }
                answered => self.report(&together, answered),
            }
        }
        for handle in one_by_one {
            let answered = self.ack(&handle).await;
            self.report(std::slice::from_ref(&handle), answered);
        }
    }

    async fn ack_batch(&self, handles: &[PopHandle]) -> Result<(), RequestError> {
        let mut patience = self.patience();
        loop {
            let answered = self.shared.client.ack_batch(&self.shared.group, &self.queue.queue, handles).await;
            if !patience.lasts(&answered).await {
                return answered;
            }
        }
    }

    async fn ack(&self, handle: &PopHandle) -> Result<(), RequestError> {
        let mut patience = self.patience();
        loop {
            let answered = self.shared.client.ack(&self.shared.group, &self.queue.queue, handle).await;
            if !patience.lasts(&answered).await {
                return answered;
            }
        }
    }

    /// Until others may see the messages there is reason to try it: what is acknowledged comes to nobody again.
    fn patience(&self) -> Patience {
        Patience::lasting(self.shared.config.pop.invisible_time)
    }

    fn report(&self, handles: &[PopHandle], answered: Result<(), RequestError>) {
        let (group, queue, count) = (&self.shared.group, &self.queue.queue, handles.len());
        match answered {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {
                debug!(%group, %queue, count, %error, "acknowledged what the broker does not have any more");
            }
            Err(error) => {
                let first = handles.first().map(|handle| handle.queue_offset);
                warn!(%group, %queue, count, first, %error, "messages that were handled could not be acknowledged, they will be delivered again");
            }
        }
    }
}
