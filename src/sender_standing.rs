//! Standing of a sender's address, which determines how hookhold treats a delivery before its signature is verified.

use tokio::time::Instant;

use crate::work_turns::WorkTurn;

/// Terms on which hookhold receives one delivery.
pub struct DeliveryTerms {
    /// Standing of the sender's address.
    pub standing: SenderStanding,
    /// Time by which hookhold must answer the delivery. The task that waits for the answer must be woken at this time.
    pub deadline: Instant,
}

/// Standing of the address from which a delivery arrives.
pub enum SenderStanding {
    /// A genuine delivery has arrived from the address within the last day, or a source lists the address in `allow_from`. A part
    /// of each limit is reserved for such an address.
    KnownGood,
    /// hookhold knows nothing about the address.
    Unknown,
    /// The address has sent too many rejected deliveries. hookhold verifies a delivery only in a turn.
    Limited(WorkTurn),
}

impl SenderStanding {
    /// Returns true if the reserved part of each limit is available to the address.
    pub fn is_known_good(&self) -> bool {
        matches!(self, SenderStanding::KnownGood)
    }

    /// Performs a part of the verification. For a limited address, the processor time of this part counts as the cost of the turn.
    pub fn run<T>(&mut self, work: impl FnOnce() -> T) -> T {
        match self {
            SenderStanding::Limited(turn) => turn.run(work),
            SenderStanding::KnownGood | SenderStanding::Unknown => work(),
        }
    }
}
