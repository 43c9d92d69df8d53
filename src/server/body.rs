//! Reads a request body under three limits: the source's `max_body`, the budget of bytes in flight, and time.
//!
//! Every byte is charged to the budget as it arrives, before it is stored; a claimed length reserves nothing. A body that
//! comes in one piece is never copied. Later pieces are copied together at once: keeping them apart would let a sender of
//! one-byte chunks pin a whole read buffer with each of them.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::wire::Progress;
use crate::event::Outcome;

/// Bytes of request bodies that are held at one time, over all connections.
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, used: AtomicUsize::new(0) })
    }

    /// An empty charge; it gives everything back when it is dropped.
    pub(super) fn charge(self: &Arc<Budget>) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }
}

/// One request's share of the [`Budget`].
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    fn add(&mut self, bytes: usize) -> Result<(), Outcome> {
        let before = self.budget.used.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
        if before.saturating_add(bytes) > self.budget.limit { Err(Outcome::Overloaded) } else { Ok(()) }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// Reads `body` to its end; an error is how the request ends instead.
pub(super) async fn read(body: &mut Incoming, limit: usize, charge: &mut Charge, progress: &Progress) -> Result<Bytes, Outcome> {
    let mut whole = Whole::Empty;
    while !body.is_end_stream() {
        let Some(piece) = next(body, progress).await? else { break };
        if charge.bytes + piece.len() > limit {
            return Err(Outcome::TooLarge);
        }
        charge.add(piece.len())?;
        whole = whole.and(piece);
    }
    Ok(whole.into_bytes())
}

/// The next piece of the body; `None` at its end. Trailers are read and forgotten: nobody signs them.
async fn next(body: &mut Incoming, progress: &Progress) -> Result<Option<Bytes>, Outcome> {
    match progress.unless_cut(body.frame()).await? {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) => Err(broken(&error)),
    }
}

/// Bad framing is the sender's mistake; everything else means that it is gone.
fn broken(error: &hyper::Error) -> Outcome {
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => Outcome::BadRequest,
        _ => Outcome::Disconnected,
    }
}

enum Whole {
    Empty,
    One(Bytes),
    Joined(BytesMut),
}

impl Whole {
    fn and(self, piece: Bytes) -> Whole {
        match self {
            Whole::Empty => Whole::One(piece),
            Whole::One(first) => {
                let mut joined = BytesMut::with_capacity(2 * (first.len() + piece.len()));
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&piece);
                Whole::Joined(joined)
            }
            Whole::Joined(mut joined) => {
                joined.extend_from_slice(&piece);
                Whole::Joined(joined)
            }
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Whole::Empty => Bytes::new(),
            Whole::One(piece) => piece,
            Whole::Joined(joined) => joined.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_beyond_the_budget_is_refused_and_given_back() {
        let budget = Budget::new(10);
        let mut first = budget.charge();
        assert_eq!(first.add(6), Ok(()));
        let mut second = budget.charge();
        assert_eq!(second.add(5), Err(Outcome::Overloaded));
        drop(second);
        assert_eq!(first.add(4), Ok(()));
        drop(first);
        assert_eq!(budget.used.load(Relaxed), 0);
    }

    #[test]
    fn a_body_in_one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 100]);
        assert_eq!(Whole::Empty.and(piece.clone()).into_bytes().as_ptr(), piece.as_ptr());
        assert_eq!(Whole::Empty.and(piece.slice(..40)).and(piece.slice(40..)).into_bytes(), piece);
    }
}
