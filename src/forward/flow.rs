//! Defines the states of a topic queue and the transitions between these states. Does not depend on records, readers or
//! metrics.
//!
//! The diagram shows the states of a topic queue and the cause of each transition:
//! ```text
//!      failed record or read,
//!      partition has a leader again     all reported, not blocked
//! Flowing ───────────────► Recalling ───────────────────────────► Flowing
//!    │                         │ all reported, blocked
//!    │ stall, no broker        ▼           topic is writable
//!    └─────────────────────► Blocked ─────────────────────────► Trial ── acknowledged ──► Flowing
//!                              ▲ └─ acknowledged ──► Flowing      │
//!                              └────── failed record or read ─────┘
//! ```

use std::time::Instant;

use super::kafka_error::BlockReason;

/// State of one topic queue. The state determines which records the queue may send.
#[derive(Default)]
pub(super) enum Flow {
    /// The queue sends records up to its in-flight limit.
    #[default]
    Flowing,
    /// The queue sends nothing, because a record or a read of the journal has failed, or because events that the queue has left behind
    /// can be sent. When librdkafka has reported the result of every record in flight, the queue rewinds.
    Recalling(Option<Block>),
    /// The queue sends nothing. A metadata probe that finds the topic writable begins a trial. The acknowledgement of a record
    /// that is still in flight unblocks the queue.
    Blocked(Block),
    /// The blocked queue sends one record. The acknowledgement of this record unblocks the queue.
    Trial(Block),
}

/// Block of a topic queue: the reason why the topic is blocked, and the time at which the block began.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) reason: BlockReason,
    pub(super) since: Instant,
}

impl Flow {
    /// Returns the current block; `None` if the queue is not blocked.
    pub(super) fn block(&self) -> Option<Block> {
        match self {
            Flow::Flowing => None,
            Flow::Recalling(block) => *block,
            Flow::Blocked(block) | Flow::Trial(block) => Some(*block),
        }
    }

    /// Blocks the queue. If the queue is already blocked, changes the reason for the block and ends a trial. Returns the
    /// previous reason; `None` if the queue was not blocked.
    pub(super) fn set_block(&mut self, reason: BlockReason, now: Instant) -> Option<BlockReason> {
        let former = self.block();
        let block = Block { reason, since: former.map_or(now, |former| former.since) };
        *self = match self {
            Flow::Recalling(_) => Flow::Recalling(Some(block)),
            _ => Flow::Blocked(block),
        };
        former.map(|former| former.reason)
    }

    /// Unblocks the queue and returns the block that this call ends; `None` if the queue was not blocked. Does not end a
    /// recall.
    pub(super) fn clear_block(&mut self) -> Option<Block> {
        let block = self.block()?;
        *self = match self {
            Flow::Recalling(_) => Flow::Recalling(None),
            _ => Flow::Flowing,
        };
        Some(block)
    }

    /// Begins a recall after a record or a read of the journal has failed. Does nothing during a trial: a trial has at most one
    /// record in flight, so after a failure there is no further delivery report to wait for.
    pub(super) fn begin_recall(&mut self) {
        match self {
            Flow::Flowing | Flow::Blocked(_) => *self = Flow::Recalling(self.block()),
            Flow::Recalling(_) | Flow::Trial(_) => {}
        }
    }

    /// Begins a recall in any state, because a partition has a leader again. A trial may then have several records in flight: those that
    /// librdkafka has held for the partition.
    pub(super) fn begin_return(&mut self) {
        *self = Flow::Recalling(self.block());
    }

    /// Ends a recall. The caller must first wait until librdkafka has reported the result of every record in flight, or retire
    /// the producer of these records.
    pub(super) fn end_recall(&mut self) {
        if let Flow::Recalling(block) = self {
            *self = block.map_or(Flow::Flowing, Flow::Blocked);
        }
    }

    /// Begins a trial if the queue is in the state `Blocked`.
    pub(super) fn begin_trial(&mut self) {
        if let Flow::Blocked(block) = self {
            *self = Flow::Trial(*block);
        }
    }

    /// Returns true if the queue is in the state `Recalling`.
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
        assert!(flow.is_recalling(), "a trial must wait for the last report");
        flow.end_recall();
        assert!(matches!(flow, Flow::Blocked(_)) && reason(&flow) == Some(BlockReason::TopicMissing));
        flow.begin_trial();
        flow.begin_recall();
        assert!(matches!(flow, Flow::Trial(_)), "a trial has only one record in flight");
        assert_eq!(flow.set_block(BlockReason::Record, now), Some(BlockReason::TopicMissing));
        assert!(matches!(flow, Flow::Blocked(_)), "a block ends a trial");
        assert!(flow.clear_block().is_some() && matches!(flow, Flow::Flowing));
    }

    #[test]
    fn a_trial_ends_when_a_partition_has_a_leader_again() {
        let mut flow = Flow::default();
        flow.set_block(BlockReason::TopicMissing, Instant::now());
        flow.begin_trial();
        flow.begin_return();
        assert!(flow.is_recalling() && reason(&flow) == Some(BlockReason::TopicMissing));
        flow.end_recall();
        assert!(matches!(flow, Flow::Blocked(_)));
    }

    #[test]
    fn a_recall_continues_after_the_block_ends() {
        let mut flow = Flow::default();
        flow.set_block(BlockReason::Journal, Instant::now());
        flow.begin_recall();
        assert!(flow.clear_block().is_some() && flow.is_recalling());
        flow.end_recall();
        assert!(matches!(flow, Flow::Flowing));
    }
}
