//! `hookhold send` and `hookhold check` with every kind of proof.

use crate::crypto::key_pair;
use crate::process::Home;

/// Sources whose samples hookhold can sign itself, with their secret `k:s` and with the ways in which a sample can be invalid.
const SIGNED: &[(&str, &str, &[&str])] = &[
    (
        "mac",
        "auth = \"mac\"\nalgorithm = \"sha384\"\nencoding = \"base64\"\nkey_format = [\"sha256\"]\n\
         signature = { from = \"header:X-Sig-*\" }\ncontent = [\"method\", \"url\", \"body-hash(sha1, hex)\", \"optional(header:X-A)\"]",
        &["body", "secret", "missing"],
    ),
    (
        "digest",
        "auth = \"digest\"\nalgorithm = \"sha1\"\nsignature = { from = \"query:sig\" }\n\
         content = [\"body\", \"timestamp\", \"secret\"]\ntimestamp = { from = \"header:X-Time\" }",
        &["body", "secret", "missing", "stale", "future"],
    ),
    (
        "slots",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nmatch = \"slots\"\ncontent = [\"body\"]\n\
         signature = { from = [\"header:X-First\", \"header:X-Second\"] }",
        &["body", "secret", "missing"],
    ),
    (
        "listed",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:X-Sig\", items = \",\", pair = \"=\", take = [\"v1\"] }\n\
         content = [\"timestamp\", \"tag:h\", \"listed-headers(h, '.')\", \"body-crc32-decimal\"]\ntimestamp = { from = \"tag:t\" }",
        &["body", "secret", "missing", "stale", "future"],
    ),
    (
        "inside",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = [\"json:/s/code\", \"form:code\"] }\n\
         content_variants = [[\"timestamp\", \"json:/s/token\"], [\"timestamp\", \"form:token\"]]\n\
         timestamp = { from = [\"json:/s/time\", \"form:time\"] }\nevent = { id = \"json:/id\" }",
        &["body", "secret", "missing", "stale", "future"],
    ),
    (
        "batch",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:X-Sig\" }\ncontent = [\"body\"]\nsplit = true\n\
         event = { batch = \"/events\", id = \"json:/id\", type = \"json:/type\" }",
        &["body", "secret", "missing"],
    ),
    (
        "items",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"json:/code\" }\nmatch = \"all-items\"\nsplit = true\n\
         content = [\"timestamp\", \".\", \"json:/id\", \":\", \"optional(json:/note)\"]\ntimestamp = { from = \"json:/at\" }\n\
         event = { batch = \"\", id = \"json:/id\" }",
        &["body", "secret", "missing", "stale", "future"],
    ),
    (
        "form",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"form:code\" }\ncontent = [\"query:nonce\", \"form:token\"]",
        &["body", "secret", "missing"],
    ),
    (
        "head",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:X-Sig\" }\ncontent = [\"url-no-query\"]",
        &["secret", "missing"],
    ),
    ("token", "auth = \"token\"\ntoken = { from = \"header:Authorization\", prefix = \"Bearer \" }", &["secret", "missing"]),
    ("query", "auth = \"token\"\ntoken = { from = \"query:token\", prefix = \"T \" }", &["secret", "missing"]),
    ("passcode", "auth = \"token\"\ntoken = { from = \"json:/a/passcode\" }", &["secret", "missing"]),
    ("basic", "auth = \"basic\"\nevent = { id = \"header:X-Id\", key = \"basic:user\" }", &["secret", "missing"]),
    (
        "jwt",
        "auth = \"jwt\"\nalgorithm = [\"HS512\"]\nkey_format = [\"sha256\"]\ntoken = { from = \"header:Authorization\", prefix = \"Bearer \" }\n\
         claims = { iss = \"a\" }\nbody_claim = { name = \"body\", encoding = \"base64\" }\nurl_claim = { name = \"url\" }\n\
         max_age = \"5m\"\nevent = { id = \"jwt:jti\", type = \"jwt:topic\" }",
        &["body", "secret", "missing", "stale", "future"],
    ),
    (
        "bearer",
        "auth = \"jwt\"\nalgorithm = [\"HS256\"]\nkey_format = [\"sha256\"]\ntoken = { from = \"json:/jwt\" }",
        &["secret", "missing", "stale", "future"],
    ),
    ("none", "auth = \"none\"\nallow_from = [\"127.0.0.0/8\"]", &[]),
];

#[test]
fn send_signs_every_kind_of_proof_that_has_a_secret() {
    let sources = SIGNED.iter().map(|(name, entry, _)| {
        let secrets = match *name {
            "none" => "",
            "slots" => "secrets = [{ name = \"old\", from = \"file:secret\", not_after = 2020-01-01 }, \"file:second\"]\n",
            _ => "secrets = [\"file:secret\"]\n",
        };
        format!("[sources.{name}]\npublic_url = \"http://127.0.0.1\"\n{secrets}{entry}\n")
    });
    let config = "server.drain_delay = \"0s\"\n".to_owned() + &sources.collect::<String>();
    let home = Home::new(&[("secret", "k:s"), ("second", "another")], &config);
    let check = home.verb(&["check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    let process = home.start();
    for (name, _, tampers) in SIGNED {
        let genuine = home.verb(&["send", name, "--count", "2"]);
        assert!(genuine.status.success(), "{name}: {}{}", text(&genuine.stdout), text(&genuine.stderr));
        for tamper in ["body", "secret", "missing", "stale", "future"] {
            let output = home.verb(&["send", name, "--tamper", tamper]);
            match tampers.contains(&tamper) {
                true => assert!(output.status.success(), "{name}, {tamper}: {}{}", text(&output.stdout), text(&output.stderr)),
                false => {
                    assert_eq!(output.status.code(), Some(2), "{name}, {tamper}");
                    assert!(text(&output.stderr).contains(&format!("--tamper {tamper}: expected a source ")), "{name}, {tamper}");
                }
            }
        }
        let stored = process.metric(&format!("hookhold_deliveries_total{{outcome=\"stored\",source=\"{name}\"}}"));
        assert_eq!(stored, Some(2.0), "{name}");
    }
    home.put("body.json", b"{}");
    let output = home.verb(&["send", "inside", "--body", "body.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--body: expected a source whose signature is outside the body, found inside"));
}

#[test]
fn send_names_the_reason_why_it_cannot_sign() {
    let key = key_pair("ed25519");
    let config = "[sources.discord]\nauth = \"signature\"\nalgorithm = \"ed25519\"\npublic_keys = [\"file:key.pem\"]\n\
                  signature = { from = \"header:X-Sig\" }\ncontent = [\"body\"]\n\
                  [sources.plaid]\nauth = \"jwt\"\nalgorithm = [\"EdDSA\"]\npublic_keys = [\"file:key.pem\"]\n\
                  token = { from = \"header:X-Token\" }\n";
    let home = Home::new(&[("key.pem", &key.pem)], config);
    let check = home.verb(&["check"]);
    assert!(check.status.success() && text(&check.stdout).contains("key.pem"), "{}", text(&check.stdout));
    for name in ["discord", "plaid"] {
        for more in [&[][..], &["--tamper", "body"]] {
            let output = home.verb(&[&["send", name], more].concat());
            assert_eq!(output.status.code(), Some(2));
            let message = format!("{name}, which accepts only signatures with the provider's private key; send a delivery from");
            assert!(text(&output.stderr).contains(&message), "{}", text(&output.stderr));
        }
    }
    // A private key in the place of the public key: the report names the file and prints no part of the key.
    home.put("key.pem", key.private.as_bytes());
    let check = home.verb(&["check"]);
    assert_eq!(check.status.code(), Some(2));
    assert!(text(&check.stdout).contains("key.pem, which contains a private or symmetric key"), "{}", text(&check.stdout));
    let secret = key.private.lines().nth(1).expect("a PEM document");
    assert!(!text(&check.stdout).contains(&secret[..12]) && !text(&check.stderr).contains(&secret[..12]));
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is text")
}
