//! Shares a tenth of a processor core between the sender addresses that hookhold has limited.
//!
//! An address that has sent too many rejected deliveries may also belong to a genuine sender. hookhold therefore still performs the
//! TLS handshakes and verifies the deliveries of such an address, as long as this work takes at most a tenth of a core in total. Each
//! piece of work waits for a turn. The addresses get their turns in rotation. Each kind of work has a share of its own, so that large
//! bodies neither delay small ones nor TLS handshakes.
//!
//! The cost of a piece of work is its processor time, so bytes, secrets and signature groups count on every machine as much as they
//! cost. The cost is known only afterwards. A turn therefore pays an estimate at its start, and the rest at its end. After expensive
//! work, the next turn of the same kind comes later.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use tokio::select;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

mod work_share;

use work_share::{NextTurn, WorkShare};

/// Kind of work for a limited sender address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// A TLS handshake.
    Handshake,
    /// The verification of a body of at most [`MAX_SMALL_BODY`] bytes.
    SmallBody,
    /// The verification of a larger body.
    LargeBody,
}

impl WorkKind {
    const ALL: [WorkKind; 3] = [WorkKind::Handshake, WorkKind::SmallBody, WorkKind::LargeBody];

    /// Returns the kind of the verification of a body with `bytes` bytes.
    pub fn of_body(bytes: usize) -> WorkKind {
        if bytes <= MAX_SMALL_BODY { WorkKind::SmallBody } else { WorkKind::LargeBody }
    }

    /// Returns the share of a processor core for this kind, in percent. All shares together are 10 %.
    fn percent(self) -> i64 {
        match self {
            WorkKind::Handshake => 5,
            WorkKind::SmallBody => 2,
            WorkKind::LargeBody => 3,
        }
    }

    /// Returns the maximum number of turns at the same time. A TLS handshake waits for its client, so the estimate of its cost limits
    /// the number of handshakes. Small work waits for its task, so several turns overlap.
    fn max_turns(self) -> usize {
        match self {
            WorkKind::Handshake => usize::MAX,
            WorkKind::SmallBody => 16,
            WorkKind::LargeBody => 1,
        }
    }

    /// Returns the estimated cost that a turn pays at its start, in nanoseconds of processor time.
    fn estimate_ns(self) -> i64 {
        match self {
            WorkKind::Handshake => 250_000,
            WorkKind::SmallBody | WorkKind::LargeBody => 10_000,
        }
    }
}

/// Queues of the work for limited addresses.
pub struct WorkTurns {
    /// One share for each kind of work, in the order of [`WorkKind::ALL`].
    shares: [Mutex<WorkShare>; WorkKind::ALL.len()],
    /// Notified when work has to wait until its share permits the next turn.
    has_waiting: Notify,
}

/// Permission to perform one piece of work. Dropping the turn ends it.
pub struct WorkTurn {
    turns: Arc<WorkTurns>,
    kind: WorkKind,
    cost_ns: i64,
    has_ended: bool,
}

/// Guard that removes waiting work from its queue when the guard is dropped.
struct WaitingWork<'a> {
    turns: &'a WorkTurns,
    kind: WorkKind,
    address: IpAddr,
    ticket: u64,
}

impl WorkTurns {
    /// Creates queues without waiting work.
    pub fn new() -> Arc<WorkTurns> {
        let shares = WorkKind::ALL.map(|kind| Mutex::new(WorkShare::new(kind)));
        Arc::new(WorkTurns { shares, has_waiting: Notify::new() })
    }

    /// Waits for a turn. Returns `None` if very much work of this kind is waiting, or if the address is no longer limited. The caller limits the time.
    pub async fn wait(self: &Arc<WorkTurns>, kind: WorkKind, address: IpAddr) -> Option<WorkTurn> {
        let (sender, receiver) = oneshot::channel();
        let ticket = self.share(kind).add(address, sender)?;
        let waiting = WaitingWork { turns: self, kind, address, ticket };
        self.start_waiting(kind);
        let turn = receiver.await.ok();
        drop(waiting);
        turn
    }

    /// Ends the waits of an address that is no longer limited. Its work needs no turn.
    pub fn end_waits(&self, address: IpAddr) {
        for kind in WorkKind::ALL {
            self.share(kind).remove_all(address);
        }
    }

    /// Starts waiting work as soon as its share permits it. Never returns. The caller must run this future for as long as work may
    /// wait.
    pub async fn run(self: &Arc<WorkTurns>) {
        loop {
            let next = WorkKind::ALL.into_iter().filter_map(|kind| self.start_permitted(kind)).min();
            let permitted = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            select! {
                () = permitted => {}
                () = self.has_waiting.notified() => {}
            }
        }
    }

    fn start_waiting(self: &Arc<WorkTurns>, kind: WorkKind) {
        if self.start_permitted(kind).is_some() {
            self.has_waiting.notify_one();
        }
    }

    /// Starts waiting work while the share permits it. Returns the time at which the share permits the next turn, if work has to
    /// wait for this time.
    fn start_permitted(self: &Arc<WorkTurns>, kind: WorkKind) -> Option<Instant> {
        loop {
            let next = self.share(kind).next(Instant::now());
            match next {
                NextTurn::Starts(waiting) => {
                    let turn = WorkTurn { turns: self.clone(), kind, cost_ns: MIN_COST_NS, has_ended: false };
                    if let Err(mut turn) = waiting.send(turn) {
                        turn.has_ended = true;
                        self.share(kind).end_turn(0);
                    }
                }
                NextTurn::At(time) => return Some(time),
                NextTurn::None => return None,
            }
        }
    }

    fn share(&self, kind: WorkKind) -> MutexGuard<'_, WorkShare> {
        self.shares[kind as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkTurn {
    /// Performs a part of the work, and adds its processor time to the cost.
    pub fn run<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = thread_time_ns();
        let done = work();
        self.add_cost(thread_time_ns() - start);
        done
    }

    /// Performs work that waits, for example for its client. Only the processor time counts.
    pub async fn run_async<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|cx| self.run(|| work.as_mut().poll(cx))).await
    }

    fn add_cost(&mut self, nanoseconds: i64) {
        self.cost_ns = self.cost_ns.saturating_add(nanoseconds.max(0));
    }
}

impl Drop for WorkTurn {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        self.turns.share(self.kind).end_turn(self.cost_ns);
        self.turns.start_waiting(self.kind);
    }
}

impl Drop for WaitingWork<'_> {
    fn drop(&mut self) {
        self.turns.share(self.kind).remove(self.address, self.ticket);
    }
}

/// Returns the processor time of the current thread in nanoseconds.
fn thread_time_ns() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Maximum size of a body whose verification counts as small, in bytes.
pub const MAX_SMALL_BODY: usize = 64 * 1024;

/// Cost of a turn that performs no work, in nanoseconds of processor time.
const MIN_COST_NS: i64 = 5_000;

#[cfg(test)]
mod tests {
    use super::work_share::MAX_WAITING;
    use super::*;
    use std::time::Duration;
    use tokio::time::{advance, timeout};

    const KIND: WorkKind = WorkKind::SmallBody;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Performs work of one second in a turn, so that the share permits no turn for the next 50 seconds.
    async fn use_up(turns: &Arc<WorkTurns>) {
        let mut turn = turns.wait(KIND, address(0)).await.expect("the queue is empty");
        turn.add_cost(1_000_000_000);
    }

    fn start(turns: &Arc<WorkTurns>) {
        let turns = turns.clone();
        tokio::spawn(async move { turns.run().await });
    }

    #[tokio::test(start_paused = true)]
    async fn work_takes_at_most_a_tenth_of_a_core() {
        let turns = WorkTurns::new();
        start(&turns);
        let (start, mut done) = (Instant::now(), Duration::ZERO);
        let work = Duration::from_millis(7);
        let queues = WorkKind::ALL.map(|kind| {
            let turns = turns.clone();
            async move {
                let mut count = 0;
                while timeout(Duration::from_secs(3600), turns.wait(kind, address(1))).await.is_ok_and(|turn| {
                    let mut turn = turn.expect("the queue has room");
                    turn.add_cost(work.as_nanos() as i64);
                    start.elapsed() < Duration::from_secs(60)
                }) {
                    count += 1;
                }
                count
            }
        });
        for queue in queues.map(tokio::spawn) {
            done += work * queue.await.expect("no panic");
        }
        let share = done.as_secs_f64() / 60.0;
        assert!((0.09..0.104).contains(&share), "{share} of a core");
    }

    #[tokio::test(start_paused = true)]
    async fn the_addresses_get_their_turns_in_rotation() {
        let turns = WorkTurns::new();
        start(&turns);
        use_up(&turns).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let wait = |from: u8, number: u32| {
            let (turns, order) = (turns.clone(), order.clone());
            tokio::spawn(async move {
                let turn = turns.wait(KIND, address(from)).await.expect("the queue has room");
                order.lock().expect("no panic").push((from, number));
                drop(turn);
            })
        };
        let mut waiting: Vec<_> = (0..100).map(|number| wait(1, number)).collect();
        tokio::task::yield_now().await;
        waiting.extend((0..2).map(|number| wait(2, number)));
        for work in waiting {
            work.await.expect("no panic");
        }
        let order = order.lock().expect("no panic");
        assert_eq!(order[..4], [(1, 0), (2, 0), (1, 1), (2, 1)], "{order:?}");
        assert_eq!(order.len(), 102);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_no_longer_waits_gets_no_turn() {
        let turns = WorkTurns::new();
        start(&turns);
        use_up(&turns).await;
        for _ in 0..3 {
            assert!(timeout(Duration::from_secs(1), turns.wait(KIND, address(1))).await.is_err(), "the share is used up");
        }
        {
            let share = turns.share(KIND);
            assert!(share.waiting.is_empty() && share.rotation.is_empty() && (share.waiting_count, share.running) == (0, 0));
        }
        advance(Duration::from_secs(60)).await;
        assert!(turns.wait(KIND, address(1)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_no_longer_limited_does_not_wait() {
        let turns = WorkTurns::new();
        use_up(&turns).await;
        let (one, other) = (turns.wait(KIND, address(1)), turns.wait(KIND, address(2)));
        let freed = async { turns.end_waits(address(1)) };
        let (one, other, ()) = tokio::join!(one, timeout(Duration::from_secs(1), other), freed);
        assert!(one.is_none() && other.is_err(), "the other address still waits");
    }

    #[tokio::test(start_paused = true)]
    async fn the_kinds_of_work_do_not_delay_each_other() {
        let turns = WorkTurns::new();
        start(&turns);
        use_up(&turns).await;
        let mut large = turns.wait(WorkKind::LargeBody, address(1)).await.expect("the queue is empty");
        assert!(timeout(Duration::ZERO, turns.wait(WorkKind::LargeBody, address(2))).await.is_err(), "one turn at a time");
        assert!(timeout(Duration::ZERO, turns.wait(WorkKind::Handshake, address(2))).await.is_ok());
        large.add_cost(1_000_000_000);
        drop(large);
        assert!(timeout(Duration::from_secs(20), turns.wait(WorkKind::LargeBody, address(2))).await.is_err());
        assert!(timeout(Duration::from_secs(20), turns.wait(WorkKind::Handshake, address(2))).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_handshakes_count_until_they_end() {
        let turns = WorkTurns::new();
        let mut stalled = Vec::new();
        while let Ok(turn) = timeout(Duration::ZERO, turns.wait(WorkKind::Handshake, address(1))).await {
            stalled.push(turn);
        }
        assert_eq!(stalled.len(), 200, "five hundredths of a second, at a quarter of a millisecond each");
        drop(stalled);
        assert!(timeout(Duration::ZERO, turns.wait(WorkKind::Handshake, address(1))).await.is_ok());
    }

    #[tokio::test]
    async fn the_cost_of_work_is_its_processor_time() {
        let turns = WorkTurns::new();
        let mut turn = turns.wait(KIND, address(1)).await.expect("the queue is empty");
        let before = turn.cost_ns;
        turn.run_async(tokio::time::sleep(Duration::from_millis(20))).await;
        let waited = turn.cost_ns - before;
        turn.run(|| {
            let start = thread_time_ns();
            while thread_time_ns() < start + 30_000_000 {}
        });
        assert!(waited < 20_000_000 && turn.cost_ns >= before + waited + 30_000_000, "{before} {waited} {}", turn.cost_ns);
    }

    #[tokio::test]
    async fn a_full_queue_takes_no_more_work() {
        let turns = WorkTurns::new();
        use_up(&turns).await;
        let receivers: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let (sender, receiver) = oneshot::channel();
                assert!(turns.share(KIND).add(address(1), sender).is_some());
                receiver
            })
            .collect();
        assert!(turns.wait(KIND, address(2)).await.is_none());
        drop(receivers);
    }
}
