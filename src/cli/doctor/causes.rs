//! Why: every cause in the order of its certainty, each with what to do.

use hookhold::log::escaped;
use hookhold::outcome::Outcome;
use hookhold::units::duration_text;
use hookhold::verify::{Rejection, Verdict};
use http::Uri;

use super::cause::{Cause, Certainty};
use super::{Case, Diagnosis, others, search};

/// What is behind a verdict, the surest first. A delivery that verifies may still be unwanted, or have gone elsewhere.
pub fn of(case: &Case, verdict: &Diagnosis) -> Vec<Cause> {
    let mut causes = match verdict {
        Ok(believed) => unwanted(case, believed).into_iter().collect(),
        Err(refusal) => behind(case, refusal),
    };
    causes.extend(path(case));
    causes.sort_by_key(|cause| cause.certainty);
    causes
}

fn unwanted(case: &Case, believed: &Verdict) -> Option<Cause> {
    let Verdict::Event(verified) = believed else { return None };
    let kind = verified.event.event_type().filter(|kind| !case.source.types.accepts(Some(kind)))?;
    let what = format!("the types of the source do not list {}: it is answered, and not kept", escaped(kind));
    Some(Cause::certain("filtered", what, format!("list the type in [sources.{}] if you want it", case.source.name)))
}

fn behind(case: &Case, refusal: &Rejection) -> Vec<Cause> {
    let hint = &refusal.hint;
    match refusal.outcome {
        Outcome::MethodNotAllowed => vec![Cause::certain("method", hint, "have the sender, or the proxy, use POST")],
        Outcome::AddressNotAllowed => vec![address(case, hint)],
        Outcome::TooLarge => vec![Cause::certain("too_large", hint, "raise max_body of the source if such bodies are genuine")],
        _ if search::is_late(refusal) => vec![clock(case, refusal)],
        Outcome::SignatureMissing => or_else(others::claims(case), || vec![unsigned(case, hint)]),
        _ => {
            let found = search::changes(case);
            let found = if found.is_empty() { others::claims(case) } else { found };
            or_else(found, || unexplained(case, refusal))
        }
    }
}

fn address(case: &Case, hint: &str) -> Cause {
    let advice = format!(
        "if it is the sender's, add it to allow_from of [sources.{}]; if it is your own proxy's, name that in [server] trusted_proxies",
        case.source.name
    );
    Cause::certain("address", hint, advice)
}

fn or_else(found: Vec<Cause>, rest: impl FnOnce() -> Vec<Cause>) -> Vec<Cause> {
    if found.is_empty() { rest() } else { found }
}

/// A genuine delivery whose time does not fit.
pub fn clock(case: &Case, refusal: &Rejection) -> Cause {
    let judged = if case.is_time_given { "" } else { " (judged as if it arrived now)" };
    let what = format!("the signature is genuine, but the time does not fit: {}{judged}", refusal.hint);
    let past = case.source.recipe.timestamp.as_ref().map(|rule| duration_text(rule.past)).unwrap_or_default();
    let when = when(case);
    let cause = match refusal.outcome {
        Outcome::TimestampFuture => Cause::certain(
            "clock",
            what,
            format!("{when}compare this machine's clock with a time server (it is behind), and the sender's (it is ahead)"),
        ),
        _ => Cause::certain(
            "stale",
            what,
            format!(
                "{when}compare this machine's clock with a time server (it may be ahead); else something held the request back for \
                 more than {past}, or replayed it: have the sender send it again"
            ),
        ),
    };
    cause.at_its_time(case)
}

/// Stands before what is to be done when the time of receipt shows the same.
pub fn when(case: &Case) -> &'static str {
    if case.is_time_given { "" } else { "give the time of receipt with --at; if it is refused then, too: " }
}

fn unsigned(case: &Case, hint: &str) -> Cause {
    let title = sender(case);
    let advice = format!(
        "enter a secret at the sender (without one, some do not sign), see that no proxy removes the header; else it is not from {title}"
    );
    Cause::certain("signature_absent", hint, advice)
}

/// No variant was proved.
fn unexplained(case: &Case, refusal: &Rejection) -> Vec<Cause> {
    let mut causes = Vec::new();
    if refusal.outcome == Outcome::SignatureMalformed {
        let advice = "compare the header with what the provider documents; a proxy may have cut or rewritten it";
        return vec![Cause::certain("signature_unreadable", &refusal.hint, advice)];
    }
    let body = &case.delivery.body;
    if let Some(declared) = case.declared.filter(|declared| *declared != body.len() as u64) {
        let what = format!("the file holds {} bytes of a body that had {declared}", body.len());
        causes.push(Cause::likely("body_incomplete", what, "record the request again, whole and byte for byte"));
    }
    if String::from_utf8_lossy(body).contains(char::REPLACEMENT_CHARACTER) {
        let what = "the body is not UTF-8, or has U+FFFD where letters were: its letters were converted on the way";
        causes.push(Cause::likely("body_charset", what, "have the body handed on byte for byte"));
    }
    causes.push(other_secret(case));
    let what = "the body was changed, on the way or when it was recorded, so that it cannot be undone: JSON members in another order, other digits, other letters";
    causes.push(Cause::possible("body_changed", what, "compare it with the body that the sender's dashboard shows"));
    if case.source.recipe.signs_url() {
        let what = "the sender signed a URL that nothing in the request hints at";
        let advice = "compare public_url and the path with the URL in the sender's dashboard, letter for letter";
        causes.push(Cause::possible("public_url", what, advice));
    }
    causes
}

fn other_secret(case: &Case) -> Cause {
    let names: Vec<&str> = case.source.secrets.iter().map(|key| &*key.name).collect();
    let is_odd = case.source.secrets.iter().any(|key| key.configured().is_wrapped());
    let odd = if is_odd { "; the configured one has white space or quotation marks around it besides" } else { "" };
    let what = format!("another secret signed it than {}{odd}", names.join(", "));
    let place = &case.source.recipe.setup.secret;
    let place = if place.is_empty() { "at the sender" } else { place };
    let advice = format!("compare it with {place}: rolled, of another endpoint, or of test mode?");
    // Nothing in a request tells the work of one secret from that of another; only what is odd about ours is a hint.
    let certainty = if is_odd { Certainty::Likely } else { Certainty::Possible };
    Cause { certainty, ..Cause::possible("other_secret", what, advice) }
}

/// A request that was recorded in front of a proxy may have had another path there.
fn path(case: &Case) -> Option<Cause> {
    let arrived = case.delivery.target.parse::<Uri>().ok()?.path().to_owned();
    let own = &case.source.path;
    let advice = "see that the sender's URL, or the proxy behind the place where this was recorded, leads to that path";
    let what = format!("it went to {}, and the source listens on {own}", escaped(&arrived));
    (arrived != *own).then(|| Cause::possible("path", what, advice))
}

fn sender(case: &Case) -> &str {
    let title = &case.source.recipe.title;
    if title.is_empty() { "the sender" } else { title }
}
