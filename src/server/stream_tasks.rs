//! The tasks of one HTTP/2 connection, and how long it may be idle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::close::LINGER;
use super::{Limits, note_panic};

/// The tasks of one connection: what hyper does for each stream, and the requests.
#[derive(Clone)]
pub(super) struct Tasks(Arc<Inner>);

struct Inner {
    /// Under a lock of its own: a runtime that has ended drops what is spawned there and then.
    set: Mutex<JoinSet<()>>,
    rest: Mutex<Rest>,
}

/// Since when nothing is asked, and how long that is borne.
struct Rest {
    /// Requests that are not answered yet.
    open: usize,
    /// When the last one was answered, the connection was opened, or leaving began.
    since: Instant,
    asked: bool,
    leaving: bool,
    idle_timeout: Duration,
    request_deadline: Duration,
}

impl Rest {
    fn new(limits: &Limits) -> Rest {
        let Limits { idle_timeout, request_deadline, .. } = *limits;
        Rest { open: 0, since: Instant::now(), asked: false, leaving: false, idle_timeout, request_deadline }
    }

    fn begin(&mut self) {
        self.open += 1;
        self.asked = true;
    }

    fn end(&mut self) {
        self.open -= 1;
        self.since = Instant::now();
    }

    /// Anew, since a request may be on its way that was sent before the client could know.
    fn leave(&mut self) {
        self.leaving = true;
        self.since = Instant::now();
    }

    fn due(&self) -> Instant {
        let since = if self.open == 0 { self.since } else { Instant::now() };
        since + self.patience()
    }

    /// Who has just connected has the time of a request, not that of an idle connection, to begin its first one.
    fn patience(&self) -> Duration {
        match self.asked {
            _ if self.leaving => LINGER,
            true => self.idle_timeout,
            false => self.idle_timeout.min(self.request_deadline),
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, work: F) {
        self.spawn(work);
    }
}

impl Tasks {
    pub(super) fn new(limits: &Limits) -> Tasks {
        Tasks(Arc::new(Inner { set: Mutex::default(), rest: Mutex::new(Rest::new(limits)) }))
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set();
        while let Some(ended) = set.try_join_next() {
            note_panic(ended);
        }
        set.spawn(work);
    }

    /// Waits until no request has been under way for as long as that is borne. What else the client sends does not count.
    pub(super) async fn idle(&self) {
        loop {
            let due = self.rest().due();
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// Waits for all of them, once the connection is gone.
    pub(super) async fn ended(&self) {
        let mut set = std::mem::take(&mut *self.set());
        while let Some(ended) = set.join_next().await {
            note_panic(ended);
        }
    }

    /// Begins to leave.
    pub(super) fn leave(&self) {
        self.rest().leave();
    }

    /// There has been a request.
    pub(super) fn asked(&self) -> bool {
        self.rest().asked
    }

    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.0.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the tasks of a connection that is given up: each of them holds the set that holds them all.
pub(super) struct Owner(pub Tasks);

impl Drop for Owner {
    fn drop(&mut self) {
        let set = std::mem::take(&mut *self.0.set());
        drop(set); // not under the lock: what it ends may be spawning
    }
}

/// A request under way.
pub(super) struct Open(Tasks);

impl Open {
    pub(super) fn new(tasks: Tasks) -> Open {
        tasks.rest().begin();
        Open(tasks)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.rest().end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;
    use tokio::time::advance;

    #[test]
    fn a_request_that_a_closed_runtime_does_not_take_has_ended() {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built");
            let closed = runtime.handle().clone();
            drop(runtime);
            let _inside = closed.enter();
            let tasks = Tasks::new(&Limits::default());
            let open = Open::new(tasks.clone());
            tasks.spawn(async move { drop(open) });
            tell.send(tasks.rest().open)
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(0), "nobody waits for a lock that he holds himself");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_has_its_last_moments_from_the_beginning_of_a_drain() {
        let tasks = Tasks::new(&Limits::default());
        advance(LINGER * 10).await;
        tasks.rest().leave();
        let left = Instant::now();
        tasks.idle().await;
        assert_eq!(left.elapsed(), LINGER);
    }
}
