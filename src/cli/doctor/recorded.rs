//! Reads the rejected deliveries that hookhold has stored (`[admin] keep_rejected`): from the files in the journal's directory, or
//! from the running process that `--url` names.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookhold::config::{AdminConfig, JournalConfig};
use hookhold::outcome::Outcome;
use hookhold::rejections::{RejectedDelivery, RejectionCause};
use serde::Deserialize;

use super::captured::parse_time;
use super::request::{self, RecordedRequest};
use crate::cli::Context;
use crate::cli::ask::RunningProcess;
use crate::cli::rejections::read_stored;

/// The newest stored rejection with a cause.
pub(super) struct RecordedRejection {
    pub(super) request: RecordedRequest,
    pub(super) rejected: RejectedDelivery,
    /// Number of stored rejections with this cause.
    pub(super) alike: u64,
}

/// The newest rejection with each cause, and the number of rejections with this cause.
#[derive(Default)]
struct NewestOfEachCause(HashMap<RejectionCause, (RejectedDelivery, u64)>);

/// One line of the response body of `/api/rejections`: a rejected delivery as a JSON object.
#[derive(Deserialize)]
struct RejectionLine {
    outcome: String,
    hint: String,
    remote: SocketAddr,
    received_at: String,
    request_base64: String,
}

/// Reads the files in the journal's directory. Returns the newest rejection of a source with each cause, newest first and at most
/// `last`.
pub(super) fn from_files(
    admin: &AdminConfig,
    journal: &JournalConfig,
    source: &str,
    last: usize,
) -> Result<Vec<RecordedRejection>, Box<dyn Error>> {
    let mut newest = NewestOfEachCause::default();
    let read = read_stored(&admin.limits, journal, |rejected| {
        if *rejected.source == *source {
            newest.add(rejected);
        }
    });
    read.map_err(|error| format!("{error}; or pass a recorded request with --request FILE"))?;
    Ok(newest.take(last))
}

/// Fetches the rejections of a source from the running process at `url`. Otherwise the same as [`from_files`].
pub(super) fn from_process(
    context: &Context,
    url: String,
    source: &str,
    last: usize,
) -> Result<Vec<RecordedRejection>, Box<dyn Error>> {
    let process = RunningProcess::find(context, Some(url))?;
    let page = process
        .page(&format!("/api/rejections?source={source}"))
        .map_err(|error| format!("{error}; or pass a recorded request with --request FILE"))?;
    let mut newest = NewestOfEachCause::default();
    for line in page.lines() {
        let rejected = parse(line, source).ok_or_else(|| {
            let found = "expected a response from this version of hookhold, found an unknown format";
            format!("{}: {found}; set --url, or use the version of the running process", process.url)
        })?;
        newest.add(rejected);
    }
    Ok(newest.take(last))
}

impl NewestOfEachCause {
    fn add(&mut self, rejected: RejectedDelivery) {
        let (newest, count) = self.0.entry(rejected.cause()).or_insert_with(|| (rejected.clone(), 0));
        *count += 1;
        if rejected.received_at > newest.received_at {
            *newest = rejected;
        }
    }

    /// Returns the newest rejections, newest first and at most `last`. Omits a rejection whose request cannot be parsed.
    fn take(self, last: usize) -> Vec<RecordedRejection> {
        let mut newest: Vec<(RejectedDelivery, u64)> = self.0.into_values().collect();
        newest.sort_by_key(|(rejected, _)| std::cmp::Reverse((rejected.received_at, rejected.id)));
        let parsed = newest.into_iter().filter_map(|(rejected, alike)| {
            let request = request::parse(&rejected.request).ok()?;
            Some(RecordedRejection { request, rejected, alike })
        });
        parsed.take(last).collect()
    }
}

fn parse(line: &str, source: &str) -> Option<RejectedDelivery> {
    let RejectionLine { outcome, hint, remote, received_at, request_base64 } = serde_json::from_str(line).ok()?;
    Some(RejectedDelivery {
        id: 0,
        source: source.into(),
        outcome: Outcome::of_word(&outcome)?,
        hint,
        remote,
        received_at: parse_time(&received_at).ok()?,
        sampled_out: 0,
        request: STANDARD.decode(request_base64).ok()?,
    })
}
