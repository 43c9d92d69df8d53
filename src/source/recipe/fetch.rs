//! The URL at which a sender publishes its public keys, and the location of the id of the key that signed a delivery. hookhold
//! does not fetch keys. With these parameters, the verifier recognises a delivery whose key the source lacks.

use http::Uri;

use super::Locator;

/// The URL at which a sender publishes its public keys, and the location of the id of the key that signed a delivery.
#[derive(Clone, Debug)]
pub struct KeyFetch {
    /// The URL of the keys.
    pub url: KeyUrl,
    /// The location of the key id, or `None` if the header of a JSON Web Token contains the id, or if the URL is the id.
    pub key_id: Option<Locator>,
}

/// The URL at which a sender publishes its public keys.
#[derive(Clone, Debug)]
pub enum KeyUrl {
    /// A URL that all deliveries share.
    Fixed(String),
    /// A URL that the delivery contains.
    InRequest {
        /// The location of the URL.
        from: Locator,
        /// The hosts that the URL may have, at least one. Anyone can choose the URL of a forged delivery, so the verifier rejects
        /// every other host.
        hosts: Vec<HostPattern>,
    },
}

/// The name of a host in which a label may be `*`, such as `*.paypal.com` or `sns.*.amazonaws.com`. A `*` that is the first label
/// stands for one or more labels. Every other `*` stands for exactly one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(Vec<String>);

impl KeyFetch {
    /// Returns true if the verifier must parse the body to find the URL or the key id.
    pub fn reads_body(&self) -> bool {
        let in_url = matches!(&self.url, KeyUrl::InRequest { from, .. } if from.is_in_body());
        in_url || self.key_id.as_ref().is_some_and(Locator::is_in_body)
    }
}

impl HostPattern {
    /// Parses a pattern. Returns `None` if a label is neither `*` nor a part of a host name, or if one of the last two labels is
    /// `*`, because such a pattern matches hosts that do not belong to the sender.
    pub fn parse(text: &str) -> Option<HostPattern> {
        let labels: Vec<String> = text.to_ascii_lowercase().split('.').map(str::to_owned).collect();
        let is_label = |label: &String| label == "*" || is_host_name(label);
        let ends_in_names = labels.iter().rev().take(2).all(|label| label != "*");
        (labels.len() > 1 && ends_in_names && labels.iter().all(is_label)).then_some(HostPattern(labels))
    }

    /// Returns true if `url` is an HTTPS URL whose host matches this pattern.
    pub fn matches(&self, url: &str) -> bool {
        let Some(host) = https_host(url) else { return false };
        let labels: Vec<&str> = host.split('.').collect();
        let has_open_start = self.0[0] == "*";
        let fits = labels.len() == self.0.len() || (has_open_start && labels.len() > self.0.len());
        fits && self.0.iter().rev().zip(labels.iter().rev()).all(|(wanted, label)| wanted == "*" || wanted == label)
    }
}

/// Returns the host of an HTTPS URL in lower case. Returns `None` for every other text, and for a URL with user, port or
/// fragment, which no sender needs and which two programs could read differently.
pub(crate) fn https_host(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.authority()?.as_str();
    let is_plain = uri.scheme_str() == Some("https") && !url.contains(['#', '\\']);
    (is_plain && host.split('.').all(is_host_name)).then(|| host.to_ascii_lowercase())
}

/// Returns true for one label of a host name.
fn is_host_name(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_only_https_urls_of_its_hosts() {
        let matches = |pattern: &str, url: &str| HostPattern::parse(pattern).expect(pattern).matches(url);
        for (pattern, url) in [
            ("*.paypal.com", "https://api.paypal.com/v1/certs/CERT-1"),
            ("*.paypal.com", "https://api.sandbox.paypal.com/v1/certs/CERT-1?x=1"),
            ("*.paypal.com", "https://API.PayPal.com"),
            ("sns.*.amazonaws.com", "https://sns.eu-west-1.amazonaws.com/a.pem"),
            ("api.example.com", "https://api.example.com/keys@1"),
        ] {
            assert!(matches(pattern, url), "{pattern} {url}");
        }
        for (pattern, url) in [
            ("*.paypal.com", "https://paypal.com/"),
            ("*.paypal.com", "https://evilpaypal.com/"),
            ("*.paypal.com", "https://api.paypal.com.evil.example/"),
            ("*.paypal.com", "https://evil.example/api.paypal.com"),
            ("*.paypal.com", "http://api.paypal.com/"),
            ("*.paypal.com", "ftp://api.paypal.com/"),
            ("*.paypal.com", "//api.paypal.com/"),
            ("*.paypal.com", "api.paypal.com"),
            ("*.paypal.com", "https://user@api.paypal.com/"),
            ("*.paypal.com", "https://api.paypal.com:8443/"),
            ("*.paypal.com", "https://api.paypal.com./"),
            ("*.paypal.com", "https://.paypal.com/"),
            ("*.paypal.com", "https://evil.example\\.paypal.com/"),
            ("*.paypal.com", "https://evil.example#.paypal.com/"),
            ("*.paypal.com", "https://evil.example/\\@api.paypal.com/"),
            ("*.paypal.com", "https://evil%2eexample%2f.paypal.com/"),
            ("*.paypal.com", "https://[::1].paypal.com/"),
            ("*.paypal.com", "https://api.p\u{e0}ypal.com/"),
            ("*.paypal.com", " https://api.paypal.com/"),
            ("*.paypal.com", "https://api.paypal.com/a b"),
            ("*.paypal.com", ""),
            ("sns.*.amazonaws.com", "https://sns.a.b.amazonaws.com/"),
            ("sns.*.amazonaws.com", "https://sns.amazonaws.com/"),
            ("sns.*.amazonaws.com", "https://evil.sns.a.amazonaws.com/"),
            ("api.example.com", "https://x.api.example.com/"),
        ] {
            assert!(!matches(pattern, url), "{pattern} {url}");
        }
    }

    #[test]
    fn a_pattern_names_the_end_of_its_hosts() {
        for pattern in [
            "",
            "*",
            "com",
            "*.com",
            "a.*",
            "a.*.com.*",
            "a..com",
            ".com",
            "a.com.",
            "https://a.com",
            "a.com:443",
            "a_b.com",
            "a*.b.com",
        ] {
            assert_eq!(HostPattern::parse(pattern), None, "{pattern}");
        }
    }
}
