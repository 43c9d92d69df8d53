//! Checks a request head before the server reads the body. The first failed check determines the response.
//!
//! [`judge_head`] is a pure function: it uses no connection, clock or counter. `hookhold doctor` calls this function
//! with a stored request and gets the same result as the server.

use std::net::IpAddr;

use http::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode, Version};

use crate::answer::Answer;
use crate::client_certificate::{ClientCertificate, NO_CERTIFICATE};
use crate::clock::UnixMillis;
use crate::gateway::{self, Verifier};
use crate::limits::ServerLimits;
use crate::log::escaped;
use crate::outcome::Outcome;
use crate::source::Source;

/// Parts of a request that the server knows before it reads the body.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// Method of the request.
    pub method: &'a Method,
    /// Path and query, exactly as in the request target.
    pub target: &'a str,
    /// Header fields of the request.
    pub headers: &'a HeaderMap,
    /// Address of the sender; `None` if the address is unknown. Without an address, [`judge_head`] does not check
    /// `allow_from`.
    pub sender: Option<IpAddr>,
    /// Certificate of the client, and whether it is known.
    pub certificate: PresentedCertificate<'a>,
    /// Body length that the request announces, in bytes; `None` if the request announces no length (for example, a
    /// chunked body).
    pub content_length: Option<u64>,
}

/// Certificate that a client has presented in its TLS handshake.
#[derive(Clone, Copy)]
pub enum PresentedCertificate<'a> {
    /// hookhold does not know whether the client has presented a certificate. [`judge_head`] then does not check it.
    Unknown,
    /// The client has presented no certificate.
    None,
    /// The client has presented this certificate. The request arrived at this time.
    Some(&'a ClientCertificate, UnixMillis),
}

/// Checks the length of the request target, the method, the sender's address, the client's certificate, the signature header and
/// the announced body length, in this order. Returns the maximum size of the body in bytes. The error is the [`Answer`] to the
/// request, with the outcome and a hint for the operator.
pub fn judge_head(verifier: &Verifier, head: RequestHead<'_>) -> Result<usize, Answer> {
    let source = verifier.source();
    judge_route(source, head)?;
    let max_body = gateway::precheck(verifier, head.method, head.target, head.headers)?;
    match head.content_length {
        Some(length) if length > max_body as u64 => {
            let (limit, remedy) = match max_body < source.max_body {
                true => ("the limit of a request without a proof", "configure a secret in the sender's dashboard"),
                false => ("max_body of this source", "raise max_body for a genuine sender"),
            };
            let hint = format!("content-length: expected at most {max_body} ({limit}), found {length}; {remedy}");
            Err(Answer::plain(Outcome::TooLarge).with_hint(hint))
        }
        _ => Ok(max_body),
    }
}

/// Checks the length of the request target, the method, the sender's address and the client's certificate. These checks are enough
/// for a request whose small body has arrived together with the head: the verification finds a missing or malformed signature just
/// as early.
pub(super) fn judge_route(source: &Source, head: RequestHead<'_>) -> Result<(), Answer> {
    if head.target.len() > MAX_TARGET_BYTES {
        let answer = Answer { status: StatusCode::URI_TOO_LONG, ..Answer::plain(Outcome::BadRequest) };
        let found = head.target.len();
        let hint =
            format!("request target: expected at most {MAX_TARGET_BYTES} bytes, found {found}; shorten the URL at the sender");
        return Err(answer.with_hint(hint));
    }
    if !source.recipe.accepts_method(head.method) {
        let words: Vec<&str> = source.recipe.methods().into_iter().map(Method::as_str).collect();
        let (words, method) = (words.join(" or "), escaped(head.method.as_str()));
        let hint = format!("method: expected {words}, found {method}; configure the sender to use POST");
        return Err(gateway::method_not_allowed(source, hint));
    }
    if let Some(address) = head.sender.filter(|address| !source.allows_address(*address)) {
        let hint =
            format!("sender address: expected one in allow_from, found {address}; add it to allow_from or trusted_proxies");
        let answer = Answer::plain(Outcome::AddressNotAllowed).with_hint(hint);
        return Err(Answer { status: source.recipe.replies.rejected, ..answer });
    }
    check_certificate(source, head.certificate).map_err(|(outcome, hint)| {
        let answer = Answer::plain(outcome).with_hint(hint);
        Answer { status: source.recipe.replies.rejected, ..answer }
    })
}

fn check_certificate(source: &Source, presented: PresentedCertificate<'_>) -> Result<(), (Outcome, String)> {
    let Some(condition) = &source.clients.certificate else { return Ok(()) };
    match presented {
        PresentedCertificate::Unknown => Ok(()),
        PresentedCertificate::None => Err((Outcome::ClientCertificateMissing, NO_CERTIFICATE.to_owned())),
        PresentedCertificate::Some(certificate, now) => {
            condition.check(certificate, now).map_err(|what| (Outcome::ClientCertificateInvalid, what))
        }
    }
}

/// Checks the parts of a request head that another server on the path may read in another way: `Host` and `Transfer-Encoding`.
/// hyper checks neither. The error is the [`Answer`] to the request, after which the connection must close.
pub(super) fn check_form(head: &Parts) -> Result<(), Answer> {
    let bad_request = |hint: String| Err(Answer::plain(Outcome::BadRequest).with_hint(hint));
    let mut hosts = head.headers.get_all(HOST).iter();
    let authority = head.uri.authority().map(Authority::as_str);
    let is_authority = |host: &[u8]| authority.is_none_or(|text| text.as_bytes().eq_ignore_ascii_case(host));
    match (hosts.next().map(HeaderValue::as_bytes), hosts.next()) {
        (_, Some(_)) => return bad_request("host: expected one field, found several; correct the sender".into()),
        (Some(host), None) if !host.iter().all(|byte| is_host_byte(*byte)) => {
            return bad_request("host: expected a host and a port, found another text; correct the sender".into());
        }
        (Some(host), None) if head.version == Version::HTTP_2 && !is_authority(host) => {
            return bad_request("host: expected the same text as in :authority, found another one; correct the sender".into());
        }
        (None, _) if head.version == Version::HTTP_11 || (head.version == Version::HTTP_2 && authority.is_none()) => {
            return bad_request("host: expected one field, found none; correct the sender".into());
        }
        _ => {}
    }
    let encodings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let codings: Vec<&[u8]> = encodings.flat_map(|field| field.as_bytes().split(|byte| *byte == b',')).collect();
    let is_chunked = |coding: &&[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    match codings.split_last() {
        None => Ok(()),
        Some((last, [])) if is_chunked(last) => Ok(()),
        Some((last, others)) if is_chunked(last) && !others.iter().any(is_chunked) => {
            let hint = "transfer-encoding: expected chunked, found another coding before it; compress with content-encoding";
            let answer = Answer::plain(Outcome::BadRequest).with_hint(hint);
            Err(Answer { status: StatusCode::NOT_IMPLEMENTED, ..answer })
        }
        Some(_) => bad_request("transfer-encoding: expected chunked once, found it several times; correct the sender".into()),
    }
}

/// Returns true if a host or a port may contain this byte (RFC 3986, section 3.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte)
}

/// Returns true if an HTTP/2 request head exceeds `max_header_size` or `max_headers`. Over HTTP/1.1, hyper enforces
/// both limits.
pub(super) fn is_too_large(head: &Parts, limits: &ServerLimits) -> bool {
    let headers = &head.headers;
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() + target;
    size > limits.max_header_size || headers.len() > limits.max_headers
}

/// Largest accepted length of a request target, in bytes. Even the URLs of providers that sign the query are far
/// shorter.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;
