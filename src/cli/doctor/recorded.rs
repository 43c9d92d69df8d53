//! Fetches the rejected deliveries that the running process has stored (`[admin] keep_rejected`).

use std::error::Error;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookhold::clock::UnixMillis;
use serde::Deserialize;

use super::captured::parse_time;
use super::request::{self, RecordedRequest};
use crate::cli::Context;
use crate::cli::ask::RunningProcess;

/// A rejected delivery that the running process stored.
pub(super) struct RecordedRejection {
    pub(super) request: RecordedRequest,
    pub(super) remote: SocketAddr,
    pub(super) received_at: UnixMillis,
    /// Outcome with which the running process rejected the delivery.
    pub(super) rejected_as: String,
    /// Reason for the rejection, as in the log line.
    pub(super) hint: String,
}

/// One line of the response body of `/api/rejections`: a rejected delivery as a JSON object.
#[derive(Deserialize)]
struct RejectionLine {
    outcome: String,
    #[serde(default)]
    hint: String,
    remote: SocketAddr,
    received_at: String,
    request_base64: String,
}

/// Fetches the latest rejected deliveries of a source from the running process, newest first and at most `last`.
pub(super) fn newest(
    context: &Context,
    url: Option<String>,
    source: &str,
    last: usize,
) -> Result<Vec<RecordedRejection>, Box<dyn Error>> {
    let process = RunningProcess::find(context, url)?;
    let page = process
        .page(&format!("/api/rejections?source={source}"))
        .map_err(|error| format!("{error}; or pass a recorded request with --request FILE"))?;
    let rejections: Option<Vec<RecordedRejection>> = page.lines().take(last).map(parse).collect();
    rejections.ok_or_else(|| {
        let found = "expected a response from this version of hookhold, found an unknown format";
        format!("{}: {found}; set --url, or use the version of the running process", process.url).into()
    })
}

fn parse(line: &str) -> Option<RecordedRejection> {
    let RejectionLine { outcome, hint, remote, received_at, request_base64 } = serde_json::from_str(line).ok()?;
    let request = request::parse(&STANDARD.decode(request_base64).ok()?).ok()?;
    Some(RecordedRejection { request, remote, received_at: parse_time(&received_at).ok()?, rejected_as: outcome, hint })
}
