//! Reads a request body and enforces its limits: the source's `max_body`, the in-flight budgets and the deadline.
//!
//! hookhold charges each piece of a body to the in-flight budgets when the piece arrives, before buffering the piece. hookhold
//! reserves no memory for an announced length. hookhold does not copy a body that arrives in one piece. If a body arrives in
//! several pieces, hookhold copies the pieces into blocks. Without this copy, a sender of one-byte chunks could make each
//! chunk occupy a whole read buffer.
//!
//! The HTTP library passes on each chunk or DATA frame separately. This costs as much processor time as hashing [`PIECE_WORK`] bytes,
//! so the number of pieces of a body is limited, and small pieces count as work.

use std::error::Error;
use std::future::{pending, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use tokio::select;
use tokio::time::sleep;

use super::connection_slot::is_eviction;
use super::deadline::Progress;
use super::unfinished_bodies::{BodyGuard, UnfinishedBodies};
use crate::in_flight::InFlightCharge;
use crate::outcome::Outcome;

/// Reader of one request body, with the limits that apply to the body.
pub(super) struct BodyReader<'a, 'c> {
    pub(super) body: &'a mut Incoming,
    pub(super) charge: &'a mut InFlightCharge<'c>,
    progress: &'a Progress,
    unfinished: &'a UnfinishedBodies,
    /// Address of the sender.
    address: IpAddr,
    buffer: BodyBuffer,
    pieces: usize,
    /// True if the bodies that make room for this one are still in memory.
    waits_for_room: bool,
}

impl<'a, 'c> BodyReader<'a, 'c> {
    pub(super) fn new(
        body: &'a mut Incoming,
        charge: &'a mut InFlightCharge<'c>,
        progress: &'a Progress,
        unfinished: &'a UnfinishedBodies,
        address: IpAddr,
    ) -> BodyReader<'a, 'c> {
        BodyReader { body, charge, progress, unfinished, address, buffer: BodyBuffer::Empty, pieces: 0, waits_for_room: false }
    }

    /// Reads the pieces of the body that have already arrived, without waiting. A small body usually arrives together with the
    /// head. If the read fails or the body exceeds a limit, the error is the outcome of the request.
    pub(super) async fn read_arrived(&mut self, limit: usize) -> Result<(), Outcome> {
        while !is_complete(self.body) {
            let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut *self.body).poll_frame(context))).await;
            let Poll::Ready(frame) = polled else { break };
            if !self.add(frame, limit, None)? {
                break;
            }
        }
        Ok(())
    }

    /// Reads the rest of an incomplete body, and returns the whole body. If the read fails or the body exceeds a limit, the error
    /// is the outcome of the request.
    pub(super) async fn read(&mut self, limit: usize) -> Result<Bytes, Outcome> {
        let guard = self.unfinished.add(self.address, self.charge);
        let read = self.read_rest(limit, &guard).await;
        self.charge.add_work(self.small_pieces() * PIECE_WORK);
        if let Err(outcome) = read {
            self.buffer = BodyBuffer::Empty;
            if outcome == Outcome::RateLimited {
                self.charge.release();
            }
            return Err(outcome);
        }
        Ok(self.take())
    }

    /// Returns the pieces of the body that have been read.
    pub(super) fn take(&mut self) -> Bytes {
        std::mem::replace(&mut self.buffer, BodyBuffer::Empty).into_bytes()
    }

    /// Returns true if the body has more pieces than hookhold accepts.
    pub(super) fn has_too_many_pieces(&self) -> bool {
        self.pieces > MAX_PIECES + self.charge.received() / BYTES_PER_PIECE
    }

    async fn read_rest(&mut self, limit: usize, guard: &BodyGuard<'_>) -> Result<(), Outcome> {
        while !is_complete(self.body) {
            let frame = select! {
                biased;
                frame = self.progress.unless_cut(self.body.frame()) => frame?,
                () = guard.evicted() => return Err(Outcome::RateLimited),
            };
            if !self.add(frame, limit, Some(guard))? {
                break;
            }
            while self.waits_for_room {
                select! {
                    biased;
                    waited = self.progress.unless_cut(sleep(ROOM_CHECK_INTERVAL)) => waited?,
                    () = guard.evicted() => return Err(Outcome::RateLimited),
                }
                self.waits_for_room = self.unfinished.make_room(self.address, self.charge, Some(guard))?;
            }
        }
        Ok(())
    }

    /// Charges and adds the next frame of the body. Returns false at the end of the body. Discards HTTP trailers, because no
    /// provider signs trailers.
    fn add(
        &mut self,
        frame: Option<Result<Frame<Bytes>, hyper::Error>>,
        limit: usize,
        guard: Option<&BodyGuard<'_>>,
    ) -> Result<bool, Outcome> {
        let piece = match frame {
            None => return Ok(false),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(outcome_of(&error)),
        };
        self.pieces += 1;
        if self.charge.received() + piece.len() > limit || self.has_too_many_pieces() {
            return Err(Outcome::TooLarge);
        }
        if self.charge.add(piece.len()).is_err() {
            self.waits_for_room = self.unfinished.make_room(self.address, self.charge, guard)?;
        }
        guard.map_or(Ok(()), |guard| guard.set_bytes(self.charge.memory().bytes()))?;
        if !self.body.is_end_stream() {
            self.progress.body_received(piece.len());
        }
        self.buffer = std::mem::replace(&mut self.buffer, BodyBuffer::Empty).append(piece);
        Ok(true)
    }

    /// Returns the number of pieces beyond the number that a body of this size usually has.
    fn small_pieces(&self) -> usize {
        self.pieces.saturating_sub(self.charge.received() / USUAL_PIECE_BYTES)
    }
}

/// Reads and discards the rest of a body, as long as it has few pieces.
pub(super) async fn discard(body: &mut Incoming) {
    for _ in 0..MAX_PIECES {
        let Some(Ok(_)) = body.frame().await else { return };
    }
}

/// Reads and discards the pieces of a body that have already arrived, without waiting. Returns true if the body has ended or
/// failed.
pub(super) async fn has_ended(body: &mut Incoming) -> bool {
    let ended = poll_fn(|context| {
        loop {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(true),
                Poll::Pending => return Poll::Ready(false),
            }
        }
    });
    ended.await
}

/// Waits for `work` and returns its result. Reads and discards the pieces of a body that arrive in the meantime.
pub(super) async fn discard_during<T>(body: &mut Incoming, work: impl Future<Output = T>) -> T {
    select! {
        result = work => result,
        never = async { discard(body).await; pending().await } => never,
    }
}

/// Returns true if the body has ended or has reached its announced length. The length check is necessary because an
/// HTTP/2 stream reports an error instead of its end if the sender disconnects after the last body byte.
pub(super) fn is_complete(body: &Incoming) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// Returns the outcome of a request whose body hookhold cannot read: `bad_request` if the HTTP framing is malformed,
/// `rate_limited` if hookhold has evicted the connection, otherwise `disconnected`.
fn outcome_of(error: &hyper::Error) -> Outcome {
    let Some(cause) = error.source() else { return Outcome::Disconnected };
    let (io_error, h2_error) = (cause.downcast_ref::<io::Error>(), cause.downcast_ref::<h2::Error>());
    if io_error.or_else(|| h2_error?.get_io()).is_some_and(is_eviction) {
        return Outcome::RateLimited;
    }
    let is_malformed = matches!(io_error.map(io::Error::kind), Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput));
    // The HTTP/2 library resets a stream whose body is longer or shorter than its content-length.
    let is_reset_by_us = h2_error.is_some_and(|error| error.is_reset() && error.is_library());
    if is_malformed || is_reset_by_us { Outcome::BadRequest } else { Outcome::Disconnected }
}

/// Received pieces of one request body.
enum BodyBuffer {
    Empty,
    OnePiece(Bytes),
    /// Copies of several pieces. Only the last block has room left. Blocks of one size take no more memory than the bytes in them,
    /// and an attacker who opens and abandons many bodies does not fragment the memory.
    Blocks(Vec<BytesMut>),
}

impl BodyBuffer {
    fn append(self, piece: Bytes) -> BodyBuffer {
        match self {
            BodyBuffer::Empty => BodyBuffer::OnePiece(piece),
            BodyBuffer::OnePiece(first) => BodyBuffer::Blocks(Vec::new()).append_copy(&first).append_copy(&piece),
            blocks => blocks.append_copy(&piece),
        }
    }

    fn append_copy(self, mut piece: &[u8]) -> BodyBuffer {
        let BodyBuffer::Blocks(mut blocks) = self else { return self };
        while !piece.is_empty() {
            match blocks.last_mut() {
                Some(block) if block.len() < BLOCK_BYTES => {
                    let (fitting, rest) = piece.split_at(piece.len().min(BLOCK_BYTES - block.len()));
                    block.extend_from_slice(fitting);
                    piece = rest;
                }
                last => {
                    let capacity = if last.is_some() { BLOCK_BYTES } else { BLOCK_BYTES.min(2 * piece.len()) };
                    blocks.push(BytesMut::with_capacity(capacity));
                }
            }
        }
        BodyBuffer::Blocks(blocks)
    }

    fn into_bytes(self) -> Bytes {
        match self {
            BodyBuffer::Empty => Bytes::new(),
            BodyBuffer::OnePiece(piece) => piece,
            BodyBuffer::Blocks(mut blocks) if blocks.len() == 1 => blocks.remove(0).freeze(),
            BodyBuffer::Blocks(blocks) => {
                let mut joined = BytesMut::with_capacity(blocks.iter().map(BytesMut::len).sum());
                // Frees each block as soon as it is copied.
                blocks.into_iter().for_each(|block| joined.extend_from_slice(&block));
                joined.freeze()
            }
        }
    }
}

/// Size of a block of a large body, in bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// Number of pieces that each body may have. A genuine sender has the whole body before it sends the signature, so it sends few
/// pieces.
const MAX_PIECES: usize = 16 * 1024;

/// A body may have one further piece for each part of this size, in bytes.
const BYTES_PER_PIECE: usize = 128;

/// Size of a small piece of an ordinary body, in bytes: somewhat less than a packet.
const USUAL_PIECE_BYTES: usize = 1024;

/// Interval at which hookhold checks whether evicted bodies have left the memory. They leave as soon as their tasks run.
const ROOM_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Number of hashed bytes that take as long as the reception of one small piece.
const PIECE_WORK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 100]);
        assert_eq!(BodyBuffer::Empty.append(piece.clone()).into_bytes().as_ptr(), piece.as_ptr());
        assert_eq!(BodyBuffer::Empty.append(piece.slice(..40)).append(piece.slice(40..)).into_bytes(), piece);
    }

    #[test]
    fn the_pieces_of_a_large_body_are_joined_in_order() {
        let body: Bytes = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        for size in [1, 1000, BLOCK_BYTES - 1, BLOCK_BYTES, 100_000, 299_999] {
            let pieces = body.chunks(size).map(|piece| body.slice_ref(piece));
            assert_eq!(pieces.fold(BodyBuffer::Empty, BodyBuffer::append).into_bytes(), body, "pieces of {size}");
        }
    }
}
