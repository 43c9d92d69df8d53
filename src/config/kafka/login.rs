//! Checks that the properties for TLS and for the login in `[kafka]` work together. librdkafka accepts some combinations with which
//! it never logs in, and ignores credentials that the protocol does not use.

use crate::toml_value::Location;

/// Reports the first combination of properties that cannot work. `properties` have no other errors. `place` returns the position of
/// a property, or the position at which it is absent.
pub(super) fn check(properties: &[(String, String)], place: impl Fn(&str) -> Location) {
    let value = |name: &str| properties.iter().find(|(property, _)| property == name).map(|(_, value)| value.as_str());
    let found = |name: &str| value(name).unwrap_or("nothing").to_owned();
    let first = |names: &[&'static str]| names.iter().copied().find(|name| value(name).is_some());
    let protocol = value("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
    if let Some(given) = first(&TLS_PROPERTIES).filter(|_| !protocol.ends_with("ssl")) {
        let expected = format!("ssl or sasl_ssl, because {given} is set");
        return place("security.protocol").expected(expected, found("security.protocol"));
    }
    if !protocol.starts_with("sasl") {
        if let Some(given) = first(&SASL_PROPERTIES) {
            let expected = format!("sasl_ssl or sasl_plaintext, because {given} is set");
            place("security.protocol").expected(expected, found("security.protocol"));
        }
        return;
    }
    let name = first(&MECHANISM_PROPERTIES).unwrap_or(MECHANISM_PROPERTIES[0]);
    match value(name) {
        Some("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512") => {}
        Some("OAUTHBEARER") => {
            let is_oidc = value("sasl.oauthbearer.method").is_some_and(|method| method.eq_ignore_ascii_case("oidc"));
            if !is_oidc {
                let found = format!("{}; hookhold can only get its tokens from a token endpoint", found("sasl.oauthbearer.method"));
                place("sasl.oauthbearer.method").expected("oidc, because sasl.mechanism is OAUTHBEARER", found);
            }
        }
        None => place(name).expected(MECHANISM, "nothing"),
        Some("GSSAPI") => place(name).expected(MECHANISM, "GSSAPI; hookhold is built without Kerberos"),
        Some("AWS_MSK_IAM") => place(name).expected(
            MECHANISM,
            "AWS_MSK_IAM, which librdkafka does not support; use SCRAM-SHA-512 or a client certificate (security.protocol = \"ssl\")",
        ),
        Some(other) => place(name).expected(MECHANISM, other),
    }
}

/// Both names of the property that selects the mechanism of the login.
const MECHANISM_PROPERTIES: [&str; 2] = ["sasl.mechanism", "sasl.mechanisms"];
/// Properties that librdkafka uses only for a login.
const SASL_PROPERTIES: [&str; 5] =
    ["sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password", "sasl.oauthbearer.method"];
/// Properties that librdkafka uses only for TLS.
const TLS_PROPERTIES: [&str; 8] = [
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.crl.location",
];
const MECHANISM: &str = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER";
