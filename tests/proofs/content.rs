//! The terms of the signed content that are neither the body nor a header: URL parts, hashes, lists of headers and forms.

use crate::crypto::{hash, hmac};
use crate::endpoint::{EVENT, Request, hex, json, now, run, tampered};

fn code(content: &[u8]) -> String {
    hex(&hmac("sha256", b"key", content))
}

#[test]
fn method_target_and_body_hash_arrive_in_kafka() {
    let sources = "[sources.bird]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsecrets = [\"file:key\"]\n\
         signature = { from = \"header:X-Sig\" }\n\
         content = [\"method\", \"\\n\", \"path-and-query\", \"\\n\", \"body-hash(sha512, base64url)\"]\n\
         event = { id = \"query:id\", type = \"json:/type\" }\n";
    let signed = |target: &str, body: Vec<u8>| {
        use base64::Engine as _;
        let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash("sha512", &body));
        let content = format!("POST\n{target}\n{hash}");
        Request::new("bird", body).to(target).with("X-Sig", code(content.as_bytes()))
    };
    let genuine = signed("/hooks/bird?id=7&x=%2F+%C3%A9", json("x"));
    let absolute = format!("http://hooks.example.com{}", genuine.target);
    let mut sent = vec![
        genuine.clone().stored("a signed target", "mac-sha256:key", "full", Some("7")),
        genuine.clone().to(absolute).outcome("the absolute form of the target", "duplicate"),
        signed("/hooks/bird?id=8", Vec::new()).stored("an empty body", "mac-sha256:key", "full", Some("8")),
        genuine.clone().to("/hooks/bird?id=8&x=%2F+%C3%A9").outcome("another id", "signature_mismatch"),
        genuine.clone().to("/hooks/bird?id=7&x=/+%C3%A9").outcome("the same query in another encoding", "signature_mismatch"),
        genuine.clone().to("/hooks/bird?x=%2F+%C3%A9&id=7").outcome("the query in another order", "signature_mismatch"),
        genuine.clone().to("/hooks/bird").outcome("no query", "signature_mismatch"),
    ];
    sent.extend(tampered(&genuine, "X-Sig", true));
    run("proofs-target", sources, &[("key", "key")], &sent);
}

/// Hook0 names the signed headers in a tag, Contentful in a header.
#[test]
fn a_list_of_signed_headers_arrives_in_kafka() {
    let sources = "[sources.hook0]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsecrets = [\"file:key\"]\n\
         signature = { from = \"header:X-Hook0-Signature\", items = \",\", pair = \"=\", take = [\"v1\"] }\n\
         content = [\"timestamp\", \".\", \"tag:h\", \".\", \"listed-headers(h, '.')\", \".\", \"body\"]\n\
         timestamp = { from = \"tag:t\", unit = \"s\" }\nevent = { id = \"header:X-Event-Id\" }\n\
         [sources.contentful]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsecrets = [\"file:key\"]\n\
         signature = { from = \"header:X-Contentful-Signature\" }\n\
         content = [\"method\", \"\\n\", \"path-and-query\", \"\\n\", \
         \"listed-headers(header:X-Contentful-Signed-Headers, ';', ':')\", \"\\n\", \"body\"]\n\
         event = { id = \"json:/id\" }\n";
    let hook0 = |at: u64, names: &str, values: &str| {
        let code = code(format!("{at}.{names}.{values}.{{}}").as_bytes());
        Request::new("hook0", "{}").with("X-Hook0-Signature", format!("t={at},h={names},v1={code}"))
    };
    let genuine =
        hook0(now(), "x-event-id x-delivery-id", "evt-1.dlv-1").with("X-Event-Id", "evt-1").with("X-Delivery-Id", "dlv-1");
    let many = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("x-a-{number}")).collect();
        let request = hook0(now(), &names.join(" "), &vec!["1"; count].join(".")).with("X-Event-Id", format!("many-{count}"));
        names.iter().fold(request, |request, name| request.with(name, "1"))
    };
    let contentful = |list: &str, headers: &str, id: &str| {
        let body = json(id);
        let content = [format!("POST\n/hooks/contentful?a=1\n{headers}\n").as_bytes(), &body].concat();
        let request = Request::new("contentful", body).to("/hooks/contentful?a=1").with("X-Contentful-Signature", code(&content));
        request
            .with("X-Contentful-Signed-Headers", list)
            .with("X-Contentful-Topic", "Entry.save")
            .with("X-Contentful-Timestamp", "5")
    };
    let list = "x-contentful-signed-headers,x-contentful-timestamp,X-Contentful-Topic";
    let shown = format!("x-contentful-signed-headers:{list};x-contentful-timestamp:5;x-contentful-topic:Entry.save");
    let entry = contentful(list, &shown, "c-1");
    let mut sent = vec![
        genuine.clone().stored("Hook0", "mac-sha256:key", "body", Some("evt-1")),
        genuine.clone().outcome("the same delivery", "duplicate"),
        hook0(now(), "x-absent", "").with("X-Event-Id", "evt-2").stored(
            "an absent header",
            "mac-sha256:key",
            "body",
            Some("evt-2"),
        ),
        many(32).stored("32 headers", "mac-sha256:key", "body", Some("many-32")),
        many(33).outcome("33 headers", "signature_malformed"),
        hook0(now(), "x-a x-b X-A", "1.1.1").with("X-A", "1").with("X-B", "1").outcome("a repeated name", "signature_malformed"),
        genuine.clone().with("X-Event-Id", "evt-2").outcome("another id", "signature_mismatch"),
        genuine.clone().without("X-Delivery-Id").outcome("no delivery id", "signature_mismatch"),
        hook0(now() - 302, "x-a", "").outcome("a stale time", "timestamp_stale"),
        hook0(now() + 320, "x-a", "").outcome("a future time", "timestamp_future"),
        hook0(now(), "x:a", "").outcome("a name that no header can have", "signature_malformed"),
        hook0(now(), "", "").outcome("an empty list", "signature_malformed"),
        entry.clone().stored("Contentful", "mac-sha256:key", "full", Some("c-1")),
        contentful("", "", "c-2").outcome("no list", "signature_malformed"),
        entry.clone().with("X-Contentful-Topic", "Entry.delete").outcome("another topic", "signature_mismatch"),
        entry.clone().with("X-Contentful-Signed-Headers", "x-contentful-topic").outcome("a shorter list", "signature_mismatch"),
        entry.clone().without("X-Contentful-Signed-Headers").outcome("the list is missing", "signature_malformed"),
    ];
    sent.extend(tampered(&entry, "X-Contentful-Signature", true));
    run("proofs-listed", sources, &[("key", "key")], &sent);
}

/// Plivo's second version signs the URL without its query and a nonce, but not the body.
#[test]
fn a_url_without_query_arrives_in_kafka() {
    let sources = "[sources.plivo]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsecrets = [\"file:key\"]\n\
         signature = { from = \"header:X-Plivo-Signature-V2\" }\ncontent = [\"url-no-query\", \"header:X-Plivo-Signature-V2-Nonce\"]\n\
         event = { id = \"header:X-Plivo-Signature-V2-Nonce\" }\n";
    let signed = |url: &str, nonce: &str| {
        let code = code(format!("{url}{nonce}").as_bytes());
        Request::new("plivo", "a=1").with("X-Plivo-Signature-V2", code).with("X-Plivo-Signature-V2-Nonce", nonce)
    };
    let genuine = signed("https://hooks.example.com/hooks/plivo", "n-1");
    run(
        "proofs-no-query",
        sources,
        &[("key", "key")],
        &[
            genuine.clone().to("/hooks/plivo?x=1").stored("any query", "mac-sha256:key", "partial", Some("n-1")),
            genuine.clone().outcome("the same nonce", "duplicate"),
            genuine.clone().with_body(b"a=2".as_slice()).outcome("the same nonce with another body", "duplicate"),
            signed("https://hooks.example.com/hooks/plivo?x=1", "n-2").outcome("a signed query", "signature_mismatch"),
            signed("http://hooks.example.com/hooks/plivo", "n-2").outcome("another scheme", "signature_mismatch"),
            signed("https://other.example.com/hooks/plivo", "n-2").outcome("another host", "signature_mismatch"),
            signed("https://hooks.example.com/hooks/plivo", "n-2")
                .with("X-Plivo-Signature-V2-Nonce", "n-3")
                .outcome("another nonce", "signature_mismatch"),
            genuine.clone().without("X-Plivo-Signature-V2-Nonce").outcome("no nonce", "signature_malformed"),
            genuine.clone().without("X-Plivo-Signature-V2").outcome("no signature", "signature_missing"),
            genuine.clone().with("X-Plivo-Signature-V2", "zz").outcome("an unreadable signature", "signature_malformed"),
        ],
    );
}

#[test]
fn sorted_forms_with_separators_arrive_in_kafka() {
    let source = |name: &str, term: &str| {
        format!(
            "[sources.{name}]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsecrets = [\"file:key\"]\n\
             signature = {{ from = \"query:sig\" }}\ncontent = [\"{term}\"]\nevent = {{ id = \"form:id\" }}\n"
        )
    };
    let sources = source("once", "form-sorted('&', '=')") + &source("repeated", "form-sorted(';', ':', repeated)");
    let signed = |name: &str, form: &str, content: &str| {
        Request::new(name, form).to(format!("/hooks/{name}?sig={}", code(content.as_bytes())))
    };
    let form = "id=1&b=2&a=%26+x&b=1&b=2&%C3%A9=%F0%9F%98%80";
    let once = signed("once", form, "a=& x&b=1&b=2&id=1&\u{e9}=\u{1f600}");
    let repeated = signed("repeated", form, "a:& x;b:1;b:2;b:2;id:1;\u{e9}:\u{1f600}");
    let many = |count: usize| {
        let fields: Vec<String> = (0..count).map(|number| format!("f{number:04}=1")).collect();
        signed("once", &fields.join("&"), &fields.join("&"))
    };
    let sent = [
        once.clone().stored("each field once", "mac-sha256:key", "partial", Some("1")),
        repeated.clone().stored("repeated fields", "mac-sha256:key", "partial", Some("1")),
        once.clone().outcome("the same delivery", "duplicate"),
        signed("once", form, "a=& x&b=1&b=2&b=2&id=1&\u{e9}=\u{1f600}").outcome("a repeated field", "signature_mismatch"),
        signed("repeated", form, "a:& x;b:1;b:2;id:1;\u{e9}:\u{1f600}").outcome("each field once", "signature_mismatch"),
        once.clone().with_body(b"id=2".as_slice()).outcome("another form", "signature_mismatch"),
        once.clone().with_body(b"".as_slice()).outcome("an empty body", "signature_mismatch"),
        once.clone().to("/hooks/once").outcome("no signature", "signature_missing"),
        once.clone().to("/hooks/once?sig=").outcome("an empty signature", "signature_missing"),
        once.clone().to("/hooks/once?sig=zz").outcome("an unreadable signature", "signature_malformed"),
        once.clone()
            .to(format!("/hooks/once?sig=zz&{}", &once.target[12..]))
            .outcome("the second parameter", "signature_malformed"),
        many(1000).stored("1000 fields", "mac-sha256:key", "partial", None),
        many(1001).outcome("1001 fields", "signature_malformed"),
    ];
    run("proofs-forms", &sources, &[("key", "key")], &sent);
}

#[test]
fn optional_values_and_query_values_arrive_in_kafka() {
    let sources = format!(
        "[sources.acme]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsecrets = [\"file:key\"]\nsignature = {{ from = \"header:X-Sig\" }}\n\
         content = [\"optional(header:X-Tenant)\", \"|\", \"query:nonce\", \"|\", \"body\", \"const: end\"]\n{EVENT}"
    );
    let signed = |tenant: &str, nonce: &str, id: &str| {
        let body = json(id);
        let content = [tenant.as_bytes(), b"|", nonce.as_bytes(), b"|", &body, b" end"].concat();
        Request::new("acme", body).to(format!("/hooks/acme?nonce={nonce}")).with("X-Sig", code(&content))
    };
    let genuine = signed("t-1", "%20", "o-1").with("X-Tenant", "t-1");
    let mut sent = vec![
        genuine.clone().stored("a tenant", "mac-sha256:key", "full", Some("o-1")),
        signed("", "1", "o-2").stored("no tenant", "mac-sha256:key", "full", Some("o-2")),
        signed("", "1", "o-3").with("X-Tenant", "").stored("an empty tenant", "mac-sha256:key", "full", Some("o-3")),
        signed("", "1", "o-4").with("X-Tenant", "t-1").outcome("an added tenant", "signature_mismatch"),
        genuine.clone().without("X-Tenant").outcome("a removed tenant", "signature_mismatch"),
        genuine.clone().to("/hooks/acme?nonce=+").outcome("the nonce in another encoding", "signature_mismatch"),
        genuine.clone().to("/hooks/acme").outcome("no nonce", "signature_malformed"),
    ];
    sent.extend(tampered(&genuine, "X-Sig", true));
    run("proofs-optional", &sources, &[("key", "key")], &sent);
}
