//! Secret texts that a request carries as they are: tokens in headers, in the URL and in the body, and HTTP Basic.

use crate::endpoint::{EVENT, Request, base64, json, run};

#[test]
fn a_token_in_a_header_arrives_in_kafka() {
    let sources = format!(
        "[sources.gitlab]\nauth = \"token\"\ntoken = {{ from = \"header:X-Gitlab-Token\" }}\nsecrets = [\"file:a\", \"file:b\"]\n{EVENT}\n\
         [sources.bearer]\nauth = \"token\"\ntoken = {{ from = [\"header:Authorization\", \"query:access_token\"], prefix = \"Bearer \" }}\n\
         secrets = [\"file:a\"]\n{EVENT}"
    );
    let with = |value: &str, id: &str| Request::new("gitlab", json(id)).with("X-Gitlab-Token", value);
    let bearer = |value: &str, id: &str| Request::new("bearer", json(id)).with("Authorization", value);
    run(
        "proofs-token",
        &sources,
        &[("a", "glpat-1 \u{e9}"), ("b", "glpat-2")],
        &[
            with("glpat-2", "t-1").stored("a token", "token:b", "none", Some("t-1")),
            with("glpat-2", "t-1").outcome("the same delivery", "duplicate"),
            with("glpat-1 \u{e9}", "t-2").stored("a token with a space and an accent", "token:a", "none", Some("t-2")),
            with("x", "t-3").also_with("X-Gitlab-Token", "glpat-2").stored("the second value", "token:b", "none", Some("t-3")),
            with("glpat-3", "t-4").outcome("another token", "signature_mismatch"),
            with("glpat-", "t-4").outcome("a truncated token", "signature_mismatch"),
            with("glpat-22", "t-4").outcome("a longer token", "signature_mismatch"),
            with("GLPAT-2", "t-4").outcome("upper case", "signature_mismatch"),
            with(&"x".repeat(4096), "t-4").outcome("a very long token", "signature_mismatch"),
            with("", "t-4").outcome("an empty token", "signature_missing"),
            Request::new("gitlab", json("t-4")).outcome("no token", "signature_missing"),
            Request::new("gitlab", json("t-4"))
                .to("/hooks/gitlab?X-Gitlab-Token=glpat-2")
                .outcome("the token in the URL", "signature_missing"),
            bearer("Bearer glpat-1 \u{e9}", "t-5").stored("a bearer token", "token:a", "none", Some("t-5")),
            bearer("bEARER glpat-1 \u{e9}", "t-6").stored("the scheme in another case", "token:a", "none", Some("t-6")),
            bearer("Basic eDp5", "t-7").to("/hooks/bearer?access_token=Bearer%20glpat-1%20%C3%A9").stored(
                "a proxy's credentials and the token in the URL",
                "token:a",
                "none",
                Some("t-7"),
            ),
            bearer("glpat-1 \u{e9}", "t-8").outcome("no scheme", "signature_malformed"),
            bearer("Bearer", "t-8").outcome("the scheme alone", "signature_malformed"),
            bearer("Bearer  ", "t-8").outcome("the scheme and white space", "signature_malformed"),
            bearer("Bearer x", "t-8").outcome("another token", "signature_mismatch"),
        ],
    );
}

#[test]
fn a_token_in_the_url_or_body_arrives_in_kafka() {
    let sources = format!(
        "[sources.postmark]\nauth = \"token\"\ntoken = {{ from = \"query:key\" }}\nsecrets = [\"file:key\"]\n{EVENT}\n\
         [sources.figma]\nauth = \"token\"\ntoken = {{ from = [\"json:/passcode\", \"form:passcode\"] }}\nsecrets = [\"file:key\"]\n{EVENT}"
    );
    let to = |query: &str, id: &str| Request::new("postmark", json(id)).to(format!("/hooks/postmark{query}"));
    let figma = |body: &str| Request::new("figma", body);
    run(
        "proofs-url-token",
        &sources,
        &[("key", "a/b c+d")],
        &[
            to("?x=1&key=a/b%20c%2Bd", "u-1").stored("an encoded token", "token:key", "none", Some("u-1")),
            to("?key=a%2fb%20c+d&key=x", "u-2").stored("a plus sign as it is", "token:key", "none", Some("u-2")),
            to("?%6bey=a/b%20c%2Bd", "u-5").stored("an encoded name", "token:key", "none", Some("u-5")),
            to("?k%65y=x&key=a/b%20c+d", "u-3").outcome("the first of two spellings counts", "signature_mismatch"),
            to("?key=x&key=a/b%20c+d", "u-3").outcome("the first of two parameters counts", "signature_mismatch"),
            to("?key=", "u-3").outcome("an empty token", "signature_missing"),
            to("?key", "u-3").outcome("a parameter without value", "signature_missing"),
            to("?KEY=a/b%20c+d", "u-3").outcome("another parameter", "signature_missing"),
            to("", "u-3").outcome("no query", "signature_missing"),
            to("?key=a/b%20c+", "u-3").outcome("a truncated token", "signature_mismatch"),
            to("?key=%zz", "u-3").outcome("a wrong escape", "signature_mismatch"),
            figma("{\"id\": \"f-1\", \"passcode\": \"a/b c+d\"}").stored("a token in JSON", "token:key", "none", Some("f-1")),
            figma("passcode=a/b+c%2Bd&id=x").stored("a token in a form", "token:key", "none", None),
            figma("{\"id\": \"f-2\", \"passcode\": \"x\"}").outcome("another token", "signature_mismatch"),
            figma("{\"id\": \"f-2\", \"passcode\": \"\"}").outcome("an empty token", "signature_missing"),
            figma("{\"id\": \"f-2\", \"passcode\": null}").outcome("null", "signature_missing"),
            figma("{\"id\": \"f-2\"}").outcome("no token", "signature_missing"),
            figma("").outcome("an empty body", "signature_missing"),
        ],
    );
}

#[test]
fn basic_credentials_arrive_in_kafka() {
    let sources = format!("[sources.chargebee]\nauth = \"basic\"\nsecrets = [\"file:a\", \"file:b\"]\n{EVENT}");
    let raw = |value: &str, id: &str| Request::new("chargebee", json(id)).with("Authorization", value);
    let with = |credentials: &str, id: &str| raw(&format!("Basic {}", base64(credentials.as_bytes())), id);
    run(
        "proofs-basic",
        &sources,
        &[("a", "user:pass:word \u{e9}"), ("b", "key:")],
        &[
            with("user:pass:word \u{e9}", "b-1").stored("user and password", "basic:a", "none", Some("b-1")),
            with("user:pass:word \u{e9}", "b-1").outcome("the same delivery", "duplicate"),
            with("key:", "b-2").stored("an empty password", "basic:b", "none", Some("b-2")),
            raw("bAsIc  a2V5Og==", "b-3").stored("the scheme in another case", "basic:b", "none", Some("b-3")),
            raw("Basic a2V5Og", "b-4").stored("without padding", "basic:b", "none", Some("b-4")),
            with("user:pass", "b-5").outcome("another password", "signature_mismatch"),
            with("User:pass:word \u{e9}", "b-5").outcome("another user", "signature_mismatch"),
            with("key", "b-5").outcome("no password", "signature_mismatch"),
            with("", "b-5").outcome("the scheme alone", "signature_malformed"),
            with(":", "b-5").outcome("no user and no password", "signature_mismatch"),
            raw("Basic !", "b-5").outcome("no Base64", "signature_malformed"),
            raw("Bearer a2V5Og==", "b-5").outcome("another scheme", "signature_malformed"),
            raw("a2V5Og==", "b-5").outcome("no scheme", "signature_malformed"),
            raw("", "b-5").outcome("an empty header", "signature_missing"),
            raw(&format!("Basic {}", "QUFB".repeat(2000)), "b-5").outcome("a very long password", "signature_mismatch"),
            Request::new("chargebee", json("b-5")).outcome("no header", "signature_missing"),
        ],
    );
}
