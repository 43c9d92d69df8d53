//! Collects the causes that explain the verdict on a delivery, most certain first, with a remedy for each cause.

use hookhold::event::Event;
use hookhold::log::escaped;
use hookhold::outcome::Outcome;
use hookhold::source::key::Key;
use hookhold::source::key_kind::foreign_kind;
use hookhold::verify::{Rejection, Verdict};
use http::{Method, Uri};
use memchr::memmem;

use super::captured::CapturedDelivery;
use super::cause::{Cause, Certainty};
use super::{compression, credentials, other_sources, query_orders, schemes, search, timing};

/// Returns the causes that explain the verdict on a delivery, most certain first. The list can also explain a verified
/// delivery, for example if the source does not list the event type, or if the request path is wrong.
pub(super) fn causes(captured: &CapturedDelivery, verdict: &Result<Verdict, Rejection>) -> Vec<Cause> {
    let mut causes = match verdict {
        Ok(verdict) => filtered(captured, verdict).into_iter().collect(),
        Err(rejection) => rejected(captured, rejection),
    };
    causes.extend(other_path(captured));
    causes.sort_by_key(|cause| cause.certainty);
    causes
}

fn filtered(captured: &CapturedDelivery, verdict: &Verdict) -> Option<Cause> {
    let events: Vec<&Event> = match verdict {
        Verdict::Event(verified) => vec![&verified.event],
        Verdict::Batch(batch) => batch.items.iter().map(|item| &item.event).collect(),
        Verdict::Challenge(_) | Verdict::UnsignedChallenge(_) => Vec::new(),
    };
    let is_wanted = |event: &&Event| captured.source.types.accepts(event.event_type());
    let kind = events.first()?.event_type().filter(|_| !events.iter().any(is_wanted))?;
    let what =
        format!("the source's `types` option does not list {}, so hookhold answers with 2xx but stores no event", escaped(kind));
    let advice = format!("add the event type to types in [sources.{}] to store such events", captured.source.name);
    Some(Cause::certain("filtered", what, advice))
}

fn rejected(captured: &CapturedDelivery, rejection: &Rejection) -> Vec<Cause> {
    let hint = without_remedy(&rejection.hint);
    match rejection.outcome {
        Outcome::MethodNotAllowed => vec![Cause::certain("method", hint, "configure the sender or the proxy to use POST")],
        Outcome::AddressNotAllowed => vec![other_address(captured)],
        Outcome::ClientCertificateMissing | Outcome::ClientCertificateInvalid => {
            let advice = "if the sender supports mutual TLS, enable it in the sender's dashboard, and compare client_ca and \
                          client_subject with the sender's documentation; a proxy in front of hookhold must forward the TLS \
                          connection without terminating it";
            vec![Cause::certain("client_certificate", hint, advice)]
        }
        Outcome::TooLarge if hint.starts_with("batch: ") => {
            vec![Cause::certain("too_many_items", hint, "raise max_items of the source if such batches are genuine")]
        }
        Outcome::TooLarge => vec![Cause::certain("too_large", hint, "raise the source's max_body if such bodies are genuine")],
        Outcome::KeyUnavailable => {
            let advice =
                "download the key from this URL, check that the URL belongs to the sender, and list the key in public_keys";
            vec![Cause::certain("key_not_listed", hint, advice)]
        }
        Outcome::SignatureMismatch if rejection.hint.starts_with("signed content: ") => vec![signed_for_anyone(hint)],
        _ if timing::is_about_time(rejection) => vec![timing::late_or_early(captured, rejection)],
        Outcome::SignatureMissing if captured.delivery.method != Method::POST => {
            let advice = "compare when in the recipe with the query and the headers of the request; if the sender sends a verify \
                          token, compare the token with the sender's dashboard";
            vec![Cause::certain("challenge_unmet", hint, advice)]
        }
        Outcome::SignatureMissing => {
            let found =
                credentials::not_stored(captured, rejection).map_or_else(|| schemes::causes(captured), |cause| vec![cause]);
            let found = or_else(found, || other_sources::causes(captured));
            or_else(found, || vec![unsigned(captured, hint)])
        }
        _ => {
            let found = or_else(search::fewest_changes(captured), || schemes::causes(captured));
            let found = or_else(found, || query_orders::causes(captured));
            let found = or_else(found, || credentials::causes(captured, rejection));
            let found = or_else(found, || other_sources::causes(captured));
            or_else(found, || unexplained(captured, rejection))
        }
    }
}

/// Returns a hint without its remedy. Doctor prints a remedy of its own, which is more detailed.
fn without_remedy(hint: &str) -> &str {
    hint.rsplit_once("; ").map_or(hint, |(statement, _)| statement)
}

fn or_else(found: Vec<Cause>, rest: impl FnOnce() -> Vec<Cause>) -> Vec<Cause> {
    if found.is_empty() { rest() } else { found }
}

fn other_address(captured: &CapturedDelivery) -> Cause {
    let what = format!("the source's allow_from does not include the address {}", captured.delivery.remote.ip());
    let advice = format!(
        "if the address belongs to the sender, add the address to allow_from in [sources.{}]; if the address belongs to your \
         own proxy, add the address to [server] trusted_proxies",
        captured.source.name
    );
    Cause::certain("address", what, advice)
}

/// Returns the cause of a rejected delivery whose signature matches, but whose content any sender can have signed.
fn signed_for_anyone(hint: &str) -> Cause {
    let what = format!("the signature matches, but it proves nothing about the sender; {hint}");
    let advice = "if you sent this delivery as a test, send a JSON body; if the sender's events are texts of this form, remove \
                  hmac from the challenge in the recipe; otherwise, the delivery is a forgery";
    Cause::certain("signed_for_anyone", what, advice)
}

fn unsigned(captured: &CapturedDelivery, hint: &str) -> Cause {
    let title = &captured.source.recipe.title;
    let title = if title.is_empty() { "the sender" } else { title };
    let advice = format!(
        "enter a secret at the sender (some senders sign only if a secret is set); if the header is still absent, look for a \
         proxy that removes the header; if no proxy removes the header, the delivery is not from {title}"
    );
    Cause::certain("signature_absent", hint, advice)
}

/// Returns the causes to report for a rejection if the search finds no variant that verifies.
fn unexplained(captured: &CapturedDelivery, rejection: &Rejection) -> Vec<Cause> {
    let mut causes = Vec::new();
    if rejection.outcome == Outcome::SignatureMalformed {
        let advice = "compare the header with the provider's documentation; a proxy may have truncated or rewritten the header";
        return vec![Cause::certain("signature_unreadable", without_remedy(&rejection.hint), advice)];
    }
    let body = &captured.delivery.body;
    if let Some(declared) = captured.declared.filter(|declared| *declared != body.len() as u64) {
        let what = format!("the recording contains only {} of the body's {declared} bytes", body.len());
        let advice = match captured.rejected_as {
            Some(_) => {
                "raise [admin] keep_rejected_bodies, or record a request in front of hookhold and pass it with --request FILE"
            }
            None => "record the complete request again, byte for byte",
        };
        causes.push(Cause::likely("body_incomplete", what, advice));
    }
    if has_lost_characters(body) {
        let what = "the body is not UTF-8 or contains U+FFFD, probably because its characters were converted in transit";
        causes.push(Cause::likely("body_charset", what, "make every hop forward the body byte for byte"));
    }
    causes.extend(altered_body(captured, rejection));
    causes.extend(compression::removed(captured));
    if is_about_body(rejection) {
        return causes;
    }
    causes.extend(captured.source.keys.iter().filter_map(|key| wrong_kind(captured, key)));
    causes.push(other_secret(captured));
    let place = if captured.rejected_as.is_some() { "before hookhold received it" } else { "in transit or during recording" };
    let what = format!(
        "the body changed {place}, and doctor cannot undo the change; examples are reordered JSON members and rewritten numbers or \
         characters"
    );
    causes.push(Cause::possible("body_changed", what, "compare the body with the payload in the sender's dashboard"));
    if captured.source.recipe.signs_url() {
        let what = "the sender signed a URL that doctor cannot derive from the request";
        let advice = "compare public_url and the path with the URL in the sender's dashboard, character by character";
        causes.push(Cause::possible("public_url", what, advice));
    }
    causes
}

/// Returns true for a text with U+FFFD, which replaces bytes that are not UTF-8, and for a text that is not UTF-8. A binary body
/// without U+FFFD, such as a compressed one, shows no conversion.
fn has_lost_characters(body: &[u8]) -> bool {
    const UTF_16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
    let is_text = !body.iter().any(|byte| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r'));
    let is_utf16 = UTF_16_MARKS.iter().any(|mark| body.starts_with(mark));
    memmem::find(body, REPLACEMENT).is_some() || ((is_text || is_utf16) && std::str::from_utf8(body).is_err())
}

/// Returns a cause for a body that a gateway has emptied, or that differs from a signed hash. Without such a hash, a request
/// with an empty body does not show that the sender signed another body.
fn altered_body(captured: &CapturedDelivery, rejection: &Rejection) -> Option<Cause> {
    const FIND: &str = "find the API gateway, function or middleware in front of hookhold that reads the body, and make it forward \
                        the body; many frameworks read a body only once";
    let body = &captured.delivery.body;
    let is_empty = body.is_empty() && captured.declared.unwrap_or_default() == 0;
    if let Some(left) = LEFT_OF_BODIES.iter().find(|left| **left == body.trim_ascii()) {
        let left = left.escape_ascii();
        let what = format!("the body is only {left}, which web frameworks write in place of a body that they have not read");
        return Some(Cause::likely("body_emptied", what, FIND));
    }
    match (is_about_body(rejection), is_empty) {
        (true, true) => {
            Some(Cause::certain("body_emptied", "the body is empty, but the signed hash is that of another body", FIND))
        }
        (true, false) => {
            let what =
                "the signature is genuine, but the body is not the one whose hash is signed; doctor cannot undo the change";
            Some(Cause::certain("body_changed", what, "compare the body with the payload in the sender's dashboard"))
        }
        (false, true) => {
            Some(Cause::likely("body_emptied", "the body is empty, and the sender did not sign an empty body", FIND))
        }
        (false, false) => None,
    }
}

/// Returns true if the signature is genuine and only the hash of the body differs.
fn is_about_body(rejection: &Rejection) -> bool {
    rejection.outcome == Outcome::SignatureMismatch && rejection.hint.starts_with("body: expected the hash ")
}

/// Returns a cause if the form of a configured secret shows that it is no signing secret.
fn wrong_kind(captured: &CapturedDelivery, key: &Key) -> Option<Cause> {
    let kind = foreign_kind(&key.configured().bytes).filter(|_| !key.is_public)?;
    let source = &captured.source;
    let what = format!("the secret {} is {kind} instead of a signing secret", key.name);
    let page = &source.recipe.setup.secret;
    let page = if page.is_empty() { "the page of the sender that shows the signing secret" } else { page };
    let advice = format!("copy the secret from {page}, and write it to the variable or the file of {}", key.name);
    // A recipe of the operator may describe a sender that signs with such a key.
    let certainty = if source.provider.is_some() { Certainty::Certain } else { Certainty::Likely };
    Some(Cause { certainty, ..Cause::certain("key_kind", what, advice) })
}

fn other_secret(captured: &CapturedDelivery) -> Cause {
    let source = &captured.source;
    let names: Vec<&str> = source.keys.iter().map(|key| &*key.name).collect();
    let is_wrapped = source.keys.iter().any(|key| key.configured().is_wrapped());
    let wrapped = if is_wrapped { "; a configured secret is wrapped in whitespace or quotes" } else { "" };
    let what = format!("the sender signed with a secret other than {}{wrapped}", names.join(", "));
    let page = &source.recipe.setup.secret;
    let page = if page.is_empty() { "the secret at the sender" } else { page };
    let advice = format!(
        "compare the configured secret with {page}; the configured secret may be out of date, or may belong to another \
         endpoint or to test mode"
    );
    // A request does not show which secret signed it. The only evidence is whitespace or quotes around a configured secret.
    let certainty = if is_wrapped { Certainty::Likely } else { Certainty::Possible };
    Cause { certainty, ..Cause::possible("other_secret", what, advice) }
}

/// Returns a cause if the request path differs from the path of the source, otherwise `None`. The certainty of this cause is
/// `Possible`, because a proxy may change the request path after the recording.
fn other_path(captured: &CapturedDelivery) -> Option<Cause> {
    let arrived = captured.delivery.target.parse::<Uri>().ok()?.path().to_owned();
    let own = &captured.source.path;
    let what = format!("the request has the path {}, but the path of the source is {own}", escaped(&arrived));
    let advice = "correct the URL at the sender, or make your proxy change the path, so that requests arrive at the path of \
                  the source";
    (arrived != *own).then(|| Cause::possible("path", what, advice))
}

/// U+FFFD in UTF-8.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
/// The texts that web frameworks write in place of a body that they have not read, and that no sender signs. A sender may sign
/// `{}` or `null`.
const LEFT_OF_BODIES: [&[u8]; 2] = [b"undefined", b"[object Object]"];
