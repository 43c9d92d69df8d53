//! Draws another id for a journal whose volume was cloned. Both copies have the same id otherwise, so that nothing tells their events
//! apart.

use super::errors::{OpenError, context};
use super::meta::renew_identity;
use super::options::Options;
use super::{Environment, Journal};

/// Ids of a journal before and after [`Journal::renew_identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewedIdentity {
    /// Previous id.
    pub previous: u64,
    /// New id.
    pub id: u64,
}

impl Journal {
    /// Draws another id for a closed journal. The hash key stays the same, so hookhold still recognises the duplicates of all
    /// stored events. The headers of existing segments keep the previous id.
    pub fn renew_identity(environment: Environment, options: Options) -> Result<RenewedIdentity, OpenError> {
        let Environment { disk, clock, random, metrics } = environment;
        let open = || {
            let (disk, clock, random, metrics) = (disk.clone(), clock.clone(), random.clone(), metrics.clone());
            Journal::open_in_steps(Environment { disk, clock, random, metrics }, options.clone())
        };
        let (journal, writer, background) = open()?;
        let previous = journal.0.identity;
        let renewed = renew_identity(&*disk, &*random, previous);
        journal.close_in_steps(writer, background);
        let id = context(renewed, || "cannot write the journal's meta file".into())?.journal;
        // This opening starts a segment whose header has the new id. If `meta` is damaged later, the newest header replaces it.
        let (journal, writer, background) = open()?;
        journal.close_in_steps(writer, background);
        Ok(RenewedIdentity { previous: previous.journal, id })
    }
}
