//! The tasks of one HTTP/2 connection, and how long it may be idle.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::close::LINGER;
use super::note_panic;
use crate::limits::ServerLimits;

/// The tasks of one connection: what hyper does for each stream, and the requests.
#[derive(Clone)]
pub(super) struct Tasks(Arc<Inner>);

struct Inner {
    /// Under a lock of its own: a runtime that has ended drops what is spawned there and then.
    set: Mutex<JoinSet<()>>,
    idle: Mutex<IdleTimer>,
}

/// Decides when a connection is idle for so long that it is closed.
struct IdleTimer {
    activity: Activity,
    /// When `activity` last changed, or when leaving began.
    since: Instant,
    leaving: bool,
    idle_timeout: Duration,
    request_deadline: Duration,
}

enum Activity {
    /// No request has been made yet.
    Unused,
    /// These requests are not answered yet.
    Busy(NonZeroUsize),
    /// Every request has been answered.
    Idle,
}

impl IdleTimer {
    fn new(limits: &ServerLimits) -> IdleTimer {
        let ServerLimits { idle_timeout, request_deadline, .. } = *limits;
        IdleTimer { activity: Activity::Unused, since: Instant::now(), leaving: false, idle_timeout, request_deadline }
    }

    fn begin(&mut self) {
        self.activity = Activity::Busy(match self.activity {
            Activity::Busy(open) => open.saturating_add(1),
            Activity::Unused | Activity::Idle => NonZeroUsize::MIN,
        });
    }

    fn end(&mut self) {
        self.activity = match self.activity {
            Activity::Busy(open) => NonZeroUsize::new(open.get() - 1).map_or(Activity::Idle, Activity::Busy),
            Activity::Unused | Activity::Idle => Activity::Idle,
        };
        self.since = Instant::now();
    }

    /// Anew, since a request may be on its way that was sent before the client could know.
    fn leave(&mut self) {
        self.leaving = true;
        self.since = Instant::now();
    }

    /// Who has just connected has the time of a request, not that of an idle connection, to begin its first one.
    fn due(&self) -> Instant {
        let since = if let Activity::Busy(_) = self.activity { Instant::now() } else { self.since };
        since
            + match self.activity {
                _ if self.leaving => LINGER,
                Activity::Unused => self.idle_timeout.min(self.request_deadline),
                Activity::Busy(_) | Activity::Idle => self.idle_timeout,
            }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, work: F) {
        self.spawn(work);
    }
}

impl Tasks {
    pub(super) fn new(limits: &ServerLimits) -> Tasks {
        Tasks(Arc::new(Inner { set: Mutex::default(), idle: Mutex::new(IdleTimer::new(limits)) }))
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
            let due = self.idle_timer().due();
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
        self.idle_timer().leave();
    }

    /// There has been a request.
    pub(super) fn asked(&self) -> bool {
        !matches!(self.idle_timer().activity, Activity::Unused)
    }

    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle_timer(&self) -> MutexGuard<'_, IdleTimer> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
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
        tasks.idle_timer().begin();
        Open(tasks)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.idle_timer().end();
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
            let tasks = Tasks::new(&ServerLimits::default());
            let open = Open::new(tasks.clone());
            tasks.spawn(async move { drop(open) });
            tell.send(matches!(tasks.idle_timer().activity, Activity::Idle))
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(true), "nobody waits for a lock that he holds himself");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_has_its_last_moments_from_the_beginning_of_a_drain() {
        let tasks = Tasks::new(&ServerLimits::default());
        advance(LINGER * 10).await;
        tasks.idle_timer().leave();
        let left = Instant::now();
        tasks.idle().await;
        assert_eq!(left.elapsed(), LINGER);
    }
}
