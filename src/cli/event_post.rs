//! Posts one stored event to a URL, with the headers and the bytes that the provider sent. `dev --forward` and `replay --to URL` use
//! this file. It neither retries nor decides which status is a failure.

use std::net::IpAddr;
use std::time::Duration;

use hookhold::journal::StoredEvent;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{Method, StatusCode};
use reqwest::Url;

/// A URL that receives events, and the HTTP client that posts them.
pub(super) struct EventPost {
    url: Url,
    client: reqwest::Client,
}

impl EventPost {
    /// Creates a client for this URL. Opens no connection.
    pub(super) fn new(url: Url) -> reqwest::Result<EventPost> {
        let client = reqwest::Client::builder().http1_only().no_proxy().redirect(reqwest::redirect::Policy::none());
        // A program on this machine may present any certificate.
        let client = client.danger_accept_invalid_certs(is_on_this_machine(&url)).timeout(RESPONSE_TIMEOUT).build()?;
        Ok(EventPost { url, client })
    }

    /// Returns the URL.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Posts one event, and returns the status of the answer, or the reason for a missing answer. Each header of `more` replaces the
    /// event's headers of the same name.
    pub(super) async fn post(&self, stored: &StoredEvent, more: HeaderMap) -> Result<StatusCode, String> {
        let request = stored.event.request();
        let mut url = self.url.clone();
        if let (None, Some((_, query))) = (url.query(), request.target.split_once('?')) {
            url.set_query(Some(query));
        }
        let method = request.method.parse().unwrap_or(Method::POST);
        let of_event = request.headers.iter().filter(|(name, _)| !OF_THE_CONNECTION.contains(name));
        let mut headers: HeaderMap = of_event.cloned().collect();
        headers.extend(more);
        let response = self.client.request(method, url).headers(headers).body(stored.event.body().clone()).send().await;
        response.map(|response| response.status()).map_err(|error| reason(&error))
    }
}

/// Returns true if the URL names a loopback address or `localhost`.
pub(super) fn is_on_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Returns the reason for a missing answer, without the URL, which the line contains anyway.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if error.is_connect() {
        return "no connection".to_owned();
    }
    let causes: Vec<String> =
        std::iter::successors(std::error::Error::source(error), |cause| cause.source()).map(|cause| cause.to_string()).collect();
    causes.last().cloned().unwrap_or_else(|| "connection lost".to_owned())
}

/// Header fields that belong to the connection to hookhold, and not to the event.
const OF_THE_CONNECTION: &[HeaderName] = &[HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, TE, TRAILER, UPGRADE, EXPECT];
/// Time that the receiver has for an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_on_this_machine_may_present_any_certificate() {
        let is_local = |url: &str| is_on_this_machine(&url.parse().expect("a URL"));
        assert!(["https://localhost:3000/", "https://127.0.0.2/", "https://[::1]:3000/hook"].into_iter().all(is_local));
        assert!(!["https://example.com/", "https://10.0.0.1/", "https://localhost.example.com/"].into_iter().any(is_local));
    }
}
