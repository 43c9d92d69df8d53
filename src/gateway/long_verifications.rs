//! Runs long verifications on blocking threads, at most one at a time for each processor. Further verifications wait in tasks of
//! their own, so that a sender that disconnects cannot cancel them.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use tokio::sync::{Semaphore, oneshot};

/// Limits on the number of long verifications.
pub(super) struct LongVerifications {
    /// Places for verifications that run or wait.
    places: Arc<Semaphore>,
    /// The part of these places that is available to the deliveries of addresses that are not known good.
    unknown_places: Arc<Semaphore>,
    /// Permits for verifications that run.
    threads: Arc<Semaphore>,
}

impl LongVerifications {
    pub(super) fn new() -> LongVerifications {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        LongVerifications {
            places: semaphore(MAX_LONG),
            unknown_places: semaphore(MAX_LONG_UNKNOWN),
            threads: semaphore(threads),
        }
    }

    /// Starts a verification, and returns the receiver for its result. Dropping the receiver does not cancel the verification,
    /// whose result then goes to `unanswered`. Returns `None` if [`MAX_LONG`] verifications run or wait. If `is_known_good` is false,
    /// also returns `None` if [`MAX_LONG_UNKNOWN`] verifications for such addresses run or wait.
    pub(super) fn run<T: Send + 'static>(
        &self,
        is_known_good: bool,
        verification: impl FnOnce() -> T + Send + 'static,
        unanswered: impl FnOnce(T) + Send + 'static,
    ) -> Option<oneshot::Receiver<T>> {
        let unknown_place = match is_known_good {
            true => None,
            false => Some(self.unknown_places.clone().try_acquire_owned().ok()?),
        };
        let place = self.places.clone().try_acquire_owned().ok()?;
        let (sender, receiver) = oneshot::channel();
        let threads = self.threads.clone();
        tokio::spawn(async move {
            let thread = threads.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                // The receiver is gone if the sender has disconnected or the deadline has passed.
                if let Err(result) = sender.send(verification()) {
                    unanswered(result);
                }
                drop((thread, place, unknown_place));
            });
        });
        Some(receiver)
    }
}

/// Maximum number of long verifications that run or wait. The bodies of all of them also count towards `max_in_flight`.
const MAX_LONG: usize = 1_024;
/// Maximum number of long verifications for addresses that are not known good. A quarter of the places is reserved for the others.
const MAX_LONG_UNKNOWN: usize = MAX_LONG - MAX_LONG / 4;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_rejects_the_next_verification() {
        let long = LongVerifications::new();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let wait = |held: &Arc<std::sync::Mutex<mpsc::Receiver<()>>>| {
            let held = held.clone();
            move || held.lock().is_ok_and(|held| held.recv().is_err())
        };
        let run = |is_known_good| (0..=MAX_LONG).map_while(|_| long.run(is_known_good, wait(&held), drop)).collect::<Vec<_>>();
        let (unknown, known_good) = (run(false), run(true));
        assert_eq!((unknown.len(), known_good.len()), (768, 256), "a quarter of the places is reserved for known-good addresses");
        drop(release);
        for result in unknown.into_iter().chain(known_good) {
            assert_eq!(result.await, Ok(true));
        }
        assert_eq!(long.run(false, || 7, drop).expect("the places are free again").await, Ok(7));
    }

    #[tokio::test]
    async fn a_dropped_receiver_cancels_nothing() {
        let long = LongVerifications::new();
        let (sender, receiver) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        let verification = move || held.recv().map_or(7, |()| 0);
        drop(long.run(false, verification, move |result| assert_eq!(sender.send(result), Ok(()))));
        drop(release);
        let received = tokio::task::spawn_blocking(move || receiver.recv());
        assert_eq!(received.await.expect("it does not panic"), Ok(7));
    }

    #[tokio::test]
    async fn at_most_one_verification_runs_per_processor() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let (long, running, most) = (LongVerifications::new(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let start = |_| {
            let (running, most) = (running.clone(), most.clone());
            let verification = move || {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                thread::yield_now();
                running.fetch_sub(1, SeqCst);
            };
            long.run(false, verification, drop)
        };
        let all: Vec<_> = (0..200).filter_map(start).collect();
        for result in all {
            assert_eq!(result.await, Ok(()));
        }
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        assert!((1..=threads).contains(&most.load(SeqCst)), "{most:?} of {threads}");
    }
}
