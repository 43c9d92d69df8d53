//! Tests of the built-in recipes, of source entries that override a recipe, and of every error in a recipe or in a source
//! entry.

use std::time::Duration;

use hookhold::outcome::Outcome;
use hookhold::source::recipe::SwitchOff;
use hookhold::source::{PROVIDERS, Source, SourceDefaults, provider as recipe};
use hookhold::toml_value::{Diagnostics, TomlTable};

use crate::support::*;

#[test]
fn the_compiled_in_recipes_match_the_directory() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers");
    let entries = std::fs::read_dir(directory).expect("the directory of recipes");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let file = entry.expect("an entry").file_name().into_string().expect("text");
        file.strip_suffix(".toml").expect("a recipe").to_owned()
    };
    let mut files: Vec<String> = entries.map(name).collect();
    files.sort();
    let names: Vec<&str> = PROVIDERS.iter().map(|(name, _)| *name).collect();
    assert!(!files.is_empty());
    assert_eq!(files, names);
    for (name, text) in PROVIDERS {
        assert_eq!(std::fs::read_to_string(format!("{directory}/{name}.toml")).expect("a file"), *text);
    }
}

#[test]
fn every_recipe_is_complete_and_documents_its_setup() {
    for (name, _) in PROVIDERS {
        provider(name);
        let recipe = recipe(name).expect(name);
        let setup = &recipe.setup;
        assert!(!recipe.title.is_empty() && !setup.url.is_empty() && !setup.secret.is_empty(), "{name}");
        assert!(setup.facts.iter().filter(|fact| fact.starts_with("https://")).count() >= 2, "{name}");
        assert!(recipe.limits.respond_within.is_some() && recipe.limits.gives_up_after.is_some(), "{name}");
    }
    assert!(recipe("unknown").is_none());
}

#[test]
fn limits_come_from_entry_then_recipe_then_server() {
    let day = 86_400;
    let (stripe, github, own) = (provider("stripe"), provider("github"), inline(INLINE));
    assert_eq!((stripe.max_body, github.max_body, own.max_body), (5 << 20, 25 << 20, 5 << 20));
    assert_eq!(source("github", "x", "max_body = \"1 KiB\"").max_body, 1024);
    assert_eq!(stripe.deadline, Duration::from_secs(8));
    assert_eq!(provider("slack").deadline, Duration::from_millis(2400));
    let hasty = SourceDefaults { request_deadline: Duration::from_secs(2), ..defaults() };
    assert_eq!(
        compile_under("provider = \"slack\"\nsecrets = \"env:PATH\"", &hasty).expect("whole").deadline,
        hasty.request_deadline
    );
    assert_eq!(source("stripe", "x", "limits = { respond_within = \"3s\" }").deadline, Duration::from_millis(2400));
    assert_eq!(provider("shopify").deadline, Duration::from_secs(4), "Shopify waits 5 s");
    assert_eq!(stripe.dedupe.window, Duration::from_secs(7 * day));
    assert_eq!(source("stripe", "x", "limits = { gives_up_after = \"9d\" }").dedupe.window, Duration::from_secs(9 * day));
    assert_eq!(source("stripe", "x", "dedupe = { window = \"1h\" }").dedupe.window, Duration::from_secs(3600));
    assert_eq!((&*stripe.path, &**stripe.topics.of(None)), ("/hooks/shop", "webhooks.shop"));
    let own = source("stripe", "x", "path = \"/in/stripe\"\ntopic = \"money\"\nheaders = [\"X-Request-Id\"]");
    assert_eq!((&*own.path, &**own.topics.of(None), own.header_allow_list[0].as_str()), ("/in/stripe", "money", "x-request-id"));
}

#[test]
fn the_reply_comes_from_the_recipe() {
    let source = provider("stripe");
    assert_eq!(
        (
            source.recipe.replies.accepted.status,
            source.recipe.replies.accepted.body.len(),
            source.recipe.replies.rejected.as_u16()
        ),
        (http::StatusCode::OK, 0, 401)
    );
    let own = "reply = { ok = { status = 202, content_type = \"text/plain\", body = \"thanks\" }, bad = 498 }";
    let source = inline(&format!("{INLINE}{own}"));
    assert_eq!(
        (
            source.recipe.replies.accepted.status.as_u16(),
            &source.recipe.replies.accepted.body[..],
            source.recipe.replies.rejected.as_u16()
        ),
        (202, &b"thanks"[..], 498)
    );
}

/// Checks that no rejection has the status 403, 406 or 410. Standard Webhooks, Svix and other providers unsubscribe an endpoint
/// after a 410. Some providers stop retrying after a 403 or a 406.
#[test]
fn no_rejection_makes_a_provider_disable_the_endpoint() {
    let harmful = |status: http::StatusCode| [403, 406, 410].contains(&status.as_u16());
    for (name, _) in PROVIDERS {
        let recipe = recipe(name).expect(name);
        assert!(
            recipe.replies.accepted.status.is_success()
                && recipe.replies.rejected.is_client_error()
                && !harmful(recipe.replies.rejected),
            "{name}"
        );
    }
    assert!(Outcome::ALL.iter().all(|outcome| !harmful(outcome.status())));
}

#[test]
fn a_type_is_accepted_exactly_or_by_prefix() {
    let accepts = |types: &str, event_type| source("github", "x", &format!("types = {types}")).types.accepts(event_type);
    for (types, wanted, unwanted) in [
        (
            r#"["push", "pull_request.*"]"#,
            &["push", "pull_request.opened", "pull_request.a.b"][..],
            &["pull_request", "Push", "push2", ""][..],
        ),
        (r#""orders/*""#, &["orders/create"], &["orders", "xorders/create"]),
        (r#"["*"]"#, &["push", ""], &[]),
    ] {
        assert!(wanted.iter().all(|event_type| accepts(types, Some(event_type))), "{types}");
        assert!(!unwanted.iter().any(|event_type| accepts(types, Some(event_type))), "{types}");
        assert!(accepts(types, None), "{types}: a delivery without a readable type");
    }
    assert!(provider("github").types.accepts(Some("anything")), "by default every type is accepted");
}

#[test]
fn recipes_contain_the_documented_switch_off_rates() {
    for (name, percent, hours) in [("slack", 5, 1), ("shopify", 0, 4), ("svix", 0, 5 * 24)] {
        let limit = recipe(name).expect(name).limits.switches_off_at;
        assert_eq!(limit, Some(SwitchOff { percent, within: Duration::from_secs(hours * 3600) }), "{name}");
    }
}

#[test]
fn every_error_in_a_recipe_is_reported_at_once() {
    let entry = r#"auth = "hmac"
algorithm = "md5"
signature = { from = "tag:sig", pair = "=", encoding = "hexx" }
content = ["bdoy", "."]
key_format = ["rot13"]
timestamp = { from = "const:1", unit = "years", past = "5 fortnights" }
event = { id = ["jason:/id", "json:id"], time = [{ from = "json:/t" }], kind = "x" }
reply = { ok = { status = 404 }, bad = 200 }
max_body = 5
path = "hooks"
topic = "a topic"
headers = ["cookie"]
secret = "env:HOME"
titel = "Shop""#;
    let diagnostics = compile(entry, &[("secret", "x")]).expect_err("many errors").to_string();
    let expected = [
        ":2: auth: expected \"mac\", \"digest\", \"signature\", \"jwt\", \"token\", \"basic\" or \"none\", found an invalid string",
        ":3: algorithm: expected \"sha1\", \"sha256\", \"sha384\" or \"sha512\", found an invalid string",
        ":4: signature.encoding: expected \"hex\", \"base64\" or \"base64url\", found an invalid string; did you mean hex?",
        ":4: signature.from: expected header:NAME, header:NAME-*, query:NAME, json:/POINTER, form:NAME or form-json:NAME/POINTER, found an invalid string",
        ":4: signature.take: expected pair and take together, such as pair = \"=\" with take = [\"v1\"], or neither, found pair without take",
        ":5: content[0]: expected body, timestamp, id, header:NAME, tag:NAME, const:TEXT",
        ":6: key_format[0]: expected strip-prefix:TEXT, utf8, hex, base64, base64url, sha1 or sha256, found an unknown step",
        ":7: timestamp.from: expected a locator such as header:NAME, tag:NAME or json:/POINTER, found a fixed text or several fields",
        ":7: timestamp.unit: expected \"s\", \"ms\" or \"rfc3339\", found an invalid string",
        ":7: timestamp.past: expected a duration from \"0ms\" to \"30d\" in ms, s, m, h or d, found an invalid string",
        ":8: event.id[0]: expected header:NAME, json:/POINTER, form:NAME, form-json:NAME/POINTER, tag:NAME, ",
        ":8: event.id[1]: expected a JSON pointer of at most 16 steps such as json:/data/id, found an invalid string",
        ":8: event.kind: expected batch, id, key, placeholder_ids, time, type or type_prefix, found an unknown key; rename or remove the key",
        ":8: event.time[0].unit: expected \"s\", \"ms\" or \"rfc3339\", found nothing",
        ":9: reply.ok.status: expected an integer from 200 to 299, found 404",
        ":9: reply.bad: expected an integer from 400 to 499, found 200",
        ":10: max_body: expected a size from \"1 B\" to \"1 GiB\" in B, KiB, MiB, GiB or TiB, found an integer",
        ":11: path: expected a path such as \"/hooks/stripe\" without query, fragment or percent-encoding, found an invalid string",
        ":12: topic: expected a topic name of 1 to 249 letters, digits, ",
        ":13: headers[0]: expected the name of a header that contains no credentials, found a header with credentials",
        ":14: secret: expected a known key, found an unknown key; did you mean secrets?",
        ":15: titel: expected a known key, found an unknown key; did you mean title?",
    ];
    for line in expected {
        assert!(diagnostics.lines().any(|diagnostic| diagnostic.contains(line)), "{line}\nis not among\n{diagnostics}");
    }
}

/// Each alternative of the signed content costs a hash for each secret, also for a forged delivery.
#[test]
fn the_alternatives_of_the_content_are_limited() {
    let entry = |count: usize| {
        let variants = vec!["[\"body\"]"; count].join(", ");
        format!("auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = {{ from = \"header:A\" }}\ncontent_variants = [{variants}]")
    };
    assert!(compile(&entry(8), &[("secret", "x")]).is_ok());
    let diagnostics = compile(&entry(9), &[("secret", "x")]).expect_err("too many").to_string();
    assert!(diagnostics.contains("content_variants: expected at most 8 arrays of terms, found 9; remove some"), "{diagnostics}");
    let twilio = provider("twilio");
    let alternatives = twilio.recipe.proofs.iter().map(|proof| proof.signed().expect("a signature").contents.len());
    assert_eq!(alternatives.collect::<Vec<_>>(), [6, 6]);
}

#[test]
fn every_error_in_a_challenge_is_reported() {
    for (challenge, what) in [
        (
            "{}",
            "challenge.when: expected a table that maps each locator to a string, or to true for any string, such as { \"json:/type\" = ",
        ),
        ("{ when = {} }", "found an empty table, which matches every delivery"),
        ("{ when = { \"json:/a\" = false } }", "found false, which never matches"),
        ("{ when = { \"json:/a\" = \"\" } }", "found an empty string, which never matches"),
        (
            "{ when = { \"json:/a\" = 1 } }",
            "to true for any string, such as { \"json:/type\" = \"url_verification\" }, found an integer",
        ),
        ("{ when = { type = \"x\" } }", "challenge.when.type: expected header:NAME, "),
        (
            "{ when = { \"tag:t\" = true } }",
            "form-json:NAME/POINTER or query:NAME, found a part of the proof; use another locator, because a challenge may be unsigned",
        ),
        ("{ when = { \"form:\" = true } }", "challenge.when.form:: expected a form field such as form:id, found "),
        (
            "{ when = { \"form-json:payload\" = true } }",
            "expected a form field and a JSON pointer such as form-json:payload/data/id, found ",
        ),
        (&with_reply("body = \"echo(/a)\""), "challenge.reply.body: expected header:NAME, "),
        (
            &with_reply("body = [\"ok\"]"),
            "challenge.reply.body[0]: expected const:TEXT, config:NAME, echo(LOCATOR), percent-decode(LOCATOR), hmac(ALGORITHM, \
             LOCATOR, ENCODING) or json(PART), found an invalid string",
        ),
        (&with_reply("status = 302"), "challenge.reply.status: expected an integer from 200 to 299, found 302"),
        (
            &with_reply("text = \"x\""),
            "challenge.reply.text: expected body, content_type, headers or status, found an unknown key",
        ),
        (
            "{ when = { \"json:/a\" = true }, signed = false }",
            "challenge.signed: expected authenticated, effect, methods, reply or when, found an unknown key",
        ),
        ("{ methods = [] }", "challenge.methods: expected at least one method, found an empty array"),
        ("{ methods = [\"GET\", \"PUT\"] }", "challenge.methods[1]: expected \"GET\", \"HEAD\", \"OPTIONS\" or \"POST\", found"),
        ("{ methods = [\"GET\", \"POST\"] }", "challenge.when: expected a table that maps each locator to a string, "),
        ("{ methods = [\"GET\"], when = {} }", "found an empty table, which matches every delivery"),
        (
            "{ when = { \"query:t\" = \"config:token\" } }",
            "values.token: expected the text that the recipe reads as config:token, found nothing",
        ),
        (&with_reply("body = \"json(json(const:a))\""), "challenge.reply.body: expected const:TEXT, config:NAME, "),
        (
            &with_reply("body = \"hmac(sha256, query:a)\""),
            "challenge.reply.body: expected hmac(ALGORITHM, LOCATOR, ENCODING) such as ",
        ),
        (
            &with_reply("body = \"hmac(md5, query:a, hex)\""),
            "challenge.reply.body: expected hmac(ALGORITHM, LOCATOR, ENCODING) such as ",
        ),
        (
            &with_reply("body = \"hmac(sha256, query:a, hexa)\""),
            "challenge.reply.body: expected hmac(ALGORITHM, LOCATOR, ENCODING) ",
        ),
        (&with_reply("body = \"hmac(sha256, tag:t, hex)\""), "challenge.reply.body: expected header:NAME, "),
        (&with_reply("body = \"echo(basic:user)\""), "challenge.reply.body: expected header:NAME, "),
        (&with_reply("headers = \"x\""), "challenge.reply.headers: expected a table, found a string"),
        (&with_reply("headers = { \"a b\" = \"const:x\" }"), "challenge.reply.headers.a b: expected the name of a header field "),
        (
            &with_reply("headers = { Set-Cookie = \"const:x\" }"),
            "found a name that is invalid or reserved; set content_type for the media type, and remove any other reserved name",
        ),
        (
            &with_unsigned_reply("content_type = \"text/html; charset=utf-8\", body = \"echo(json:/a)\""),
            "challenge.reply.content_type: expected a media type such as text/plain for a reply that copies a text of an unsigned \
             request, found one that browsers run as a page; set another content_type",
        ),
        (
            &with_unsigned_reply("content_type = \"image/svg+xml\", body = [\"const:a\", \"json(percent-decode(json:/a))\"]"),
            "challenge.reply.content_type: expected a media type such as text/plain for a reply that copies ",
        ),
        (&with_reply("headers = { X-A = \"x\" }"), "challenge.reply.headers.X-A: expected const:TEXT, config:NAME, "),
        (
            &with_reply("headers = { X-A = \"const:a\\nb\" }"),
            "challenge.reply.headers.X-A: expected visible ASCII characters, found ",
        ),
        (
            "{ when = { \"json:/a\" = true }, effect = \"learn\" }",
            "challenge.effect: expected report, report(LOCATOR), visit-url(",
        ),
        ("{ when = { \"json:/a\" = true }, effect = \"visit-url\" }", "challenge.effect: expected report, report(LOCATOR), "),
        ("{ when = { \"json:/a\" = true }, effect = \"report(tag:t)\" }", "challenge.effect: expected header:NAME, "),
        ("{ when = { \"json:/a\" = true }, effect = 7 }", "challenge.effect: expected report, report(LOCATOR), "),
    ] {
        let diagnostics = compile(&format!("{INLINE}challenge = {challenge}"), &[("secret", "x")]).expect_err(what).to_string();
        assert!(diagnostics.contains(what), "{diagnostics}\ndoes not contain\n{what}");
    }
}

fn with_unsigned_reply(reply: &str) -> String {
    format!("{{ when = {{ \"json:/a\" = true }}, authenticated = false, reply = {{ {reply} }} }}")
}

#[test]
fn a_page_may_be_the_reply_if_it_copies_no_unsigned_text() {
    let page = "content_type = \"text/html\", body = ";
    for challenge in [
        with_unsigned_reply(&format!("{page}\"const:<p>ok</p>\"")),
        with_unsigned_reply(&format!("{page}\"hmac(sha256, json:/a, hex)\"")),
        with_reply(&format!("{page}\"echo(json:/a)\"")),
    ] {
        assert!(compile(&format!("{INLINE}challenge = {challenge}"), &[("secret", "x")]).is_ok(), "{challenge}");
    }
}

fn with_reply(reply: &str) -> String {
    format!("{{ when = {{ \"json:/a\" = true }}, reply = {{ {reply} }} }}")
}

#[test]
fn missing_parts_of_a_recipe_are_reported() {
    for key in ["auth", "algorithm", "signature", "content"] {
        let rest: String = INLINE.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
        let diagnostics = compile(&rest, &[("secret", "x")]).expect_err(key).to_string();
        let is_missing = diagnostics.contains(&format!(": {key}: expected ")) && diagnostics.ends_with(", found nothing");
        assert!(is_missing, "{diagnostics}");
    }
    let diagnostics = compile("", &[("secret", "x")]).expect_err("nothing is there").to_string();
    let neither =
        "provider: expected a provider such as \"stripe\" or an inline recipe (auth, algorithm, signature, content, proof)";
    assert!(diagnostics.contains(neither) && diagnostics.lines().count() == 1, "{diagnostics}");
    let diagnostics = compile_alone("provider = \"stripe\"").expect_err("no secrets").to_string();
    assert!(
        diagnostics.contains(": secrets: expected an array of \"env:NAME\" or \"file:PATH\", found nothing"),
        "{diagnostics}"
    );
    let diagnostics = compile_alone("provider = \"strip\"\nsecrets = \"env:HOME\"").expect_err("no such provider").to_string();
    assert!(
        diagnostics.contains("provider: expected a provider such as \"stripe\", found an unknown name; did you mean \"stripe\"?"),
        "{diagnostics}"
    );
}

#[test]
fn an_unknown_provider_does_not_hide_other_errors() {
    let entry = "provider = \"strip\"\nsecrets = \"env:HOOKHOLD_NOT_SET\"\ntimestamp = { past = 5 }\nlimit = 1";
    let diagnostics = compile_alone(entry).expect_err("four errors").sorted();
    let keys: Vec<&str> = diagnostics.iter().map(|diagnostic| &*diagnostic.key).collect();
    assert_eq!(keys, ["provider", "secrets", "timestamp.past", "limit"]);
}

#[test]
fn contradicting_parts_of_a_recipe_are_reported() {
    for (recipe, what) in [
        (
            format!("{INLINE}timestamp = {{ from = \"header:T\" }}"),
            "both this key and the term \"timestamp\" in content, or neither, found a timestamp that is not signed; add \"timestamp\" to content",
        ),
        (
            INLINE_TIMED.to_owned(),
            "both this key and the term \"timestamp\" in content, or neither, found only the term; add the key, or remove the term from content",
        ),
        (
            INLINE.replace("\"body\"", "\"id\", \"body\""),
            "event.id: expected a locator such as header:NAME, tag:NAME or json:/POINTER, found nothing; add event.id, or remove \"id\" from content",
        ),
        (
            INLINE.replace("\"body\"", "\"tag:t\", \"body\""),
            "signature: expected items, pair and take for a header such as t=1,v1=HEX, found a signature without tags",
        ),
        (
            timed("const:1700000000"),
            "timestamp.from: expected a locator such as header:NAME, tag:NAME or json:/POINTER, found a fixed",
        ),
        (INLINE_TAGGED.replace("tag:t", "tag:v1"), "signature.take: expected tags that contain only signatures, found v1"),
        (
            format!("{INLINE_TAGGED}event = {{ id = \"tag:v1\" }}"),
            "signature.take: expected tags that contain only signatures, found v1",
        ),
        (
            INLINE.replace("\"body\"", "\"const:T\", \".\""),
            "content: expected an array with \"body\" or another part of the request, found none",
        ),
        (INLINE.replace("\"body\"", ""), "content: expected an array with \"body\" or another part of the request, found none"),
        (
            INLINE.replace("content", "content_variants").replace("[\"body\"]", "[[\"body\"], [\"url\"]]"),
            "content_variants[1]: expected an array with \"body\", \"form-sorted\" or another part of the body, found none",
        ),
        (
            INLINE.replace("[\"body\"]", "[\"body\"]\ncontent_variants = [[\"body\"]]"),
            "content_variants: expected content or content_variants, found both",
        ),
        (
            INLINE.replace("content", "content_variants").replace("[\"body\"]", "[]"),
            "content_variants: expected arrays of terms, found an empty array",
        ),
        (
            INLINE.replace("\"body\"]", "\"form-sorted\"]\nbody_sha256 = { from = \"query:h\" }"),
            "body_sha256: expected body_sha256 with \"url\" and \"form-sorted\" in content, found content without one of these terms",
        ),
        (
            INLINE.replace("\"body\"]", "\"url\", \"form-sorted\"]\nbody_sha256 = { from = \"header:h\" }"),
            "body_sha256.from: expected query:NAME, found an invalid string",
        ),
    ] {
        let diagnostics = compile(&recipe, &[("secret", "x")]).expect_err(what).to_string();
        assert!(diagnostics.contains(what), "{diagnostics}");
    }
}

fn timed(locator: &str) -> String {
    format!("{INLINE_TIMED}timestamp = {{ from = {locator:?} }}")
}

/// Tries many combinations of locators in a recipe. `check` must reject a locator that the verifier cannot read. For every
/// recipe that `check` accepts, `send` must be able to sign a sample, and the gateway must be able to verify the sample.
#[test]
fn every_valid_recipe_verifies_its_own_samples() {
    let locators = ["header:A", "tag:t", "tag:v1", "query:q", "const:7", "json:/j", "form:f"];
    let mut valid = 0;
    // A sample has one body, so it cannot contain a JSON value and a form field.
    let is_one_body = |time: &str, id: &str| !["json:/jform:f", "form:fjson:/j"].contains(&&*format!("{time}{id}"));
    let pairs = locators.iter().flat_map(|time| locators.map(|id| (time, id)));
    for (time, id) in pairs.filter(|(time, id)| is_one_body(time, id)) {
        for part in ["timestamp", "id", "header:A", "tag:t", "tag:v1", "url", "form-sorted"] {
            let recipe = INLINE_TAGGED.replace("tag:t", part).replace("\"body\"", "\"timestamp\", \"body\"");
            let entry = format!("{recipe}timestamp = {{ from = {time:?} }}\nevent = {{ id = {id:?} }}");
            let Ok(source) = compile(&entry, &[("secret", "x")]) else { continue };
            assert_eq!(rejection(&source, &sample(&source, None)), None, "{entry}");
            valid += 1;
        }
    }
    assert!(valid > 20, "only {valid} valid recipes");
}

#[test]
fn an_entry_replaces_content_given_in_either_form() {
    let one = source("twilio", "s", "content = [\"url\", \"form-sorted\"]");
    let many = source("github", "s", "content_variants = [[\"body\"], [\"header:X-Time\", \"body\"]]");
    let contents = |source: &Source| source.recipe.proofs[0].signed().expect("signed content").contents.len();
    assert_eq!((contents(&one), contents(&many)), (1, 2));
    for source in [one, many] {
        assert_eq!(rejection(&source, &sample(&source, None)), None);
    }
    let both = "provider = \"twilio\"\ncontent = [\"body\"]\ncontent_variants = [[\"body\"]]";
    let diagnostics = compile(both, &[("secret", "s")]).expect_err("both").to_string();
    assert!(diagnostics.contains("expected content or content_variants, found both"), "{diagnostics}");
}

#[test]
fn an_ipv4_mapped_network_admits_ipv4_addresses() {
    let admits = |network: &str, address: &str| {
        let source = source("github", "s", &format!("allow_from = {network:?}"));
        source.allows_address(address.parse().expect("an address"))
    };
    for (network, inside, outside) in [
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1", "::1"),
        ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
        ("::ffff:0:0/96", "192.0.2.1", "2001:db8::1"),
        ("2001:db8::/32", "2001:db8::1", "192.0.2.1"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", "11.0.0.1"),
    ] {
        assert!(admits(network, inside), "{inside} in {network}");
        assert!(!admits(network, outside), "{outside} in {network}");
    }
}

#[test]
fn an_error_in_the_entry_is_reported_there() {
    let diagnostics = Diagnostics::default();
    let text = "provider = \"stripe\"\nsecrets = \"env:HOME\"\n[timestamp]\nfuture = \"soon\"\n";
    let table = TomlTable::parse("hookhold.toml", text, &diagnostics).expect("it is TOML");
    hookhold::source::Source::compile("shop", table, &defaults(), &diagnostics);
    assert!(diagnostics.to_string().starts_with("hookhold.toml:4: timestamp.future: "), "{diagnostics}");
}

/// Without a proof, only the address of the sender protects a source.
#[test]
fn a_recipe_without_a_proof_needs_addresses() {
    let found = compile_alone("auth = \"none\"").expect_err("no addresses").to_string();
    assert!(found.contains("allow_from: expected at least one network, found nothing; list the sender's networks"), "{found}");
    let source = compile_alone("auth = \"none\"\nallow_from = [\"192.0.2.0/24\"]").expect("a source");
    let verified = verify(&source, &delivery("{}", &[])).expect("no proof is necessary");
    assert_eq!((verified.event.auth(), verified.event.integrity()), ("none", hookhold::event::Integrity::None));
    let both = "allow_from = [\"192.0.2.0/24\"]\n[[proof]]\nauth = \"none\"\n[[proof]]\nauth = \"basic\"";
    let found = compile(both, &[("secret", "a:b")]).expect_err("a proof that is never asked").to_string();
    assert!(
        found.contains("proof: expected proofs of which none is auth = \"none\", found one that accepts every delivery"),
        "{found}"
    );
}

/// Parameters that are empty or of another type, and a second error that only follows from the first one.
#[test]
fn an_empty_or_wrong_parameter_causes_one_error() {
    let token = "auth = \"token\"\n";
    let jwt = "auth = \"jwt\"\ntoken = { from = \"header:X\" }\n";
    for (entry, expected) in [
        (
            format!("{token}token = {{ from = [] }}"),
            "token.from: expected header:NAME, query:NAME, json:/POINTER, form:NAME or form-json:NAME/POINTER, found an empty array",
        ),
        (format!("{jwt}algorithm = []"), "algorithm: expected an array of algorithms such as [\"HS256\"], found an empty array"),
        (
            format!("{INLINE}key_format = [7]"),
            "key_format[0]: expected strip-prefix:TEXT, utf8, hex, base64, base64url, sha1 or sha256, found an integer",
        ),
        (
            format!("{INLINE}challenge = [{{ methods = [\"PUT\"] }}]"),
            "challenge.methods[0]: expected \"GET\", \"HEAD\", \"OPTIONS\" or \"POST\", found an invalid string",
        ),
        (
            format!("{INLINE}challenge = [{{ methods = [] }}]"),
            "challenge.methods: expected at least one method, found an empty array",
        ),
        (
            format!("{INLINE}claims = {{ iss = \"x\" }}"),
            "claims: expected a known key, found an unknown key; see config/hookhold.toml and docs/recipes.md for every option",
        ),
    ] {
        let found = compile(&entry, &[("secret", "x")]).expect_err(&entry).to_string();
        let flat = found.replace("challenge[0]", "challenge");
        assert!(found.lines().count() == 1 && flat.ends_with(expected), "{entry}:\n{found}");
    }
}
