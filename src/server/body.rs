//! Reads a request body and enforces its limits: the source's `max_body`, the in-flight budgets and the deadline.
//!
//! hookhold charges each piece of a body to the in-flight budgets when the piece arrives, before buffering the piece. hookhold
//! reserves no memory for an announced length. hookhold does not copy a body that arrives in one piece. If a body arrives in
//! several pieces, hookhold copies the pieces into one buffer. Without this copy, a sender of one-byte chunks could make each
//! chunk occupy a whole read buffer.

use std::error::Error;
use std::io;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::deadline::Progress;
use crate::in_flight::InFlightCharge;
use crate::outcome::Outcome;

/// Reads and returns the whole body of a request. If the read fails or the body exceeds a limit, the error is the
/// outcome of the request.
pub(super) async fn read(
    body: &mut Incoming,
    limit: usize,
    charge: &mut InFlightCharge<'_>,
    progress: &Progress,
) -> Result<Bytes, Outcome> {
    let mut buffer = BodyBuffer::Empty;
    while !is_complete(body) {
        let Some(piece) = next(body, progress).await? else { break };
        if charge.received() + piece.len() > limit {
            return Err(Outcome::TooLarge);
        }
        charge.add(piece.len())?;
        if !body.is_end_stream() {
            progress.body_received(piece.len());
        }
        buffer = buffer.append(piece);
    }
    Ok(buffer.into_bytes())
}

/// Returns true if the body has ended or has reached its announced length. The length check is necessary because an
/// HTTP/2 stream reports an error instead of its end if the sender disconnects after the last body byte.
fn is_complete(body: &Incoming) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// Returns the next piece of the body; `None` at the end of the body. Discards HTTP trailers, because no provider signs
/// trailers.
async fn next(body: &mut Incoming, progress: &Progress) -> Result<Option<Bytes>, Outcome> {
    match progress.unless_cut(body.frame()).await? {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) => Err(outcome_of(&error)),
    }
}

/// Returns the outcome of a request whose body hookhold cannot read: `bad_request` if the HTTP framing is malformed,
/// otherwise `disconnected`.
fn outcome_of(error: &hyper::Error) -> Outcome {
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => Outcome::BadRequest,
        _ => Outcome::Disconnected,
    }
}

/// Received pieces of one request body.
enum BodyBuffer {
    Empty,
    OnePiece(Bytes),
    Joined(BytesMut),
}

impl BodyBuffer {
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
