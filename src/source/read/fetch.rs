//! Reads the parameter `fetch`: where a sender publishes its public keys, and how a delivery names the key that signed it.

use super::locator::LocatorParser;
use super::need;
use crate::source::recipe::{HostPattern, KeyFetch, KeyUrl, Locator, https_host};
use crate::toml_value::{Item, TomlTable};

/// Reads `fetch = { url = …, hosts = …, key_id = … }`. Rejects `key_id` if `is_jwt` is true, because a JSON Web Token names its key
/// in its header (`kid`).
pub(super) fn key_fetch(item: Item, is_jwt: bool, locators: &mut LocatorParser) -> Option<KeyFetch> {
    let mut table = item.table()?;
    let url = need(&mut table, "url", URL, |table| table.take("url"));
    let hosts = hosts(&mut table);
    let key_id = if is_jwt { None } else { table.take("key_id") };
    let (is_named, key_id) = (is_jwt || key_id.is_some(), key_id.map(|item| in_request(item, KEY_ID, locators)));
    let url = url.and_then(|item| key_url(&table, item, hosts, locators));
    if !is_named && matches!(url, Some(KeyUrl::Fixed(_))) {
        let found = "nothing, so that a delivery would not name its key; add key_id or remove fetch";
        table.expected("key_id", KEY_ID, found);
        return None;
    }
    table.finish();
    let key_id = match key_id {
        Some(key_id) => Some(key_id?),
        None => None,
    };
    Some(KeyFetch { url: url?, key_id })
}

/// Reads the URL. `hosts` contains the allowed hosts, or is `None` if the table has none.
fn key_url(table: &TomlTable, item: Item, hosts: Option<Vec<HostPattern>>, locators: &mut LocatorParser) -> Option<KeyUrl> {
    let text = item.clone().string_as(URL)?;
    if text.contains("://") {
        if hosts.is_some() {
            table.expected("hosts", "no hosts for a fixed url", "a list; remove hosts");
        }
        return item.parse(URL, |text| https_host(text).map(|_| KeyUrl::Fixed(text.to_owned())));
    }
    let from = in_request(item, URL, locators)?;
    match hosts {
        Some(hosts) if !hosts.is_empty() => Some(KeyUrl::InRequest { from, hosts }),
        _ => {
            if table.accepts(&["hosts"]) {
                table.expected("hosts", HOSTS, "nothing; list the hosts, because anyone can choose the url of a forged delivery");
            }
            None
        }
    }
}

/// Takes the allowed hosts. Reports and omits an invalid pattern.
fn hosts(table: &mut TomlTable) -> Option<Vec<HostPattern>> {
    Some(table.take_list("hosts")?.into_iter().filter_map(|item| item.parse(HOSTS, HostPattern::parse)).collect())
}

/// Parses a locator of a part of the request that needs no proof.
fn in_request(item: Item, expected: &str, locators: &mut LocatorParser) -> Option<Locator> {
    match locators.item(item.clone())? {
        locator @ (Locator::Header(_) | Locator::Query(_) | Locator::Body(_)) => Some(locator),
        _ => item.unexpected(expected),
    }
}

const URL: &str = "a URL such as \"https://example.com/keys\", or a locator such as header:NAME or json:/POINTER";
const HOSTS: &str = "an array of hosts such as [\"*.example.com\"], each with two labels at its end that are not *";
const KEY_ID: &str = "a locator such as header:NAME";
