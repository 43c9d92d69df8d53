//! Counts and logs duplicates whose body differs from the body of the stored event. hookhold drops such a body, because the same
//! account has sent another body with the same id.

use std::sync::Arc;

use prometheus::IntCounter;

use super::dedupe_table::FirstCopy;
use crate::event::Event;
use crate::fingerprint::Fingerprint;
use crate::log::escaped;
use crate::metrics::DeliveryMetrics;

/// Counter of the differing duplicates of one source; cheap to clone.
#[derive(Clone)]
pub(super) struct DifferingDuplicates {
    source: Arc<str>,
    counter: IntCounter,
}

/// The parts of a waiting duplicate that hookhold needs to report another body.
pub(super) struct WaitingCopy {
    id: Option<String>,
    fingerprint: Fingerprint,
}

impl WaitingCopy {
    pub(super) fn of(event: Event) -> WaitingCopy {
        WaitingCopy { fingerprint: event.fingerprint(), id: event.into_id() }
    }
}

impl DifferingDuplicates {
    pub(super) fn new(source: &Arc<str>, metrics: &DeliveryMetrics) -> DifferingDuplicates {
        DifferingDuplicates { source: source.clone(), counter: metrics.duplicate_differs.with_label_values(&[&**source]) }
    }

    /// Counts and logs `event` if it is a duplicate of `first` with another body.
    pub(super) fn report(&self, event: &Event, first: FirstCopy) {
        self.report_copy(event.id(), event.fingerprint(), first);
    }

    /// Counts and logs a duplicate that has waited for `first`, if it has another body.
    pub(super) fn report_waiting(&self, copy: &WaitingCopy, first: FirstCopy) {
        self.report_copy(copy.id.as_deref(), copy.fingerprint, first);
    }

    fn report_copy(&self, id: Option<&str>, fingerprint: Fingerprint, first: FirstCopy) {
        if !first.fingerprint.has_other_body(&fingerprint) {
            return;
        }
        self.counter.inc();
        let (source, id, seq) = (&*self.source, escaped(id.unwrap_or_default()), first.seq);
        tracing::info!(source, %id, seq, "a duplicate has another body than the stored event; hookhold stores only the first body");
    }
}
