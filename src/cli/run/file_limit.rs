//! Raises the open-file limit of the process to what the configuration needs.

use hookhold::config::Config;
use hookhold::journal::MAX_PINNED_SEGMENTS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Returns the number of file descriptors that connections, segments and other files need.
fn files_needed(config: &Config) -> u64 {
    let segments = config.journal.limits.max_size / config.journal.limits.segment_size;
    config.server.limits.max_connections as u64 + segments + MAX_PINNED_SEGMENTS + OTHER_FILES
}

/// Raises the soft open-file limit to the hard limit, and warns if the hard limit is too low. The usual soft limit of 1024 is
/// below the default of `max_connections`.
pub(super) fn raise(config: &Config) {
    let needed = files_needed(config);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = current == maximum || setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        let hint = "raise LimitNOFILE in the systemd unit, `ulimit -Hn` in a shell or --ulimit nofile of a container, or lower \
                    max_connections; until then, connections above the limit wait";
        tracing::warn!(limit, needed, hint, "open-file limit: expected at least {needed}, found {limit}");
    }
}

/// Number of file descriptors for key files, for connections of the admin listener and of the Kafka client, and for the
/// program's own files.
const OTHER_FILES: u64 = 256;
