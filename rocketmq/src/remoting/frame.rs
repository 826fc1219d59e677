//! Frames off a socket and onto it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protocol::{DecodeError, RemotingCommand};

/// Read buffers grow and shrink between these: a quiet connection costs little, a busy one few reads.
const MIN_BUFFER_BYTES: usize = 8 << 10;
const MAX_BUFFER_BYTES: usize = 256 << 10;

/// Cuts a stream into commands whose bodies share the read buffer.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    /// How much room the next buffer gets; follows the traffic.
    room: usize,
    limit: usize,
    /// Whether anything came since this was last asked for.
    was_heard: bool,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `limit` is the longest frame that is accepted, its leading length included.
    pub(super) fn new(stream: R, limit: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), room: MIN_BUFFER_BYTES, limit, was_heard: false }
    }

    /// Whether anything came since the last call, if only a part of a frame.
    pub(super) fn take_heard(&mut self) -> bool {
        std::mem::take(&mut self.was_heard)
    }

    /// The next command.
    ///
    /// # Errors
    ///
    /// When the stream ends or fails, or holds no frame: the stream has lost its place, close it.
    ///
    /// # Cancel safety
    ///
    /// Nothing that was read is lost.
    pub(super) async fn next(&mut self) -> io::Result<RemotingCommand> {
        loop {
            match decode(&mut self.buffer, self.limit).map_err(invalid)? {
                Decoded::Command(command) => return Ok(command),
                Decoded::Missing(bytes) => self.make_room(bytes),
            }
            let before = self.buffer.capacity() - self.buffer.len();
            let read = self.stream.read_buf(&mut self.buffer).await?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection"));
            }
            self.was_heard = true;
            // A read that fills the buffer says that more is waiting; one that nearly does not, the opposite.
            if read == before {
                self.room = (self.room * 2).min(MAX_BUFFER_BYTES);
            } else if read < self.room / 8 {
                self.room = (self.room / 2).max(MIN_BUFFER_BYTES);
            }
        }
    }

    /// Makes room for `missing` bytes at least. A new buffer is made only when this one is nearly used up, since the
    /// start of an unfinished frame has to be copied over.
    fn make_room(&mut self, missing: usize) {
        let free = self.buffer.capacity() - self.buffer.len();
        if free < missing || free < MIN_BUFFER_BYTES / 4 {
            self.buffer.reserve(missing.max(self.room));
        }
    }
}

#[derive(Debug)]
enum Decoded {
    Command(RemotingCommand),
    /// At least so many bytes are needed before it is worth looking again.
    Missing(usize),
}

/// Takes one whole frame off the front of `buffer`.
fn decode(buffer: &mut BytesMut, limit: usize) -> Result<Decoded, DecodeError> {
    let Some(prefix) = buffer.first_chunk() else { return Ok(Decoded::Missing(4 - buffer.len())) };
    // A length with the sign bit set is beyond every limit as well.
    let length = 4 + u32::from_be_bytes(*prefix) as usize;
    if limit < length {
        return Err(DecodeError::FrameTooLarge { length, limit });
    }
    if buffer.len() < length {
        return Ok(Decoded::Missing(length - buffer.len()));
    }
    buffer.advance(4);
    RemotingCommand::from_frame(buffer.split_to(length - 4).freeze()).map(Decoded::Command)
}

fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Frames that wait to be written: many small ones leave in one system call, and no body is copied.
#[derive(Debug)]
pub(super) struct FrameWriter<W> {
    stream: W,
    unsent: Unsent,
    limit: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Beyond `limit` bytes the writer [is full](Self::is_full).
    pub(super) fn new(stream: W, limit: usize) -> Self {
        Self { stream, unsent: Unsent::default(), limit }
    }

    pub(super) fn push(&mut self, head: Bytes, body: Bytes) {
        for chunk in [head, body] {
            if !chunk.is_empty() {
                self.unsent.bytes += chunk.len();
                self.unsent.chunks.push_back(chunk);
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.limit <= self.unsent.bytes
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.unsent.bytes > 0
    }

    /// Writes some of what waits; cancel safe.
    pub(super) async fn write_some(&mut self) -> io::Result<()> {
        match self.stream.write_buf(&mut self.unsent).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            // Buffered streams (TLS) hold back what was written until they are told.
            _ if !self.has_unsent() => self.stream.flush().await,
            _ => Ok(()),
        }
    }

    /// Writes all that waits, then tells the peer that nothing follows.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        while self.has_unsent() {
            self.write_some().await?;
        }
        self.stream.shutdown().await
    }
}

#[derive(Debug, Default)]
struct Unsent {
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

impl Buf for Unsent {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map(Bytes::as_ref).unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.len().min(self.chunks.len());
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{ExtFields, HeaderForm, RequestCode};

    fn frame(topic: &str, body: Vec<u8>) -> (RemotingCommand, Vec<u8>) {
        let mut fields = ExtFields::default();
        fields.put("topic", topic);
        let command = RemotingCommand::request(RequestCode::PULL_MESSAGE, fields, body.into());
        let bytes = [&command.encode_head(HeaderForm::Json)[..], &command.body].concat();
        (command, bytes)
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_memory_is_reserved() {
        let mut buffer = BytesMut::from(&[0x7F, 0xFF, 0xFF, 0xFF][..]);
        let error = decode(&mut buffer, 1_000).unwrap_err();
        assert!(matches!(error, DecodeError::FrameTooLarge { limit: 1_000, .. }), "{error}");
        assert!(buffer.capacity() < 1_000);
    }

    #[tokio::test]
    async fn the_end_of_the_stream_inside_a_frame_is_an_error() {
        let (_, bytes) = frame("t", vec![1; 100]);
        let error = FrameReader::new(&bytes[..bytes.len() - 1], 1 << 20).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn frames_are_read_as_they_were_written_however_the_bytes_are_cut(
            bodies in prop::collection::vec(any::<Vec<u8>>(), 1..6),
            cut in 1_usize..50,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (commands, bytes): (Vec<_>, Vec<_>) = bodies.into_iter().map(|body| frame("topic", body)).unzip();
            let (mut near, far) = tokio::io::duplex(cut);
            runtime.block_on(async {
                let write = async { near.write_all(&bytes.concat()).await.unwrap() };
                let read = async {
                    let mut reader = FrameReader::new(far, 1 << 20);
                    for command in &commands {
                        assert_eq!(&reader.next().await.unwrap(), command);
                    }
                };
                tokio::join!(write, read);
            });
        }

        #[test]
        fn what_is_pushed_is_written_in_its_order(chunks in prop::collection::vec(any::<Vec<u8>>(), 0..9), cut in 1_usize..20) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (near, mut far) = tokio::io::duplex(cut);
            let received = runtime.block_on(async {
                let mut writer = FrameWriter::new(near, 1 << 20);
                for chunk in &chunks {
                    writer.push(chunk.clone().into(), Bytes::new());
                }
                let mut received = Vec::new();
                let (finished, read) = tokio::join!(writer.finish(), far.read_to_end(&mut received));
                finished.unwrap();
                read.unwrap();
                received
            });
            prop_assert_eq!(received, chunks.concat());
        }
    }
}
