//! Recognises texts that are no signing secret by their form, such as an API key. The forms are those of widely used services.
//! A text of this form in the configuration is usually copied from the wrong page of a dashboard.

/// Returns the kind of a text that is no signing secret, such as `an API key`, or `None` if its form shows nothing.
pub fn foreign_kind(text: &[u8]) -> Option<&'static str> {
    let text = std::str::from_utf8(text).ok()?.trim().trim_matches(['"', '\'', '`']);
    let is_long = |prefix: &str| !SHORT_PREFIXES.contains(&prefix) || text.len() >= SHORTEST_KEY;
    let by_prefix = PREFIXES.iter().find(|(prefix, _)| text.starts_with(prefix) && is_long(prefix)).map(|(_, kind)| *kind);
    by_prefix.or_else(|| is_sid(text).then_some(IDENTIFIER)).or_else(|| is_jwt(text).then_some("a JSON Web Token"))
}

/// Returns the text that follows `found` in a diagnostic if an editor has saved the secret with bytes that belong to no secret: a byte
/// order mark or UTF-16.
pub fn encoding_error(text: &[u8]) -> Option<&'static str> {
    let unmarked = [[0xff, 0xfe], [0xfe, 0xff]].iter().find_map(|mark| text.strip_prefix(mark)).unwrap_or(text);
    let is_zero = |first: usize| unmarked.iter().skip(first).step_by(2).all(|byte| *byte == 0);
    if unmarked.len() >= 4 && (is_zero(0) || is_zero(1)) {
        return Some("which is UTF-16 text; save the file as UTF-8");
    }
    text.starts_with(BYTE_ORDER_MARK).then_some("which begins with a byte order mark; save the file as UTF-8 without one")
}

/// Returns true for an identifier such as `AC` or `SK`, followed by 32 hexadecimal digits (Twilio).
fn is_sid(text: &str) -> bool {
    let digits = ["AC", "SK", "PN", "MG"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Returns true for three parts in Base64, of which the first two are JSON objects.
fn is_jwt(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3 && parts[0].starts_with("eyJ") && parts[1].starts_with("eyJ")
}

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const API_KEY: &str = "an API key";
const ACCESS_TOKEN: &str = "an access token";
const IDENTIFIER: &str = "an identifier";
const PUBLIC_KEY: &str = "a public key";
const PRIVATE_KEY: &str = "a private key";
/// Beginnings of texts that are no signing secret, with the kind of the text.
const PREFIXES: &[(&str, &str)] = &[
    ("sk_live_", API_KEY),
    ("sk_test_", API_KEY),
    ("rk_live_", API_KEY),
    ("rk_test_", API_KEY),
    ("pk_live_", "a publishable key"),
    ("pk_test_", "a publishable key"),
    ("SG.", API_KEY),
    ("sk-", API_KEY),
    ("AKIA", API_KEY),
    ("ghp_", ACCESS_TOKEN),
    ("gho_", ACCESS_TOKEN),
    ("ghs_", ACCESS_TOKEN),
    ("ghu_", ACCESS_TOKEN),
    ("github_pat_", ACCESS_TOKEN),
    ("glpat-", ACCESS_TOKEN),
    ("xoxb-", ACCESS_TOKEN),
    ("xoxp-", ACCESS_TOKEN),
    ("xapp-", ACCESS_TOKEN),
    ("shpat_", ACCESS_TOKEN),
    ("shpca_", ACCESS_TOKEN),
    ("whpk_", PUBLIC_KEY),
    ("whsk_", PRIVATE_KEY),
    ("ssh-rsa ", PUBLIC_KEY),
    ("ssh-ed25519 ", PUBLIC_KEY),
    ("-----BEGIN PUBLIC KEY", PUBLIC_KEY),
    ("-----BEGIN RSA PUBLIC KEY", PUBLIC_KEY),
    ("-----BEGIN CERTIFICATE", "a certificate"),
    ("-----BEGIN ", PRIVATE_KEY),
    ("https://", "a URL"),
    ("http://", "a URL"),
];
/// Prefixes that a secret chosen by the operator could also have.
const SHORT_PREFIXES: [&str; 3] = ["SG.", "sk-", "AKIA"];
/// Minimum length in bytes of a key with one of [`SHORT_PREFIXES`].
const SHORTEST_KEY: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_text_shows_that_it_is_no_secret() {
        for (text, kind) in [
            ("sk_live_51H", Some(API_KEY)),
            (" \"sk_test_51H\"\n", Some(API_KEY)),
            ("AC0123456789abcdef0123456789abcdef", Some(IDENTIFIER)),
            ("AC0123456789ABCDEF0123456789abcdef", None),
            ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", Some(PUBLIC_KEY)),
            ("-----BEGIN EC PRIVATE KEY-----", Some(PRIVATE_KEY)),
            ("eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2ln", Some("a JSON Web Token")),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None),
            ("shpss_0123456789abcdef", None),
            ("12345", None),
            ("sk-hook-2026", None),
            ("sk-proj-0123456789abcdef", Some(API_KEY)),
            ("AKIA0123456789ABCDEF", Some(API_KEY)),
            ("ssh-hook", None),
            ("", None),
            ("a.b.c", None),
        ] {
            assert_eq!(foreign_kind(text.as_bytes()), kind, "{text}");
        }
        assert_eq!(foreign_kind(b"\xff"), None);
    }
}
