//! Which URL the sender may have signed: the configured one and the request target, with what proxies and dashboards change.

use std::collections::BTreeSet;

use hookhold::log::escaped;
use hookhold::source::url::PublicUrl;
use http::Uri;

use super::Case;
use super::cause::Cause;

/// A URL in the two parts of which a signed one consists.
pub struct Called {
    pub public_url: PublicUrl,
    pub target: String,
}

/// Every other URL that may have been signed; none where no URL is signed.
pub fn variants(case: &Case) -> Vec<(Called, Cause)> {
    let Some(own) = case.source.public_url.as_ref().filter(|_| case.source.recipe.signs_url()) else { return Vec::new() };
    let mut seen = BTreeSet::from([format!("{}{}", own.as_written(), case.delivery.target)]);
    let mut found = Vec::new();
    for target in targets(case) {
        for base in bases(case, own) {
            if seen.insert(format!("{base}{target}")) {
                let cause = cause(case, own, &base, &target);
                found.push((Called { public_url: PublicUrl::new(&base), target: target.clone() }, cause));
            }
        }
    }
    found
}

/// Scheme, host, port and prefix, the configured ones first.
fn bases(case: &Case, own: &PublicUrl) -> Vec<String> {
    let urls = case.others.iter().filter_map(|other| other.public_url.as_ref()).chain([own]);
    let parsed: Vec<Uri> = [own].into_iter().chain(urls).filter_map(|url| url.as_written().parse().ok()).collect();
    let forwarded = ["x-forwarded-host", "x-original-host", "host"].map(|name| header(case, name));
    let hosts = parsed.iter().filter_map(|url| url.authority().map(|host| host.to_string()));
    let hosts = in_order(hosts.chain(forwarded.into_iter().flatten()));
    let prefixes = parsed.iter().map(|url| url.path().trim_end_matches('/').to_owned());
    let prefixes = in_order(prefixes.chain([String::new()]).chain(header(case, "x-forwarded-prefix")));
    let schemes = if own.as_written().starts_with("http://") { ["http", "https"] } else { ["https", "http"] };
    let each = |host: &String| {
        let urls = prefixes.iter().flat_map(|prefix| schemes.map(|scheme| format!("{scheme}://{host}{prefix}")));
        urls.collect::<Vec<_>>()
    };
    hosts.iter().flat_map(each).collect()
}

fn targets(case: &Case) -> Vec<String> {
    let arrived = &case.delivery.target;
    let (path, query) = arrived.split_at(arrived.find('?').unwrap_or(arrived.len()));
    let slashed = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
    let before = ["x-original-uri", "x-forwarded-uri", "x-original-url", "x-rewrite-url"].map(|name| header(case, name));
    let variants = [format!("{slashed}{query}"), format!("{}{query}", case.source.path), path.to_owned()];
    in_order([arrived.clone()].into_iter().chain(variants).chain(before.into_iter().flatten()))
}

fn cause(case: &Case, own: &PublicUrl, base: &str, target: &str) -> Cause {
    let path = |target: &str| escaped(target.split('?').next().unwrap_or_default());
    let (name, arrived) = (&case.source.name, &case.delivery.target);
    let query = if target.contains('?') == arrived.contains('?') { "" } else { "; the query differs, too" };
    let signed = format!("{}{}", escaped(base), path(target));
    let what = format!("the sender signed the URL {signed}, hookhold expects {}{}{query}", own.as_written(), path(arrived));
    let advice = if target == arrived {
        format!("write public_url = \"{}\" into [sources.{name}], or correct the URL at the sender", escaped(base))
    } else {
        "enter the expected URL at the sender, or have the proxy hand on path and query as they came".to_owned()
    };
    Cause::certain("public_url", what, advice)
}

fn header(case: &Case, name: &str) -> Option<String> {
    let text = case.delivery.headers.get(name)?.to_str().ok()?;
    text.split(',').next().map(|first| first.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Each once, in order.
fn in_order(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    texts.into_iter().filter(|text| seen.insert(text.clone())).take(MOST).collect()
}

/// Of hosts, prefixes and targets each: their product is tried.
const MOST: usize = 16;
