//! Explanations of responses that are not as expected: no gateway, TLS and plain HTTP mixed up, another server, another secret.

use std::error::Error;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::StatusCode;
use rustix::io::Errno;

use super::SendPlan;
use super::report::SendReport;
use crate::cli::causes;

/// Signs in the responses that only the connections see.
#[derive(Default)]
pub(super) struct ReceivedSigns {
    /// True after the first response.
    pub(super) is_answered: AtomicBool,
    /// True if a response other than 2xx had a body. hookhold sends such responses without a body.
    is_other_server: AtomicBool,
    /// Hint about the first connection that was lost before any response.
    lost: OnceLock<String>,
}

impl ReceivedSigns {
    /// Notes that a response with this status has a body.
    pub(super) fn note_body(&self, status: StatusCode) {
        if !status.is_success() {
            self.is_other_server.store(true, Relaxed);
        }
    }

    /// Notes a connection that was lost before any response.
    pub(super) fn note_lost(&self, url: &str, error: &reqwest::Error) {
        if url.starts_with("http://") && !error.is_timeout() {
            let _ = self.lost.set(format!(
                "{url}: expected a response over HTTP, found {}; if the listener uses TLS, use https:// with --url, or set \
                 [server] tls_cert and tls_key as in the running gateway",
                causes(error)
            ));
        }
    }
}

/// Returns the error for a URL to which no connection is possible.
pub(super) fn no_connection(url: &str, error: &reqwest::Error) -> String {
    let shown = without_credentials(url);
    let chain = || std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source());
    let os_error = chain().find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error());
    if os_error == Some(Errno::CONNREFUSED.raw_os_error()) {
        return format!("no gateway at {shown}: is `hookhold run` up?");
    }
    let innermost = chain().last().map_or_else(String::new, |error| error.to_string());
    let is_plain = ["wrong version number", "packet length too long", "record layer"].iter().any(|sign| innermost.contains(sign));
    if url.starts_with("https://") && is_plain {
        return format!("{shown}: expected a listener with TLS, found plain HTTP; use http:// with --url");
    }
    if innermost.contains("certificate verify failed") {
        return format!(
            "{shown}: expected a certificate that this machine trusts for this host, found another; use the host name of the \
             certificate, or leave out --url"
        );
    }
    format!("no connection to {shown}: {innermost}; check the URL")
}

/// Returns the URL without a user name and password.
pub(super) fn without_credentials(url: &str) -> String {
    let Ok(mut parsed) = url.parse::<reqwest::Url>() else { return url.to_owned() };
    let is_clean = parsed.set_password(None).is_ok() && parsed.set_username("").is_ok();
    if is_clean { parsed.into() } else { url.to_owned() }
}

/// Returns the explanations of the responses that are not as expected.
pub(super) fn hints(plan: &SendPlan, report: &SendReport) -> Vec<String> {
    let mut hints = Vec::new();
    if report.is_limited() {
        hints.push(LIMITED.to_owned());
    }
    let accepted = plan.source.recipe.replies.accepted.status.as_u16();
    let rejected = plan.source.recipe.replies.rejected.as_u16();
    let name = &plan.source.name;
    let is_other_server = plan.signs.is_other_server.load(Relaxed);
    for status in report.unexpected_of_genuine() {
        let what = format!("genuine deliveries: expected {accepted}, found {status}");
        if status == 400 && plan.url.starts_with("http://") {
            hints.push(format!("{what}; the listener probably expects TLS. Use https:// with --url"));
        } else if is_other_server || !OWN_STATUSES.contains(&status) && status != rejected {
            let url = plan.shown_url();
            hints.push(format!("{what} in a form that hookhold does not send; does another server answer at {url}?"));
        } else if status == rejected {
            hints.push(format!(
                "{what}; the running gateway has another secret than this shell, which has signed. Compare their environments. If \
                 this shell is right, restart the gateway, or send it SIGHUP if the secret is in a file; `hookhold rejections \
                 --source {name}` shows what the gateway says"
            ));
        } else if status == 404 {
            hints.push(format!(
                "{what}; the gateway has no source at this path. `hookhold check --diff` shows what it has not loaded"
            ));
        }
    }
    if !plan.signs.is_answered.load(Relaxed) {
        hints.extend(plan.signs.lost.get().cloned());
    }
    hints
}

/// Statuses with which hookhold rejects a delivery.
const OWN_STATUSES: &[u16] = &[400, 401, 404, 405, 408, 413, 414, 429, 431, 501, 503];
const LIMITED: &str = "--rate: expected a rate within the gateway's limits, found 429 (rate_limited); lower --rate, or raise the \
                       exceeded limit: max_rejected_per_address or max_in_flight_per_address for this address, or max_rate for \
                       the source";
