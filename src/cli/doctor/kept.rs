//! The refused deliveries that the running process has kept (`[admin] keep_rejected`).

use std::error::Error;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookhold::clock::UnixMillis;
use serde::Deserialize;

use super::request::{self, Request};
use crate::cli::{Context, ask};

/// One of them.
pub struct RecordedRejection {
    pub request: Request,
    pub remote: SocketAddr,
    pub received_at: UnixMillis,
    /// The outcome that it had.
    pub refused_as: String,
}

/// A line of `/api/rejections`.
#[derive(Deserialize)]
struct Line {
    outcome: String,
    remote: SocketAddr,
    received_at: String,
    request_base64: String,
}

/// The `last` ones of a source, the newest first.
pub fn newest(
    context: &Context,
    url: Option<String>,
    source: &str,
    last: usize,
) -> Result<Vec<RecordedRejection>, Box<dyn Error>> {
    let base = ask::listener(context, url)?;
    let page = ask::page(&base, &format!("/api/rejections?source={source}"))
        .map_err(|error| format!("{error}; or name a recorded request with --request FILE"))?;
    let kept: Option<Vec<RecordedRejection>> = page.lines().take(last).map(read).collect();
    kept.ok_or_else(|| format!("{base} is not the admin listener of this version of hookhold").into())
}

fn read(line: &str) -> Option<RecordedRejection> {
    let Line { outcome, remote, received_at, request_base64 } = serde_json::from_str(line).ok()?;
    let request = request::parse(&STANDARD.decode(request_base64).ok()?).ok()?;
    Some(RecordedRejection { request, remote, received_at: super::time(&received_at).ok()?, refused_as: outcome })
}
