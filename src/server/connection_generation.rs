//! Tells older connections apart from newer ones, so that the server can wait until all older ones are closed.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// The current generation of connections.
#[derive(Default)]
pub(super) struct ConnectionGeneration(Mutex<watch::Sender<()>>);

/// Membership of a connection in its generation. The connection must hold it until it is closed.
pub(super) struct GenerationMember(
    #[allow(dead_code, reason = "its drop tells that the connection is closed")] watch::Receiver<()>,
);

impl ConnectionGeneration {
    /// Adds a connection to the current generation.
    pub(super) fn join(&self) -> GenerationMember {
        GenerationMember(self.0.lock().unwrap_or_else(PoisonError::into_inner).subscribe())
    }

    /// Starts the next generation. Returns a future that waits until every connection of the earlier one is closed.
    pub(super) fn end(&self) -> impl Future<Output = ()> + use<> {
        let earlier = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        async move { earlier.closed().await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Poll;

    #[tokio::test]
    async fn newer_connections_do_not_delay_the_end_of_a_generation() {
        let generation = ConnectionGeneration::default();
        let older = [generation.join(), generation.join()];
        let mut ended = pin!(generation.end());
        let _newer = generation.join();
        assert_eq!(poll_once(ended.as_mut()).await, Poll::Pending);
        drop(older);
        ended.await;
    }

    async fn poll_once(mut future: std::pin::Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
    }
}
