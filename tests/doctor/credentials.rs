//! Tests that doctor names what is wrong with a token or with Basic credentials, and prints neither.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::process::{Home, Line, post};
use crate::sdk::openssl_hmac;
use crate::{causes, examine};

const NOW: u64 = crate::NOW;
const BODY: &[u8] = b"{\"id\":1}";
const KEYS: &[(&str, &str)] = &[
    ("jwt", "the key of tokens"),
    ("token", "a token + of 20 %"),
    ("basic", "ann:hush: pässword"),
    ("old", "an old key of tokens"),
];
const SOURCES: &str = r#"
[sources.hooks]
auth = "jwt"
algorithm = ["HS256"]
token = { from = "header:Authorization", prefix = "Bearer " }
claims = { aud = "hooks" }
body_claim = { name = "sha256" }
secrets = ["file:jwt", { name = "old", from = "file:old", not_after = 2021-01-01 }]
[sources.site]
auth = "jwt"
algorithm = ["HS256", "HS512"]
token = { from = "header:X-Site-Token" }
claims = { iss = "site", aud = "hooks" }
max_age = "5m"
secrets = ["file:jwt", { name = "old", from = "file:old", not_after = 2021-01-01 }]
[sources.lab]
auth = "token"
token = { from = "header:X-Lab-Token" }
secrets = ["file:token"]
[sources.box]
auth = "token"
token = { from = "header:Authorization", prefix = "Token " }
secrets = ["file:token"]
[sources.form]
auth = "token"
token = { from = "query:key" }
secrets = ["file:token"]
[sources.mail]
auth = "basic"
secrets = ["file:basic"]
[sources.post]
auth = "basic"
secrets = ["file:basic"]
"#;

/// Returns a JSON Web Token with this algorithm in its header and with a signature of HMAC-SHA256.
fn jwt(algorithm: &str, claims: &str, key: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(&format!("{{\"alg\":{algorithm:?},\"typ\":\"JWT\"}}")), part(claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(openssl_hmac("sha256", key.as_bytes(), signed.as_bytes())))
}

fn claims(issued: u64, audience: &str) -> String {
    let hash = base16ct::lower::encode_string(&<sha2::Sha256 as sha2::Digest>::digest(BODY));
    let expiry = issued + 300;
    format!("{{\"iss\":\"site\",\"aud\":{audience:?},\"iat\":{issued},\"exp\":{expiry},\"sha256\":\"{hash}\"}}")
}

fn request(source: &str, token: &str, body: &[u8]) -> Vec<u8> {
    let (name, prefix) = match source {
        "hooks" => ("Authorization", "Bearer "),
        "box" => ("Authorization", "Token "),
        "mail" | "post" => ("Authorization", "Basic "),
        "lab" => ("X-Lab-Token", ""),
        _ => ("X-Site-Token", ""),
    };
    post(&format!("/hooks/{source}"), &[(name.to_owned(), format!("{prefix}{token}"))], body)
}

fn home() -> Home {
    Home::new(KEYS, SOURCES)
}

#[test]
fn the_fault_of_a_web_token_is_named() {
    let (home, good) = (home(), claims(NOW, "hooks"));
    let key = KEYS[0].1;
    for source in ["hooks", "site"] {
        let token = jwt("HS256", &good, key);
        assert_eq!(examine(&home, source, &request(source, &token, BODY), &["--at", &NOW.to_string()]).0, Some(0), "{source}");
        for (what, token, expected) in [
            ("expired", jwt("HS256", &claims(NOW - 3_600, "hooks"), key), "token_expired"),
            ("ahead", jwt("HS256", &claims(NOW + 3_600, "hooks"), key), "clock"),
            ("another audience", jwt("HS256", &claims(NOW, "shop"), key), "token_claim"),
            ("no algorithm", jwt("none", &good, key), "other_algorithm"),
            ("a public-key algorithm", jwt("RS256", &good, key), "other_algorithm"),
            ("cut", token[..token.len() / 2].to_owned(), "token_malformed"),
            ("no token", "hush".to_owned(), "token_malformed"),
            ("three parts", "a.b.c".to_owned(), "token_malformed"),
            ("the expired key", jwt("HS256", &good, KEYS[3].1), "secret_expired"),
            ("a key with a line break", jwt("HS256", &good, &format!("{key}\n")), "secret_whitespace"),
        ] {
            assert_eq!(causes(&home, source, &request(source, &token, BODY)), [expected], "{source}: {what}");
            let (_, line) = examine(&home, source, &request(source, &token, BODY), &[]);
            assert!(token.len() < 20 || !line.to_string().contains(&token[token.len() - 20..]), "a token is printed: {line}");
        }
        let forged = request(source, &jwt("HS256", &good, "another key"), BODY);
        assert_eq!(causes(&home, source, &forged)[0], "other_secret?", "{source}");
    }
    let without_scheme = post("/hooks/hooks", &[("Authorization".to_owned(), jwt("HS256", &good, key))], BODY);
    assert_eq!(causes(&home, "hooks", &without_scheme), ["token_malformed"]);
    let token = jwt("HS256", &good, key);
    assert_eq!(causes(&home, "hooks", &request("hooks", &token, b"")), ["body_emptied"]);
    assert_eq!(causes(&home, "hooks", &request("hooks", &token, b"{\"id\":2}")), ["body_changed"]);
    assert_eq!(causes(&home, "hooks", &request("hooks", &token, b"{\"id\":1}\n")), ["body_newline"]);
    assert_eq!(causes(&home, "hooks", &post("/hooks/hooks", &[], BODY)), ["signature_absent"]);
}

#[test]
fn the_fault_of_a_plain_token_is_named() {
    let home = home();
    let token = KEYS[1].1;
    for source in ["lab", "box"] {
        assert_eq!(examine(&home, source, &request(source, token, BODY), &[]).0, Some(0), "{source}");
        for (what, token, expected) in [
            ("quotes", format!("\"{token}\""), "credentials_encoding"),
            ("percent-encoding", token.replace('%', "%25").replace(' ', "%20").replace('+', "%2B"), "credentials_encoding"),
            ("Base64", STANDARD.encode(token), "credentials_encoding"),
            ("another case", token.to_uppercase(), "credentials_encoding"),
            ("another token", "hush hush hush hush".to_owned(), "other_credentials"),
        ] {
            assert_eq!(causes(&home, source, &request(source, &token, BODY)), [expected], "{source}: {what}");
            let (_, line) = examine(&home, source, &request(source, &token, BODY), &[]);
            assert!(!line.to_string().contains(&token), "a token is printed: {line}");
        }
        assert_eq!(causes(&home, source, &post(&format!("/hooks/{source}"), &[], BODY)), ["signature_absent"], "{source}");
    }
    for value in [token.to_owned(), format!("Bearer {token}")] {
        let request = post("/hooks/box", &[("Authorization".to_owned(), value)], BODY);
        assert_eq!(causes(&home, "box", &request), ["token_malformed"]);
    }
}

#[test]
fn the_fault_of_basic_credentials_is_named() {
    let home = home();
    let secret = KEYS[2].1;
    for source in ["mail", "post"] {
        assert_eq!(examine(&home, source, &request(source, &STANDARD.encode(secret), BODY), &[]).0, Some(0), "{source}");
        let latin_1: Vec<u8> = secret.chars().map(|character| u8::try_from(character).expect("ISO 8859-1")).collect();
        for (what, credentials, expected) in [
            ("another password", STANDARD.encode("ann:secret"), "other_credentials"),
            ("another user", STANDARD.encode("bob:hush: pässword"), "other_credentials"),
            ("percent-encoding", STANDARD.encode("ann:hush%3A%20p%C3%A4ssword"), "credentials_encoding"),
            ("ISO 8859-1", STANDARD.encode(&latin_1), "credentials_encoding"),
            ("encoded twice", STANDARD.encode(STANDARD.encode(secret)), "credentials_malformed"),
            ("not encoded", secret.to_owned(), "credentials_malformed"),
            ("no Base64", "***".to_owned(), "credentials_malformed"),
            ("no colon", STANDARD.encode("ann"), "credentials_malformed"),
        ] {
            assert_eq!(causes(&home, source, &request(source, &credentials, BODY)), [expected], "{source}: {what}");
            let (_, line) = examine(&home, source, &request(source, &credentials, BODY), &[]);
            assert!(!line.to_string().contains("hush"), "credentials are printed: {line}");
        }
        let newline = request(source, &STANDARD.encode(format!("{secret}\n")), BODY);
        assert_eq!(causes(&home, source, &newline), ["secret_whitespace"], "{source}");
        let bearer = post(&format!("/hooks/{source}"), &[("Authorization".to_owned(), "Bearer abc".to_owned())], BODY);
        assert_eq!(causes(&home, source, &bearer), ["credentials_malformed"], "{source}");
    }
}

/// The running process does not store the header `Authorization`, so doctor must not report that the sender left it out.
#[test]
fn credentials_that_were_not_stored_are_not_called_absent() {
    let home = Home::new(KEYS, &format!("server.drain_delay = \"0s\"\nadmin.keep_rejected = \"1 MiB\"\n{SOURCES}"));
    let _process = home.start();
    let mut line = Line::open(home.hooks);
    for (source, request) in [
        ("mail", request("mail", &STANDARD.encode("ann:secret"), BODY)),
        ("box", request("box", "another token", BODY)),
        ("lab", request("lab", "another token", BODY)),
        ("form", post("/hooks/form?key=another-token", &[], BODY)),
    ] {
        assert_eq!(line.ask(&request).status, 401, "{source}");
        let output = home.verb(&["doctor", source, "--format", "json"]);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(printed.contains("\"credentials_not_stored\"") && !printed.contains("signature_absent"), "{source}: {printed}");
    }
}
