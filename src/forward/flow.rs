//! The states in which a topic queue sends or does not send, and what may follow what. Knows no records, readers or metrics.
//!
//! ```text
//!              failure                 all reported                     probe
//! Flowing ──────────────► Recalling ────────────────► Blocked or Flowing      Blocked ──► Trial
//!    ▲  └─ client, cluster or journal fails ─► Blocked ◄── failure, stall ──┘       │
//!    └───────────────── acknowledgement or recovery ────────────────────────────────┘
//! ```

use std::time::Instant;

use super::kafka_error::BlockReason;

/// The sending state of one topic queue.
#[derive(Default)]
pub(super) enum Flow {
    /// Sends as much as may be in flight.
    #[default]
    Flowing,
    /// A record failed: sends nothing until everything in flight is reported, then rewinds.
    Recalling(Option<Block>),
    /// Sends nothing.
    Blocked(Block),
    /// Sends one record at a time; an acknowledgement ends the block.
    Trial(Block),
}

/// The reason for a block and the time at which it began.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) reason: BlockReason,
    pub(super) since: Instant,
}

impl Flow {
    /// Returns the block, if there is one.
    pub(super) fn block(&self) -> Option<Block> {
        match self {
            Flow::Flowing => None,
            Flow::Recalling(block) => *block,
            Flow::Blocked(block) | Flow::Trial(block) => Some(*block),
        }
    }

    /// Begins a block, or changes its reason; returns the former reason. A trial ends.
    pub(super) fn set_block(&mut self, reason: BlockReason, now: Instant) -> Option<BlockReason> {
        let former = self.block();
        let block = Block { reason, since: former.map_or(now, |former| former.since) };
        *self = match self {
            Flow::Recalling(_) => Flow::Recalling(Some(block)),
            _ => Flow::Blocked(block),
        };
        former.map(|former| former.reason)
    }

    /// Ends the block and returns it. A recall continues.
    pub(super) fn clear_block(&mut self) -> Option<Block> {
        let block = self.block()?;
        *self = match self {
            Flow::Recalling(_) => Flow::Recalling(None),
            _ => Flow::Flowing,
        };
        Some(block)
    }

    /// Begins a recall. A trial stays one: its only record is the one that failed, so nothing is left to wait for.
    pub(super) fn begin_recall(&mut self) {
        match self {
            Flow::Flowing | Flow::Blocked(_) => *self = Flow::Recalling(self.block()),
            Flow::Recalling(_) | Flow::Trial(_) => {}
        }
    }

    /// Ends a recall: everything in flight is reported.
    pub(super) fn end_recall(&mut self) {
        if let Flow::Recalling(block) = self {
            *self = block.map_or(Flow::Flowing, Flow::Blocked);
        }
    }

    /// Turns a block into a trial.
    pub(super) fn begin_trial(&mut self) {
        if let Flow::Blocked(block) = self {
            *self = Flow::Trial(*block);
        }
    }

    /// True during a recall.
    pub(super) fn is_recalling(&self) -> bool {
        matches!(self, Flow::Recalling(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(flow: &Flow) -> Option<BlockReason> {
        flow.block().map(|block| block.reason)
    }

    #[test]
    fn a_block_outlasts_the_recall_and_ends_after_it() {
        let now = Instant::now();
        let mut flow = Flow::default();
        flow.begin_recall();
        assert_eq!(flow.set_block(BlockReason::TopicMissing, now), None);
        flow.begin_trial();
        assert!(flow.is_recalling(), "no trial before everything is reported");
        flow.end_recall();
        assert!(matches!(flow, Flow::Blocked(_)) && reason(&flow) == Some(BlockReason::TopicMissing));
        flow.begin_trial();
        flow.begin_recall();
        assert!(matches!(flow, Flow::Trial(_)), "the record of a trial was alone in flight");
        assert_eq!(flow.set_block(BlockReason::Record, now), Some(BlockReason::TopicMissing));
        assert!(matches!(flow, Flow::Blocked(_)), "a block ends a trial");
        assert!(flow.clear_block().is_some() && matches!(flow, Flow::Flowing));
    }

    #[test]
    fn a_block_that_ends_during_a_recall_leaves_it() {
        let mut flow = Flow::default();
        flow.set_block(BlockReason::Journal, Instant::now());
        flow.begin_recall();
        assert!(flow.clear_block().is_some() && flow.is_recalling());
        flow.end_recall();
        assert!(matches!(flow, Flow::Flowing));
    }
}
