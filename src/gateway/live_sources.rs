//! Holds the sources of the gateway, and replaces them at a reload.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::live_source::{LiveSource, delete_series};
use crate::metrics::DeliveryMetrics;
use crate::source::Source;

/// All sources of one configuration.
#[derive(Default)]
pub(super) struct LiveSources {
    by_path: HashMap<String, Arc<LiveSource>>,
    /// The networks that any source lists in `allow_from`.
    listed: Vec<IpNet>,
}

impl LiveSources {
    /// Creates the sources of a configuration. If `previous` contains a source with the same name, the new source reuses the daily
    /// warnings, the rate limiter and the success rate of the previous source. Exception: a changed setting resets the state that
    /// depends on this setting. Deletes the expiry metric of each secret that no longer exists or no longer expires, and the
    /// success rate metrics of each removed source.
    pub(super) fn new(
        sources: impl IntoIterator<Item = impl Into<Arc<Source>>>,
        previous: &LiveSources,
        hash_key: &[u8; 16],
        metrics: &DeliveryMetrics,
    ) -> LiveSources {
        let by_name: HashMap<&str, &LiveSource> = previous.all().map(|live| (&*live.source.name, &**live)).collect();
        let live_source = |source: Arc<Source>| {
            let previous = by_name.get(&*source.name).copied();
            (source.path.clone(), Arc::new(LiveSource::new(source, previous, hash_key, metrics)))
        };
        let by_path: HashMap<_, _> = sources.into_iter().map(|source| live_source(source.into())).collect();
        for removed in previous.all() {
            delete_series(removed, by_path.values().find(|live| live.source.name == removed.source.name), metrics);
        }
        let mut listed: Vec<IpNet> = by_path.values().flat_map(|live| live.source.clients.allow_from.iter().copied()).collect();
        listed.sort_unstable();
        listed.dedup();
        LiveSources { by_path, listed }
    }

    /// Returns the source with this URL path.
    pub(super) fn get(&self, path: &str) -> Option<Arc<LiveSource>> {
        self.by_path.get(path).cloned()
    }

    /// Returns all sources, in no particular order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<LiveSource>> {
        self.by_path.values()
    }

    /// Returns true if a source lists this address in `allow_from`.
    pub(super) fn list_sender(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.listed.iter().any(|network| network.contains(&address))
    }
}
