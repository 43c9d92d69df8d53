//! Checks a captured delivery with the same code as the gateway.

use std::sync::Arc;

use hookhold::clock::UnixMillis;
use hookhold::event::Delivery;
use hookhold::outcome::Outcome;
use hookhold::server::{PresentedCertificate, RequestHead, judge_head};
use hookhold::source::{Providers, Source};
use hookhold::verify::{Rejection, Verdict, Verifier};

/// A captured delivery and the sources to which it may belong.
pub(super) struct CapturedDelivery {
    pub(super) source: Arc<Source>,
    /// All configured sources except `source`.
    pub(super) others: Arc<[Arc<Source>]>,
    /// The recipes that a source can name.
    pub(super) providers: Providers,
    pub(super) delivery: Delivery,
    /// Body length in bytes from the `Content-Length` header, or `None` if this header is absent or not a number.
    pub(super) declared: Option<u64>,
    /// True if the time of receipt is known.
    pub(super) is_time_given: bool,
    /// Outcome with which hookhold rejected the delivery. `None` for a request from a file. The sender's address of
    /// such a request is unknown, so `judge` does not check the address.
    pub(super) rejected_as: Option<String>,
    /// Outcome and hint of a delivery that hookhold rejected because of its client certificate. A stored delivery does
    /// not contain the certificate, so `judge` cannot check the certificate again.
    pub(super) certificate_rejection: Option<(Outcome, String)>,
    /// Number of the stored rejections with the same cause. 0 for a request from a file.
    pub(super) alike: u64,
}

impl CapturedDelivery {
    /// Checks the delivery as the gateway does, but without the limits that depend on other deliveries. Returns the verdict of
    /// the verifier, or the first rejection.
    pub(super) fn judge(&self) -> Result<Verdict, Rejection> {
        let CapturedDelivery { source, delivery, .. } = self;
        let head = RequestHead {
            method: &delivery.method,
            target: &delivery.target,
            headers: &delivery.headers,
            sender: self.rejected_as.as_ref().map(|_| delivery.remote.ip()),
            certificate: PresentedCertificate::Unknown,
            content_length: self.declared,
        };
        if let Some((outcome, hint)) = self.certificate_rejection.clone().filter(|_| source.clients.certificate.is_some()) {
            return Err(Rejection::new(outcome, hint));
        }
        let verifier = Verifier::new(source.clone());
        let limit = judge_head(&verifier, head).map_err(|answer| Rejection::new(answer.outcome, answer.hint))?;
        let size = delivery.body.len();
        if size > limit {
            let hint = format!(
                "body: expected at most {limit} bytes (max_body of this source), found {size}; raise max_body for a genuine \
                 sender"
            );
            return Err(Rejection::new(Outcome::TooLarge, hint));
        }
        verifier.verify(delivery)
    }
}

/// Parses a time of receipt in RFC 3339 or in Unix seconds. Returns an error message for any other text.
pub(super) fn parse_time(text: &str) -> Result<UnixMillis, String> {
    let seconds = text.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1000));
    let rfc3339 = || text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_millisecond()).ok());
    let expected = "a time in RFC 3339, such as 2026-11-21T07:08:13Z, or in seconds since 1970";
    seconds.or_else(rfc3339).map(UnixMillis).ok_or_else(|| format!("expected {expected}, found {text:?}"))
}
