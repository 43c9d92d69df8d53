//! Owns the tasks of one HTTP/2 connection, and tracks how long the connection has been idle.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::rt::Executor;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::close::LINGER_TIMEOUT;
use super::idle::{ConnectionGrowth, GROWN_IDLE_TIMEOUT, IdleTimeouts};
use super::report_panic;
use crate::in_flight::DetachedCharge;
use crate::limits::ServerLimits;

/// Handle to the tasks of one HTTP/2 connection. A clone is cheap and refers to the same tasks. hyper spawns a task for
/// each stream, and the server spawns a task for each request.
#[derive(Clone)]
pub(super) struct StreamTasks(Arc<ConnectionStreams>);

struct ConnectionStreams {
    /// Set of tasks. The lock is separate from the lock of `idle`, because one common lock could deadlock. After the
    /// runtime has shut down, `spawn` drops the new task while holding this lock, and dropping the task of a request
    /// locks `idle`.
    tasks: Mutex<JoinSet<()>>,
    idle: Mutex<IdleTimer>,
    /// Number of requests whose response is ready.
    ended: AtomicU64,
    unsent: UnsentResponses,
}

/// Charges for the large responses that h2 has not yet written.
#[derive(Default)]
struct UnsentResponses {
    charges: Mutex<Vec<DetachedCharge>>,
    /// True if `charges` is not empty. Large responses are rare, so the driver usually needs no lock.
    has_some: AtomicBool,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamTasks {
    fn execute(&self, work: F) {
        self.spawn(work);
    }
}

impl StreamTasks {
    pub(super) fn new(limits: &ServerLimits) -> StreamTasks {
        let (tasks, idle) = (Mutex::default(), Mutex::new(IdleTimer::new(limits)));
        StreamTasks(Arc::new(ConnectionStreams { tasks, idle, ended: AtomicU64::new(0), unsent: UnsentResponses::default() }))
    }

    /// Starts a task. The set holds the memory of an ended task until the next call of this function or until the end of the
    /// connection. The future is therefore in a box of its own, which is released when the task ends.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let work = Box::pin(work);
        let mut tasks = self.tasks();
        while let Some(ended) = tasks.try_join_next() {
            report_panic(ended);
        }
        tasks.spawn(work);
    }

    /// Waits until the connection has reached its idle timeout. HTTP/2 frames that belong to no request do not restart
    /// the idle time. `is_trusted` returns true if the connection may stay open without a request for
    /// `trusted_idle_timeout`.
    pub(super) async fn idle(&self, is_trusted: impl Fn(Instant) -> bool) {
        loop {
            let deadline = self.idle_timer().deadline(is_trusted(Instant::now()));
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    /// Waits until all tasks of the connection have ended. The caller must close the connection first.
    pub(super) async fn all_ended(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        while let Some(ended) = tasks.join_next().await {
            report_panic(ended);
        }
    }

    /// Restarts the idle time after the server has sent GOAWAY, and shortens the idle timeout to [`LINGER_TIMEOUT`].
    pub(super) fn goaway_sent(&self) {
        self.idle_timer().goaway_sent();
    }

    /// Shortens the idle timeout of an unknown sender, because the connection has grown.
    pub(super) fn connection_grown(&self) {
        self.idle_timer().growth = ConnectionGrowth::Grown;
    }

    /// Holds the charge for a large response until h2 has written the response.
    pub(super) fn hold(&self, charge: DetachedCharge) {
        let mut charges = self.unsent();
        charges.push(charge);
        self.0.unsent.has_some.store(true, Relaxed);
    }

    /// Returns the charges for the responses that h2 writes next. The caller must pass them to [`StreamTasks::hold`] again if h2
    /// cannot write all of them.
    pub(super) fn take_unsent(&self) -> Vec<DetachedCharge> {
        if !self.0.unsent.has_some.load(Relaxed) {
            return Vec::new();
        }
        let mut charges = self.unsent();
        self.0.unsent.has_some.store(false, Relaxed);
        std::mem::take(&mut charges)
    }

    fn unsent(&self) -> MutexGuard<'_, Vec<DetachedCharge>> {
        self.0.unsent.charges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of requests whose response is ready.
    pub(super) fn ended(&self) -> u64 {
        self.0.ended.load(Relaxed)
    }

    /// Returns true if this connection has carried a request.
    pub(super) fn had_request(&self) -> bool {
        !matches!(self.idle_timer().activity, Activity::Unused)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle_timer(&self) -> MutexGuard<'_, IdleTimer> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard that aborts the tasks of a connection when the guard is dropped. The set of all tasks owns each task, and each
/// task owns a handle to the set. Without this guard, the set and its unfinished tasks would therefore never be
/// dropped.
pub(super) struct AbortOnDrop(pub(super) StreamTasks);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut *self.0.tasks());
        drop(tasks); // outside the lock, because an aborted task may be spawning another
    }
}

/// Guard that counts a request as active until the guard is dropped.
pub(super) struct ActiveRequest(StreamTasks);

impl ActiveRequest {
    pub(super) fn new(tasks: StreamTasks) -> ActiveRequest {
        tasks.idle_timer().request_started();
        ActiveRequest(tasks)
    }
}

impl ActiveRequest {
    /// Returns the tasks of the request's connection.
    pub(super) fn tasks(&self) -> StreamTasks {
        self.0.clone()
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.idle_timer().request_ended();
        self.0.0.ended.fetch_add(1, Relaxed);
    }
}

/// Phase of an HTTP/2 connection. A connection never returns to the earlier phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    /// The client may send requests.
    Open,
    /// The server has sent GOAWAY, and closes the connection after its requests have ended.
    Leaving,
}

/// Timer that measures how long a connection has been idle.
struct IdleTimer {
    phase: ConnectionPhase,
    growth: ConnectionGrowth,
    activity: Activity,
    /// Start of the current idle time: the creation of the connection, the end of its last request, or the moment at
    /// which the server sent GOAWAY.
    since: Instant,
    timeouts: IdleTimeouts,
}

enum Activity {
    /// The connection has not carried a request.
    Unused,
    /// The connection has requests without a response. The value is the number of these requests.
    Busy(NonZeroUsize),
    /// Every request on the connection has received its response.
    Idle,
}

impl IdleTimer {
    fn new(limits: &ServerLimits) -> IdleTimer {
        let timeouts = IdleTimeouts::new(limits);
        let (phase, growth, activity) = (ConnectionPhase::Open, ConnectionGrowth::Usual, Activity::Unused);
        IdleTimer { phase, growth, activity, since: Instant::now(), timeouts }
    }

    fn request_started(&mut self) {
        self.activity = Activity::Busy(match self.activity {
            Activity::Busy(active) => active.saturating_add(1),
            Activity::Unused | Activity::Idle => NonZeroUsize::MIN,
        });
    }

    fn request_ended(&mut self) {
        self.activity = match self.activity {
            Activity::Busy(active) => NonZeroUsize::new(active.get() - 1).map_or(Activity::Idle, Activity::Busy),
            Activity::Unused | Activity::Idle => Activity::Idle,
        };
        self.since = Instant::now();
    }

    /// Restarts the idle time after the server has sent GOAWAY, because the client may have sent a request before it
    /// received the GOAWAY.
    fn goaway_sent(&mut self) {
        self.phase = ConnectionPhase::Leaving;
        self.since = Instant::now();
    }

    /// Returns the time at which the connection reaches its idle timeout.
    fn deadline(&self, is_trusted: bool) -> Instant {
        let since = if let Activity::Busy(_) = self.activity { Instant::now() } else { self.since };
        since
            + match (self.phase, &self.activity, self.growth) {
                (ConnectionPhase::Leaving, ..) => LINGER_TIMEOUT,
                (ConnectionPhase::Open, Activity::Unused, _) => self.timeouts.before_first_request(is_trusted),
                (ConnectionPhase::Open, _, ConnectionGrowth::Grown) if !is_trusted => GROWN_IDLE_TIMEOUT,
                (ConnectionPhase::Open, Activity::Busy(_) | Activity::Idle, _) => self.timeouts.between_requests(is_trusted),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;
    use tokio::time::advance;

    #[test]
    fn a_request_that_a_closed_runtime_drops_has_ended() {
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built");
            let closed = runtime.handle().clone();
            drop(runtime);
            let _inside = closed.enter();
            let tasks = StreamTasks::new(&ServerLimits::default());
            let active = ActiveRequest::new(tasks.clone());
            tasks.spawn(async move { drop(active) });
            sender.send(matches!(tasks.idle_timer().activity, Activity::Idle))
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true), "spawning must not hold the lock that the task takes");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_lingers_after_its_goaway() {
        let tasks = StreamTasks::new(&ServerLimits::default());
        advance(LINGER_TIMEOUT * 10).await;
        tasks.goaway_sent();
        let start = Instant::now();
        tasks.idle(|_| true).await;
        assert_eq!(start.elapsed(), LINGER_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_grown_idle_connection_of_an_unknown_sender_closes_early() {
        for (is_trusted, expected) in [(false, GROWN_IDLE_TIMEOUT), (true, ServerLimits::default().trusted_idle_timeout)] {
            let tasks = StreamTasks::new(&ServerLimits::default());
            tasks.connection_grown();
            drop(ActiveRequest::new(tasks.clone()));
            let start = Instant::now();
            tasks.idle(|_| is_trusted).await;
            assert_eq!((start.elapsed(), tasks.ended()), (expected, 1));
        }
    }
}
