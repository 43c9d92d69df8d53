//! Variants of a signed URL, with other base URLs and request targets. The sender may have signed such a variant if a proxy
//! rewrote the URL, or if the provider's dashboard contains a different URL.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use hookhold::log::escaped;
use hookhold::source::url::PublicUrl;
use http::Uri;

use super::captured::CapturedDelivery;
use super::cause::Cause;

/// A signed URL in two parts: the base URL and the request target.
pub(super) struct SignedUrl {
    pub(super) public_url: PublicUrl,
    pub(super) target: String,
}

/// Returns the URLs that the sender may have signed instead of the URL that hookhold expects. Returns an empty list if the
/// recipe signs no URL.
pub(super) fn all(captured: &CapturedDelivery) -> Vec<(SignedUrl, Cause)> {
    let source = &captured.source;
    let Some(own) = source.public_url.as_ref().filter(|_| source.recipe.signs_url()) else { return Vec::new() };
    let mut seen = BTreeSet::from([format!("{}{}", own.as_written(), captured.delivery.target)]);
    let mut found = Vec::new();
    for target in targets(captured) {
        for base in bases(captured, own) {
            if seen.insert(format!("{base}{target}")) {
                let cause = cause(captured, own, &base, &target);
                found.push((SignedUrl { public_url: PublicUrl::new(&base), target: target.clone() }, cause));
            }
        }
    }
    found
}

/// Returns base URLs with combinations of scheme, credentials, host, port and path prefix, starting with the configured parts.
fn bases(captured: &CapturedDelivery, own: &PublicUrl) -> Vec<String> {
    let urls = captured.others.iter().filter_map(|other| other.public_url.as_ref()).chain([own]);
    let parsed: Vec<Uri> = [own].into_iter().chain(urls).filter_map(|url| url.as_written().parse().ok()).collect();
    let forwarded = ["x-forwarded-host", "x-original-host", "host"].map(|name| header(captured, name));
    let without_user = |host: &str| host.rsplit('@').next().unwrap_or_default().to_owned();
    let hosts = parsed.iter().filter_map(|url| url.authority().map(|host| without_user(host.as_str())));
    let hosts = distinct(hosts.chain(forwarded.into_iter().flatten()));
    let credentials = distinct([own.credentials().to_owned(), String::new()].into_iter().chain(basic_credentials(captured)));
    let prefixes = parsed.iter().map(|url| url.path().trim_end_matches('/').to_owned());
    let prefixes = distinct(prefixes.chain([String::new()]).chain(header(captured, "x-forwarded-prefix")));
    let schemes = if own.as_written().starts_with("http://") { ["http", "https"] } else { ["https", "http"] };
    let each = |host: &String| {
        let bases = credentials.iter().flat_map(|user| schemes.map(|scheme| format!("{scheme}://{user}{host}")));
        bases.flat_map(|base| prefixes.iter().map(move |prefix| format!("{base}{prefix}"))).collect::<Vec<_>>()
    };
    hosts.iter().flat_map(each).collect()
}

/// Returns user and password of the header `Authorization` as they are written in a URL, with `@`. A sender that calls a URL
/// with credentials sends this header, and signs the URL with them.
fn basic_credentials(captured: &CapturedDelivery) -> Option<String> {
    let value = captured.delivery.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = STANDARD_PAD_INDIFFERENT.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(decoded).ok().filter(|text| !text.contains(['/', '?', '#']))?;
    Some(format!("{text}@"))
}

fn targets(captured: &CapturedDelivery) -> Vec<String> {
    let arrived = &captured.delivery.target;
    let (path, query) = arrived.split_at(arrived.find('?').unwrap_or(arrived.len()));
    let slashed = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
    let before = ["x-original-uri", "x-forwarded-uri", "x-original-url", "x-rewrite-url"].map(|name| header(captured, name));
    let variants = [format!("{slashed}{query}"), format!("{}{query}", captured.source.path), path.to_owned()];
    distinct([arrived.clone()].into_iter().chain(variants).chain(before.into_iter().flatten()))
}

fn cause(captured: &CapturedDelivery, own: &PublicUrl, base: &str, target: &str) -> Cause {
    let path = |target: &str| escaped(target.split('?').next().unwrap_or_default());
    let (name, arrived) = (&captured.source.name, &captured.delivery.target);
    let query = if target.contains('?') == arrived.contains('?') { "" } else { ", with a different query" };
    // The URL may contain a password, which `PublicUrl` masks.
    let shown = escaped(&PublicUrl::new(base).to_string());
    let password = if shown == own.to_string() && base != own.as_written() { ", with another password" } else { "" };
    let signed = format!("{shown}{}{query}{password}", path(target));
    let what = format!("the sender signed the URL {signed}; hookhold expects {own}{}", path(arrived));
    let advice = if target == arrived {
        format!("set public_url = \"{shown}\" in [sources.{name}], or correct the URL at the sender")
    } else {
        "enter the expected URL at the sender, or make the proxy forward the path and the query unchanged".to_owned()
    };
    Cause::certain("public_url", what, advice)
}

fn header(captured: &CapturedDelivery, name: &str) -> Option<String> {
    let text = captured.delivery.headers.get(name)?.to_str().ok()?;
    text.split(',').next().map(|first| first.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Returns the first [`MAX_PARTS`] distinct strings of `texts`, in the order of `texts`.
fn distinct(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    texts.into_iter().filter(|text| seen.insert(text.clone())).take(MAX_PARTS).collect()
}

/// Maximum number of hosts to try. The same maximum applies to path prefixes and to request targets. The maximum is low,
/// because the search tries all combinations.
const MAX_PARTS: usize = 16;
