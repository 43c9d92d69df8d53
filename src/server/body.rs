//! Reads a request body and enforces its limits: the source's `max_body`, the in-flight budgets and the deadline.
//!
//! hookhold charges each piece of a body to the in-flight budgets when the piece arrives, before buffering the piece. hookhold
//! reserves no memory for an announced length. hookhold does not copy a body that arrives in one piece. If a body arrives in
//! several pieces, hookhold copies the pieces into one buffer. Without this copy, a sender of one-byte chunks could make each
//! chunk occupy a whole read buffer.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};

use super::deadline::Progress;
use crate::in_flight::InFlightCharge;
use crate::outcome::Outcome;

/// Reads the rest of a request's body, and returns the whole body. `arrived` contains the pieces that have already been read. If
/// the read fails or the body exceeds a limit, the error is the outcome of the request.
pub(super) async fn read(
    body: &mut Incoming,
    mut arrived: BodyBuffer,
    limit: usize,
    charge: &mut InFlightCharge<'_>,
    progress: &Progress,
) -> Result<Bytes, Outcome> {
    while !is_complete(body) {
        let frame = progress.unless_cut(body.frame()).await?;
        if !arrived.add(frame, body, limit, charge, progress)? {
            break;
        }
    }
    Ok(arrived.into_bytes())
}

/// Reads the pieces of a body that have already arrived, without waiting. A small body usually arrives together with the head.
pub(super) async fn read_arrived(
    body: &mut Incoming,
    limit: usize,
    charge: &mut InFlightCharge<'_>,
    progress: &Progress,
) -> Result<BodyBuffer, Outcome> {
    let mut arrived = BodyBuffer::Empty;
    while !is_complete(body) {
        let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut *body).poll_frame(context))).await;
        let Poll::Ready(frame) = polled else { break };
        if !arrived.add(frame, body, limit, charge, progress)? {
            break;
        }
    }
    Ok(arrived)
}

/// Returns true if the body has ended or has reached its announced length. The length check is necessary because an
/// HTTP/2 stream reports an error instead of its end if the sender disconnects after the last body byte.
pub(super) fn is_complete(body: &Incoming) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// Returns the outcome of a request whose body hookhold cannot read: `bad_request` if the HTTP framing is malformed,
/// otherwise `disconnected`.
fn outcome_of(error: &hyper::Error) -> Outcome {
    let Some(cause) = error.source() else { return Outcome::Disconnected };
    let io_kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    let is_malformed = matches!(io_kind, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput));
    // The HTTP/2 library resets a stream whose body is longer or shorter than its content-length.
    let is_reset_by_us = cause.downcast_ref::<h2::Error>().is_some_and(|error| error.is_reset() && error.is_library());
    if is_malformed || is_reset_by_us { Outcome::BadRequest } else { Outcome::Disconnected }
}

/// Received pieces of one request body.
pub(super) enum BodyBuffer {
    Empty,
    OnePiece(Bytes),
    Joined(BytesMut),
}

impl BodyBuffer {
    /// Charges and adds the next frame of `body`. Returns false at the end of the body. Discards HTTP trailers, because no
    /// provider signs trailers.
    fn add(
        &mut self,
        frame: Option<Result<Frame<Bytes>, hyper::Error>>,
        body: &Incoming,
        limit: usize,
        charge: &mut InFlightCharge<'_>,
        progress: &Progress,
    ) -> Result<bool, Outcome> {
        let piece = match frame {
            None => return Ok(false),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(outcome_of(&error)),
        };
        if charge.received() + piece.len() > limit {
            return Err(Outcome::TooLarge);
        }
        charge.add(piece.len())?;
        if !body.is_end_stream() {
            progress.body_received(piece.len());
        }
        *self = std::mem::replace(self, BodyBuffer::Empty).append(piece);
        Ok(true)
    }

    fn append(self, piece: Bytes) -> BodyBuffer {
        match self {
            BodyBuffer::Empty => BodyBuffer::OnePiece(piece),
            BodyBuffer::OnePiece(first) => {
                let mut joined = BytesMut::with_capacity(2 * (first.len() + piece.len()));
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&piece);
                BodyBuffer::Joined(joined)
            }
            BodyBuffer::Joined(mut joined) => {
                joined.extend_from_slice(&piece);
                BodyBuffer::Joined(joined)
            }
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            BodyBuffer::Empty => Bytes::new(),
            BodyBuffer::OnePiece(piece) => piece,
            BodyBuffer::Joined(joined) => joined.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 100]);
        assert_eq!(BodyBuffer::Empty.append(piece.clone()).into_bytes().as_ptr(), piece.as_ptr());
        assert_eq!(BodyBuffer::Empty.append(piece.slice(..40)).append(piece.slice(40..)).into_bytes(), piece);
    }
}
