//! Decides when the writer saves the moved cursors. A commit with events saves them at most once per [`CURSOR_INTERVAL`], because
//! this needs no additional sync. Without events, the writer makes a commit for the cursors: [`CURSOR_INTERVAL`] after the
//! acknowledgement with the number [`MANY_ACKNOWLEDGEMENTS`], or [`CURSOR_DELAY`] after the first move.

use std::time::Duration;

/// Moves and acknowledgements since the writer last saved the cursors.
#[derive(Default)]
pub(super) struct CursorSchedule {
    /// Uptime of the last save; `None` before the first save.
    saved: Option<Duration>,
    /// Uptime of the first move since the last save; `None` if no cursor has moved.
    moved: Option<Duration>,
    /// Number of acknowledgements since the last save.
    acknowledged: u64,
    /// Uptime at which this number reached [`MANY_ACKNOWLEDGEMENTS`].
    many_acknowledged: Option<Duration>,
}

impl CursorSchedule {
    /// Records a moved cursor and the number of new acknowledgements. Returns true if the next save is due earlier than before.
    pub(super) fn cursor_moved(&mut self, acknowledged: u64, uptime: Duration) -> bool {
        let before = self.due();
        self.moved.get_or_insert(uptime);
        self.acknowledged = self.acknowledged.saturating_add(acknowledged);
        if self.acknowledged >= MANY_ACKNOWLEDGEMENTS {
            self.many_acknowledged.get_or_insert(uptime);
        }
        before.is_none_or(|before| self.due().is_some_and(|due| due < before))
    }

    /// Returns the uptime at which the writer must save the cursors even if no event is queued; `None` if no cursor has moved.
    pub(super) fn due(&self) -> Option<Duration> {
        let delayed = self.moved? + CURSOR_DELAY;
        Some(self.many_acknowledged.map_or(delayed, |many| delayed.min(many + CURSOR_INTERVAL)))
    }

    /// Returns true if a commit at `uptime` must save the cursors. `has_events` is true if the commit contains events.
    pub(super) fn is_due(&self, has_events: bool, uptime: Duration) -> bool {
        let may_join = has_events && self.saved.is_none_or(|saved| uptime >= saved + CURSOR_INTERVAL);
        self.due().is_some_and(|due| may_join || uptime >= due)
    }

    /// Starts the next period, because the writer saves the cursors at `uptime`.
    pub(super) fn start_save(&mut self, uptime: Duration) {
        *self = CursorSchedule { saved: Some(uptime), ..CursorSchedule::default() };
    }
}

/// Shortest time between two saves of the cursors. Also the longest time without a save after [`MANY_ACKNOWLEDGEMENTS`].
pub const CURSOR_INTERVAL: Duration = Duration::from_millis(50);
/// Longest time for which a moved cursor waits for a commit with events.
pub const CURSOR_DELAY: Duration = Duration::from_secs(1);
/// Number of acknowledgements after which a save is due within [`CURSOR_INTERVAL`].
pub const MANY_ACKNOWLEDGEMENTS: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(3600);

    fn after(millis: u64) -> Duration {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn a_single_acknowledgement_waits_one_second_for_events() {
        let mut schedule = CursorSchedule::default();
        assert!(!schedule.is_due(true, after(0)), "no cursor has moved");
        assert!(schedule.cursor_moved(1, after(0)), "the writer must wait for a shorter time");
        assert!(!schedule.cursor_moved(1, after(10)));
        assert!(!schedule.is_due(false, after(999)) && schedule.is_due(false, after(1000)));
        assert!(schedule.is_due(true, after(10)), "a commit with events saves the cursor at once");
    }

    #[test]
    fn many_acknowledgements_wait_for_one_interval() {
        let mut schedule = CursorSchedule::default();
        schedule.cursor_moved(99, after(0));
        assert!(schedule.cursor_moved(1, after(30)), "the save is due earlier than before");
        assert!(!schedule.cursor_moved(500, after(40)));
        assert!(!schedule.is_due(false, after(79)) && schedule.is_due(false, after(80)));
        schedule.start_save(after(80));
        assert_eq!(schedule.due(), None);
        schedule.cursor_moved(99, after(90));
        assert_eq!(schedule.due(), Some(after(1090)), "the acknowledgements count from the last save");
    }

    #[test]
    fn commits_with_events_save_at_most_twenty_times_a_second() {
        let mut schedule = CursorSchedule::default();
        let mut saves = 0;
        for millis in 0..1000 {
            schedule.cursor_moved(40, after(millis));
            if schedule.is_due(true, after(millis)) {
                schedule.start_save(after(millis));
                saves += 1;
            }
        }
        assert_eq!(saves, 20);
    }
}
