//! Conditions on the clients that may deliver to a source: their addresses and their certificates.

use std::net::IpAddr;

use ipnet::IpNet;

use super::recipe::Recipe;
use crate::client_certificate::{ClientCa, ClientCondition, SubjectPattern};
use crate::toml_value::{Item, TomlTable};

/// Conditions on the clients that may deliver to a source.
#[derive(Clone, Debug)]
pub struct ClientConditions {
    /// The networks from which hookhold accepts deliveries. An empty list accepts every address.
    pub allow_from: Vec<IpNet>,
    /// The condition on the certificate of a client, or `None` if a client needs no certificate.
    pub certificate: Option<ClientCondition>,
}

impl ClientConditions {
    /// Takes the options `allow_from`, `client_ca` and `client_subject` out of the table of a source. Reports mistakes.
    pub(super) fn take(table: &mut TomlTable) -> Option<ClientConditions> {
        let (allow_from, certificate) = (allow_from(table), certificate(table));
        Some(ClientConditions { allow_from: allow_from?, certificate: certificate? })
    }

    pub(super) fn allow_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow_from.is_empty() || self.allow_from.iter().any(|network| network.contains(&address))
    }

    /// Reports a source without a proof that accepts every client.
    pub(super) fn check_proof(&self, table: &TomlTable, recipe: &Recipe) {
        if recipe.accepts_without_proof() && self.allow_from.is_empty() && self.certificate.is_none() {
            let found = "nothing; list the sender's networks, because auth = \"none\" accepts every delivery from them";
            table.expected("allow_from", "at least one network", found);
        }
    }
}

/// Takes the option `allow_from` out of a table. Returns `None` if the option has a mistake.
pub(super) fn allow_from(table: &mut TomlTable) -> Option<Vec<IpNet>> {
    let Some(items) = table.take_list("allow_from") else { return Some(Vec::new()) };
    if items.is_empty() {
        table.expected("allow_from", "at least one network", "an empty array; remove allow_from to accept every address");
        return None;
    }
    items.into_iter().map(network).collect::<Vec<_>>().into_iter().collect()
}

/// Takes the options `client_ca` and `client_subject` out of a table. Returns `None` if an option has a mistake.
fn certificate(table: &mut TomlTable) -> Option<Option<ClientCondition>> {
    let (file, subject) = (table.take("client_ca"), table.take("client_subject"));
    if file.is_none() && subject.is_some() {
        table.expected("client_subject", "client_ca in the same source", "no client_ca; add the file with the sender's CA");
        return None;
    }
    let is_limited = subject.is_some();
    let subject = subject.and_then(|item| item.parse(SUBJECT, SubjectPattern::parse));
    let Some(item) = file else { return Some(None) };
    let file = item.clone().path()?;
    match ClientCa::read(&file) {
        Ok(ca) if is_limited == subject.is_some() => Some(Some(ClientCondition::new(ca, subject))),
        Ok(_) => None,
        Err(what) => item.reject(format_args!("{}: {what}", file.display())),
    }
}

/// Parses an IP network or a single IP address. If the text is invalid, reports the mistake and returns `None`.
pub(crate) fn network(item: Item) -> Option<IpNet> {
    let text = item.clone().string_as(NETWORK)?;
    let single = text.parse::<IpAddr>().map(IpNet::from);
    match single.or_else(|_| text.parse::<IpNet>()).map(canonical) {
        Ok(network) if network.trunc() == network => Some(network),
        Ok(network) => {
            item.expected("a network whose bits after the prefix are zero", format_args!("{item}; write \"{}\"", network.trunc()))
        }
        Err(_) => item.unexpected(NETWORK),
    }
}

/// Converts a network of IPv4-mapped IPv6 addresses to the equivalent IPv4 network, because hookhold compares IPv4-mapped
/// addresses as IPv4 addresses.
fn canonical(network: IpNet) -> IpNet {
    let address = network.addr().to_canonical();
    let prefix = network.prefix_len().checked_sub(IPV4_IN_IPV6).filter(|_| network.addr().is_ipv6() && address.is_ipv4());
    prefix.and_then(|prefix| IpNet::new(address, prefix).ok()).unwrap_or(network)
}

const NETWORK: &str = "an address or network such as \"3.18.12.63\", \"10.0.0.0/8\" or \"2001:db8::/32\"";
const SUBJECT: &str = "a subject such as \"CN=client.example.com\", \"DNS=*.example.com\" or \"URI=spiffe://example.com/*\"; the kinds \
                       are CN, O, OU, DNS and URI";
/// Length of the IPv6 prefix `::ffff:0:0/96` of IPv4-mapped addresses, in bits.
const IPV4_IN_IPV6: u8 = 96;
