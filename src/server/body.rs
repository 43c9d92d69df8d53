//! Reads a request body and enforces its limits: the source's `max_body`, the in-flight budgets and the deadline.
//!
//! hookhold charges each piece of a body to the in-flight budgets when the piece arrives, before buffering the piece. hookhold
//! reserves no memory for an announced length. hookhold does not copy a body that arrives in one piece. If a body arrives in
//! several pieces, hookhold copies the pieces into one buffer. Without this copy, a sender of one-byte chunks could make each
//! chunk occupy a whole read buffer.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::deadline::Progress;
use crate::outcome::Outcome;

/// Limit on the number of request-body bytes in memory, and the current number of these bytes.
pub(super) struct InFlightBudget {
    limit: usize,
    used: AtomicUsize,
}

impl InFlightBudget {
    pub(super) fn new(limit: usize) -> InFlightBudget {
        InFlightBudget { limit, used: AtomicUsize::new(0) }
    }

    /// Adds `bytes` to the number of request-body bytes in memory. Returns the previous number, and true if the new number
    /// exceeds the limit.
    fn add(&self, bytes: usize) -> (usize, bool) {
        let before = self.used.fetch_add(bytes, Relaxed);
        (before, before.saturating_add(bytes) > self.limit)
    }
}

/// Number of body bytes that one request has charged to two in-flight budgets: the server's budget and the budget of the
/// sender's address. Dropping the charge releases these bytes in both budgets. hookhold rejects a request that exceeds a
/// budget. Exception: an address may send one large body beyond its budget if the total size of its other bodies in memory is
/// at most the size of the large body. Large bodies from one address therefore complete one at a time. While such a body is in memory, another
/// request that exceeds the address's budget gets the outcome `rate_limited`.
pub(super) struct InFlightCharge<'a> {
    server: &'a InFlightBudget,
    address: &'a InFlightBudget,
    bytes: usize,
}

impl<'a> InFlightCharge<'a> {
    pub(super) fn new(server: &'a InFlightBudget, address: &'a InFlightBudget) -> InFlightCharge<'a> {
        InFlightCharge { server, address, bytes: 0 }
    }

    /// Returns the number of body bytes that the request has charged so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, bytes: usize) -> Result<(), Outcome> {
        let (_, server_exceeded) = self.server.add(bytes);
        let (before, address_exceeded) = self.address.add(bytes);
        let is_largest = self.bytes >= before - self.bytes;
        self.bytes += bytes;
        match (address_exceeded && !is_largest, server_exceeded) {
            (true, _) => Err(Outcome::RateLimited),
            (_, true) => Err(Outcome::Overloaded),
            _ => Ok(()),
        }
    }
}

impl Drop for InFlightCharge<'_> {
    fn drop(&mut self) {
        self.server.used.fetch_sub(self.bytes, Relaxed);
        self.address.used.fetch_sub(self.bytes, Relaxed);
    }
}

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
        if charge.bytes + piece.len() > limit {
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
    fn a_charge_beyond_the_budget_is_rejected_and_returned() {
        let (server, [one, other]) = (InFlightBudget::new(10), [(); 2].map(|()| InFlightBudget::new(10)));
        let mut first = InFlightCharge::new(&server, &one);
        assert_eq!(first.add(6), Ok(()));
        let mut second = InFlightCharge::new(&server, &other);
        assert_eq!(second.add(5), Err(Outcome::Overloaded));
        drop(second);
        assert_eq!(first.add(4), Ok(()));
        drop(first);
        assert_eq!([server, one, other].map(|budget| budget.used.into_inner()), [0; 3]);
    }

    #[test]
    fn only_the_largest_body_may_exceed_its_address_budget() {
        let (server, address) = (InFlightBudget::new(100), InFlightBudget::new(10));
        let mut first = InFlightCharge::new(&server, &address);
        assert_eq!((first.add(6), first.add(6)), (Ok(()), Ok(())));
        let mut second = InFlightCharge::new(&server, &address);
        assert_eq!(second.add(1), Err(Outcome::RateLimited));
        drop(second);
        assert_eq!(first.add(6), Ok(()));
    }

    #[test]
    fn a_body_in_one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 100]);
        assert_eq!(BodyBuffer::Empty.append(piece.clone()).into_bytes().as_ptr(), piece.as_ptr());
        assert_eq!(BodyBuffer::Empty.append(piece.slice(..40)).append(piece.slice(40..)).into_bytes(), piece);
    }
}
