//! Reads a request body under its limits: the source's `max_body`, the budgets of bytes in flight, and time.
//!
//! Every byte is charged to the budgets as it arrives, before it is stored; a claimed length reserves nothing. A body that
//! comes in one piece is never copied. Later pieces are copied together at once: keeping them apart would let a sender of
//! one-byte chunks pin a whole read buffer with each of them.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::deadline::Progress;
use crate::outcome::Outcome;

/// Bytes of request bodies that are held at one time.
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Budget {
        Budget { limit, used: AtomicUsize::new(0) }
    }

    /// What was used before, and whether it is used up now.
    fn add(&self, bytes: usize) -> (usize, bool) {
        let before = self.used.fetch_add(bytes, Relaxed);
        (before, before.saturating_add(bytes) > self.limit)
    }
}

/// What one request holds of the budget of all and of that of its address; it gives everything back when it is dropped.
///
/// A body that is at least as large as all others of its address together may exceed the address's budget: whoever sends
/// large bodies gets one through at a time, and it is the newcomer that is told to come again.
pub(super) struct Charge<'a> {
    all: &'a Budget,
    address: &'a Budget,
    bytes: usize,
}

impl<'a> Charge<'a> {
    /// Nothing yet.
    pub(super) fn new(all: &'a Budget, address: &'a Budget) -> Charge<'a> {
        Charge { all, address, bytes: 0 }
    }

    /// The bytes of the body that have come.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, bytes: usize) -> Result<(), Outcome> {
        let (_, all_used) = self.all.add(bytes);
        let (before, address_used) = self.address.add(bytes);
        let largest = self.bytes >= before - self.bytes;
        self.bytes += bytes;
        match (address_used && !largest, all_used) {
            (true, _) => Err(Outcome::RateLimited),
            (_, true) => Err(Outcome::Overloaded),
            _ => Ok(()),
        }
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.all.used.fetch_sub(self.bytes, Relaxed);
        self.address.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// Reads `body` to its end; an error is how the request ends instead.
pub(super) async fn read(
    body: &mut Incoming,
    limit: usize,
    charge: &mut Charge<'_>,
    progress: &Progress,
) -> Result<Bytes, Outcome> {
    let mut whole = Whole::Empty;
    while !is_complete(body) {
        let Some(piece) = next(body, progress).await? else { break };
        if charge.bytes + piece.len() > limit {
            return Err(Outcome::TooLarge);
        }
        charge.add(piece.len())?;
        if !body.is_end_stream() {
            progress.body_came(piece.len());
        }
        whole = whole.and(piece);
    }
    Ok(whole.into_bytes())
}

/// True once the announced length has come: over HTTP/2 a sender that then hangs up makes its stream fail, not end.
fn is_complete(body: &Incoming) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
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
        let (all, [one, other]) = (Budget::new(10), [(); 2].map(|()| Budget::new(10)));
        let mut first = Charge::new(&all, &one);
        assert_eq!(first.add(6), Ok(()));
        let mut second = Charge::new(&all, &other);
        assert_eq!(second.add(5), Err(Outcome::Overloaded));
        drop(second);
        assert_eq!(first.add(4), Ok(()));
        drop(first);
        assert_eq!([all, one, other].map(|budget| budget.used.into_inner()), [0; 3]);
    }

    #[test]
    fn an_address_may_exceed_its_budget_with_its_largest_body_only() {
        let (all, address) = (Budget::new(100), Budget::new(10));
        let mut first = Charge::new(&all, &address);
        assert_eq!((first.add(6), first.add(6)), (Ok(()), Ok(())));
        let mut second = Charge::new(&all, &address);
        assert_eq!(second.add(1), Err(Outcome::RateLimited));
        drop(second);
        assert_eq!(first.add(6), Ok(()));
    }

    #[test]
    fn a_body_in_one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 100]);
        assert_eq!(Whole::Empty.and(piece.clone()).into_bytes().as_ptr(), piece.as_ptr());
        assert_eq!(Whole::Empty.and(piece.slice(..40)).and(piece.slice(40..)).into_bytes(), piece);
    }
}
