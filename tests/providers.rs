//! Tests of the recipe files in `[providers] dir`. Files alone must add new kinds of senders to the real binary: no test changes
//! code, and every signature comes from openssl. The verbs must know the files, a reload must read them again, and a wrong file
//! must be reported with its own lines without hiding other errors.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/sdk.rs"]
mod sdk;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookhold::config::Config;
use process::{Home, Line, post};
use sdk::openssl_hmac;
use serde_json::Value;

/// A sender that signs a header and the body with an HMAC, in a format that no built-in recipe has.
const ACME: &str = r#"
title = "Acme"
auth = "mac"
algorithm = "sha512"
encoding = "base64"
signature = { from = "header:Acme-Signature", items = ";", pair = "=", take = ["s"] }
key_format = ["strip-prefix:acme_", "hex"]
content = ["header:Acme-Id", "|", "body"]
event = { id = "header:Acme-Id", type = "json:/kind", type_prefix = "com.acme." }
limits = { respond_within = "5s", gives_up_after = "1d" }
[setup]
url = "Acme > Hooks"
secret = "Acme > Keys"
sample_type = "order.paid"
facts = ["https://acme.example/hooks"]
"#;
/// A sender that checks the endpoint by GET before it sends a token.
const METEO: &str = r#"
auth = "token"
token = { from = "header:Authorization", prefix = "Bearer " }
event = { id = "json:/id" }
[[challenge]]
methods = ["GET"]
when = { "query:mode" = "subscribe", "query:verify" = "config:verify" }
authenticated = false
reply = { content_type = "text/plain", body = "echo(query:challenge)" }
"#;
/// A sender that checks the endpoint in four ways: with the methods HEAD and OPTIONS, by GET with a token in the recipe, and by
/// an unsigned POST whose reply contains an HMAC.
const PROBE: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:Probe-Signature" }
content = ["body"]
event = { id = "json:/id" }
[[challenge]]
methods = ["HEAD", "OPTIONS"]
when = { "header:Probe-Origin" = true }
authenticated = false
reply = { status = 204, headers = { Probe-Allowed = "echo(header:Probe-Origin)" } }
[[challenge]]
methods = ["GET"]
when = { "query:mode" = "subscribe", "query:verify_token" = "l1teral-t0ken" }
authenticated = false
reply = { body = "echo(query:c)" }
[[challenge]]
when = { "json:/event" = "validate" }
authenticated = false
reply = { content_type = "application/json", body = ["const:{\"hash\":", "json(hmac(sha256, json:/text, hex))", "const:}"] }
"#;
/// A sender that signs with a private key.
const SIGNALS: &str = r#"
title = "Signals"
auth = "signature"
algorithm = "ed25519"
encoding = "base64"
key_format = "pem"
signature = { from = "header:Signals-Signature" }
content = ["config:account", ".", "body"]
event = { id = "json:/id" }
"#;
const SOURCES: &str = r#"
[sources.acme]
provider = "acme"
secrets = ["file:acme"]
[sources.meteo]
provider = "meteo"
secrets = ["file:meteo"]
values = { verify = "sunny" }
[sources.signals]
provider = "signals"
public_keys = ["file:signals"]
values = { account = "a1" }
"#;
const ACME_KEY: &str = "acme_00112233445566778899aabbccddeeff";

/// Returns a home with the recipes above, and the private key that belongs to the public key of `signals`.
fn home() -> (Home, PathBuf) {
    let home = Home::new(&[("acme", ACME_KEY), ("meteo", "tok-1")], &config(SOURCES));
    let (private, public) = (home.journal().with_file_name("private.pem"), home.journal().with_file_name("signals"));
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", path(&private)]);
    openssl(&["pkey", "-in", path(&private), "-pubout", "-out", path(&public)]);
    fs::create_dir(recipes(&home)).expect("target/ can be written to");
    for (name, text) in [("acme", ACME), ("meteo", METEO), ("signals", SIGNALS)] {
        put(&home, name, text);
    }
    (home, private)
}

fn config(sources: &str) -> String {
    format!("server.drain_delay = \"0s\"\nadmin.keep_rejected = \"1 MiB\"\nproviders.dir = \"recipes\"\n{sources}")
}

fn recipes(home: &Home) -> PathBuf {
    home.journal().with_file_name("recipes")
}

fn put(home: &Home, name: &str, text: &str) {
    fs::write(recipes(home).join(format!("{name}.toml")), text).expect("target/ can be written to");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

fn openssl(args: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(args).output().expect("openssl starts: tests/run installs it");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// Returns the request of a delivery of `body` from Acme.
fn acme(id: &str, body: &str) -> Vec<u8> {
    let key = base16ct::mixed::decode_vec(ACME_KEY.trim_start_matches("acme_")).expect("the key is hexadecimal");
    let code = STANDARD.encode(openssl_hmac("sha512", &key, format!("{id}|{body}").as_bytes()));
    let headers = [("acme-id".to_owned(), id.to_owned()), ("acme-signature".to_owned(), format!("v=1;s={code}"))];
    post("/hooks/acme", &headers, body.as_bytes())
}

/// Returns the request of a delivery of `body` from Signals, signed for the account `account`.
fn signals(private: &Path, account: &str, body: &str) -> Vec<u8> {
    let content = private.with_file_name("content");
    fs::write(&content, format!("{account}.{body}")).expect("target/ can be written to");
    let code = openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", path(private), "-in", path(&content)]);
    post("/hooks/signals", &[("signals-signature".to_owned(), STANDARD.encode(code))], body.as_bytes())
}

fn ask(home: &Home, request: &[u8]) -> (u16, String) {
    let answer = Line::open(home.hooks).ask(request);
    (answer.status, String::from_utf8(answer.body).expect("the replies are text"))
}

fn get(home: &Home, target: &str) -> (u16, String) {
    ask(home, format!("GET {target} HTTP/1.1\r\nhost: hooks.example.com\r\n\r\n").as_bytes())
}

fn printed(output: Output) -> (Option<i32>, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("verbs print text"))
}

#[test]
fn three_new_senders_need_only_recipe_files() {
    let (home, private) = home();
    let process = home.start();
    assert_eq!(ask(&home, &acme("o-1", "{\"kind\":\"order.paid\"}")).0, 200);
    assert_eq!(ask(&home, &String::from_utf8(acme("o-2", "{}")).expect("text").replace("o-2", "o-3").into_bytes()).0, 401);
    assert_eq!(ask(&home, &signals(&private, "a1", "{\"id\":\"s-1\"}")).0, 200);
    assert_eq!(ask(&home, &signals(&private, "a2", "{\"id\":\"s-2\"}")).0, 401);

    assert_eq!(get(&home, "/hooks/meteo?mode=subscribe&verify=sunny&challenge=42"), (200, "42".into()));
    assert_eq!(get(&home, "/hooks/meteo?mode=subscribe&verify=rainy&challenge=42").0, 401);
    assert_eq!(get(&home, "/hooks/acme?mode=subscribe&verify=sunny&challenge=42").0, 405, "Acme has no challenge");
    let bearer = |token: &str| post("/hooks/meteo", &[("authorization".into(), format!("Bearer {token}"))], b"{\"id\":\"m-1\"}");
    assert_eq!(ask(&home, &bearer("tok-1")).0, 200);
    assert_eq!(ask(&home, &bearer("tok-2")).0, 401);

    let stored = String::from_utf8(home.verb(&["tail", "--format", "json"]).stdout).expect("JSON is text");
    let events: Vec<Value> = stored.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let facts: Vec<_> = events.iter().map(|event| (event["source"].as_str(), event["id"].as_str())).collect();
    assert_eq!(facts, [(Some("acme"), Some("o-1")), (Some("signals"), Some("s-1")), (Some("meteo"), Some("m-1"))]);
    assert_eq!(events[0]["type"], "order.paid");
    drop(process);
}

#[test]
fn a_file_adds_challenges_with_every_method() {
    let (home, _) = home();
    put(&home, "probe", PROBE);
    home.configure(&config(&format!("{SOURCES}[sources.probe]\nprovider = \"probe\"\nsecrets = [\"file:acme\"]\n")));
    let process = home.start();
    for method in ["HEAD", "OPTIONS"] {
        let request = |headers: &str| format!("{method} /hooks/probe HTTP/1.1\r\nhost: h\r\n{headers}\r\n").into_bytes();
        let answer = Line::open(home.hooks).ask(&request("probe-origin: a.example\r\n"));
        assert!(answer.status == 204 && answer.head.contains("probe-allowed: a.example\r\n"), "{}", answer.head);
        assert_eq!(Line::open(home.hooks).ask(&request("")).status, 401, "{method} without the header");
    }
    assert_eq!(get(&home, "/hooks/probe?mode=subscribe&verify_token=l1teral-t0ken&c=7"), (200, "7".into()));
    let hmac = |text: &str| base16ct::lower::encode_string(&openssl_hmac("sha256", ACME_KEY.as_bytes(), text.as_bytes()));
    let validation = post("/hooks/probe", &[], b"{\"event\":\"validate\",\"text\":\"abc\"}");
    assert_eq!(ask(&home, &validation), (200, format!("{{\"hash\":\"{}\"}}", hmac("abc"))));
    let signed = |body: &str| post("/hooks/probe", &[("probe-signature".into(), hmac(body))], body.as_bytes());
    assert_eq!(ask(&home, &signed("{\"id\":\"p-1\"}")).0, 200);
    assert_eq!(process.deliveries()[&("probe".to_owned(), "stored".to_owned())], 1, "no challenge is an event");

    // The hash in a reply must not become the signature of an event.
    assert_eq!(ask(&home, &signed("abc")).0, 401);
    let causes = printed(home.verb(&["doctor", "probe", "--last", "1", "--format", "json"])).1;
    let line: Value = serde_json::from_str(&causes).expect("one line of JSON");
    assert_eq!((&line["causes"][0]["cause"], line["causes"].as_array().map(Vec::len)), (&"signed_for_anyone".into(), Some(1)));

    // The token in the recipe is shown nowhere, with the wrong mode and in the copy of the URL that a proxy adds.
    let target = "/hooks/probe?mode=other&verify_token=l1teral-t0ken&c=7";
    assert_eq!(ask(&home, format!("GET {target} HTTP/1.1\r\nhost: h\r\nx-original-url: {target}\r\n\r\n").as_bytes()).0, 401);
    let rejections = Line::open(home.admin).ask(b"GET /api/rejections HTTP/1.1\r\nhost: localhost\r\n\r\n").body;
    let rejections = String::from_utf8(rejections).expect("JSON is text");
    let requests = rejections.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let request = STANDARD.decode(line["request_base64"].as_str().expect("a text")).expect("Base64");
        String::from_utf8(request).expect("the requests of this test are text")
    });
    let requests: Vec<String> = requests.filter(|request| request.contains("mode=other")).collect();
    assert_eq!(requests.len(), 1, "{rejections}");
    assert!(requests[0].contains("?mode=other&verify_token=REDACTED&c=7 "), "{}", requests[0]);
    let shown = [home.log(), rejections, printed(home.verb(&["doctor", "probe"])).1, requests.concat()].concat();
    assert!(!shown.contains("t0ken"), "{shown}");
    drop(process);
}

#[test]
fn a_reload_reads_the_recipe_files_again() {
    let (home, _) = home();
    let process = home.start();
    let renamed = ACME.replace("header:Acme-Id", "header:Acme-Key");
    let as_key = |request: Vec<u8>| String::from_utf8(request).expect("text").replace("acme-id", "acme-key").into_bytes();
    assert_eq!(ask(&home, &as_key(acme("r-1", "{}"))).0, 401);

    put(&home, "acme", &renamed);
    put(&home, "extra", &ACME.replace("/hooks", ""));
    let (code, changes) = printed(home.verb(&["check", "--diff"]));
    assert_eq!(code, Some(0), "{changes}");
    for change in ["providers.acme", "acme.toml has changed", "providers.extra", "extra.toml has been added"] {
        assert!(changes.contains(change), "{changes}");
    }
    assert!(process.reload(), "{}", home.log());
    assert!(home.log().contains("acme.toml has changed"), "{}", home.log());
    assert_eq!(ask(&home, &as_key(acme("r-2", "{}"))).0, 200);
    assert_eq!(ask(&home, &acme("r-3", "{}")).0, 401);

    put(&home, "acme", &renamed.replace("sha512", "sha5"));
    assert!(!process.reload(), "a recipe with an error changes nothing");
    assert!(home.log().contains("recipes/acme.toml") && home.log().contains("expected \\\"sha1\\\""), "{}", home.log());
    assert_eq!(ask(&home, &as_key(acme("r-4", "{}"))).0, 200, "the previous recipe stays in use");
    fs::remove_file(recipes(&home).join("acme.toml")).expect("the file exists");
    assert!(!process.reload(), "a source needs its recipe");
    put(&home, "acme", ACME);
    fs::remove_file(recipes(&home).join("extra.toml")).expect("the file exists");
    assert!(process.reload(), "{}", home.log());
    assert_eq!(ask(&home, &acme("r-5", "{}")).0, 200);
    assert!(home.log().contains("extra.toml has been removed"));
}

#[test]
fn a_wrong_recipe_file_hides_no_other_error() {
    let (home, _) = home();
    put(
        &home,
        "meteo",
        "auth = \"mac\"\nalgoritm = \"sha256\"\nsignature = { from = \"header:X\", items = 7 }\ncontent = [\"bdy\"]\n",
    );
    put(&home, "unused", "auth = \"basic\"\ntopic = \"t\"\n[setup]\nurl = \"a\\nb\"\n");
    put(&home, "stripe", "title = ");
    put(&home, "Upper", ACME);
    let more = "topic = \"a topic\"\n[sources.other]\nprovider = \"acmee\"\nsecrets = [\"env:HOOKHOLD_TEST_NOT_SET\"]\n";
    home.configure(&config(&format!("{SOURCES}{more}[sources.stripe]\nprovider = \"stripe\"\nmax_body = 7\n")));
    let (code, report) = printed(home.verb(&["check"]));
    assert_eq!(code, Some(2));
    let expected = [
        "hookhold.toml:19: sources.signals.topic: expected a topic name",
        "hookhold.toml:21: sources.other.provider: expected a provider such as \"stripe\", found an unknown name; did you mean \"acme\"?",
        "hookhold.toml:22: sources.other.secrets[0]: expected a secret in the environment variable",
        "hookhold.toml:25: sources.stripe.max_body: expected a size",
        "recipes/Upper.toml:1: expected a name of 1 to 64 lower-case letters",
        "recipes/meteo.toml:2: algoritm: expected a known key, found an unknown key; did you mean algorithm?",
        "recipes/meteo.toml:3: signature.items: expected a string, found an integer",
        "recipes/meteo.toml:4: content[0]: expected body, ",
        "recipes/stripe.toml:1: not TOML: ",
        "recipes/unused.toml:2: topic: expected a parameter of a recipe, found an option of a source; move it to the section [sources.NAME]",
        "recipes/unused.toml:4: setup.url: expected one line of text, found a line break or another control character; remove it",
    ];
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines.len(), expected.len() + 1, "{report}");
    for (line, start) in lines.iter().zip(expected) {
        assert!(line.starts_with(start), "expected\n{start}\nfound\n{report}");
    }
    assert_eq!(lines[expected.len()], format!("hookhold: {} errors in hookhold.toml", expected.len()));
    let run = home.verb(&["run"]);
    assert_eq!((run.status.code(), String::from_utf8_lossy(&run.stderr).lines().count()), (Some(2), expected.len()));

    let (code, steps) = printed(home.verb(&["providers", "acme"]));
    assert!(code == Some(0) && steps.contains("provider = \"acme\""), "{steps}");
    let (code, diagnostics) = printed(home.verb(&["providers", "unused"]));
    assert_eq!((code, diagnostics.lines().count()), (Some(2), 2), "{diagnostics}");
    let (code, list) = printed(home.verb(&["providers"]));
    assert!(code == Some(2) && list.contains("acme ") && list.contains("recipes/Upper.toml:1: "), "{list}");
}

#[test]
fn every_verb_knows_the_recipe_files() {
    let (home, private) = home();
    put(&home, "stripe", &ACME.replace("\"Acme\"", "\"Our Stripe\""));
    let (code, summary) = printed(home.verb(&["check"]));
    assert_eq!(code, Some(0), "{summary}");
    assert!(summary.contains("recipes  acme, meteo, signals, stripe in recipes\n"), "{summary}");
    assert_eq!(summary.matches("warning: recipes/stripe.toml replaces the built-in recipe stripe").count(), 1, "{summary}");
    let json: Value = serde_json::from_slice(&home.verb(&["check", "--format", "json"]).stdout).expect("JSON");
    assert_eq!((&json["providers"]["dir"], &json["providers"]["replaced"][0]), (&"recipes".into(), &"stripe".into()));

    let list = printed(home.verb(&["providers"])).1;
    for line in
        ["acme                Acme (recipes/acme.toml)", "stripe              Our Stripe (recipes/stripe.toml)", "meteo  "]
    {
        assert!(list.contains(line), "{list}");
    }
    let shown: Value = serde_json::from_slice(&home.verb(&["providers", "signals", "--format", "json"]).stdout).expect("JSON");
    assert_eq!((&shown["key_options"][0], &shown["can_send"]), (&"public_keys".into(), &false.into()));
    assert_eq!((&shown["values"][0], &shown["integrity"]), (&"account".into(), &"full".into()));
    let steps = printed(home.verb(&["providers", "signals"])).1;
    for part in ["public_keys = [\"env:SIGNALS_PUBLIC_KEY\"]", "#values = { account = \"...\" }", "`hookhold send` cannot sign"] {
        assert!(steps.contains(part), "{steps}");
    }
    let steps = printed(home.verb(&["providers", "meteo"])).1;
    assert!(
        steps.contains("secrets = [\"env:METEO_WEBHOOK_SECRET\"]") && steps.contains("covers no part of the body"),
        "{steps}"
    );

    put(&home, "keys", &format!("{SIGNALS}fetch = {{ url = \"https://keys.example/\", key_id = \"header:Key-Id\" }}\n"));
    let steps = printed(home.verb(&["providers", "keys"])).1;
    assert!(steps.contains("hookhold does not fetch keys: list them in public_keys, each with its id."), "{steps}");

    let process = home.start();
    let log = home.log();
    let named = log.lines().filter(|line| line.contains("a recipe file replaces a built-in recipe"));
    assert!(named.clone().count() == 1 && named.clone().all(|line| line.contains("stripe")), "{log}");
    let (code, sent) = printed(home.verb(&["send", "acme", "--count", "3"]));
    assert_eq!(code, Some(0), "{sent}");
    let (code, rejected) = printed(home.verb(&["send", "signals"]));
    assert!(code == Some(2) && rejected.contains("private key"), "{rejected}");
    let to_signals = String::from_utf8(acme("d-1", "{}")).expect("text").replace("/hooks/acme", "/hooks/signals");
    assert_eq!(ask(&home, to_signals.as_bytes()).0, 401);
    let causes = printed(home.verb(&["doctor", "signals"])).1;
    assert!(causes.contains("the delivery is genuine for the source acme, not for signals"), "{causes}");
    assert_eq!(ask(&home, &signals(&private, "a2", "{}")).0, 401);
    drop(process);
}

#[test]
fn init_writes_a_source_for_a_recipe_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let recipes = dir.path().join("recipes");
    fs::create_dir(&recipes).expect("a temporary directory");
    fs::write(recipes.join("acme.toml"), ACME).expect("a temporary directory");
    fs::write(recipes.join("2signals.toml"), SIGNALS).expect("a temporary directory");
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookhold"));
        command.args(args).current_dir(dir.path()).envs(variables.iter().copied());
        printed(command.output().expect("the binary has just been built"))
    };
    let (code, steps) = run(&["init", "acme", "2signals", "--providers-dir", "recipes"], &[]);
    assert_eq!(code, Some(0), "{steps}");
    assert!(steps.contains("hookhold send acme") && !steps.contains("hookhold send 2signals"), "{steps}");
    let pem =
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let keys = [("ACME_WEBHOOK_SECRET", ACME_KEY), ("_2SIGNALS_PUBLIC_KEY", pem)];
    let (code, report) = run(&["check"], &keys);
    assert_eq!(code, Some(2), "{report}");
    assert!(report.contains("sources.2signals.values.account: expected the text that the recipe reads as"), "{report}");
    assert_eq!(report.lines().count(), 2, "only the value is missing: {report}");
    let file = dir.path().join("hookhold.toml");
    let text = fs::read_to_string(&file)
        .expect("init has written it")
        .replace("#values = { account = \"...\" }", "values.account = \"a\"");
    fs::write(&file, text).expect("a temporary directory");
    assert_eq!(run(&["check"], &keys).0, Some(0));
    let (code, again) = run(&["init", "acme", "--force"], &[]);
    assert_eq!(code, Some(0), "the existing file names the directory: {again}");
    fs::write(&file, "providers = [\n").expect("a temporary directory");
    let (code, unreadable) = run(&["providers", "acme"], &[]);
    assert!(code == Some(2) && unreadable.starts_with("hookhold.toml:"), "{unreadable}");
    assert_eq!(run(&["providers", "stripe"], &[]).0, Some(0), "a built-in recipe needs no configuration");
    let (code, list) = run(&["providers"], &[]);
    assert!(code == Some(2) && list.contains("stripe ") && list.contains("hookhold.toml:"), "{list}");
    assert_eq!(run(&["init", "stripe", "--force"], &[]).0, Some(0), "init replaces an unreadable file");
    for (directory, why) in [("nowhere", "--providers-dir: cannot read nowhere: "), ("", "--providers-dir")] {
        let (code, report) = run(&["init", "acme", "--stdout", "--providers-dir", directory], &[]);
        assert!(code == Some(2) && report.contains(why), "{report}");
    }
}

/// Parses a configuration whose `[providers] dir` is `dir`, and returns the diagnostics without that of the missing source.
fn diagnostics(dir: &Path) -> Vec<String> {
    let text = format!("providers.dir = {dir:?}\n");
    let found = Config::parse("hookhold.toml", &text, |_, _| None).expect_err("a source is missing").sorted();
    found.iter().filter(|one| one.key != "sources").map(ToString::to_string).collect()
}

#[test]
fn the_directory_of_recipes_has_limits() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("a temporary directory");
    let long = "n".repeat(64);
    // These files are valid or ignored.
    put(&format!("{long}.toml"), ACME.as_bytes());
    put("0-a_b.toml", format!("{ACME}#{}", "x".repeat((64 << 10) - ACME.len() - 1)).as_bytes());
    put(".hidden.toml", b"not TOML");
    put("README.md", b"not TOML");
    put("acme.toml~", b"not TOML");
    fs::create_dir(dir.path().join("..data")).expect("a temporary directory");
    symlink(dir.path().join(format!("{long}.toml")), dir.path().join("linked.toml")).expect("a temporary directory");
    assert_eq!(diagnostics(dir.path()), Vec::<String>::new());

    // Each of these files has one error.
    put("large.toml", format!("{ACME}#{}", "x".repeat((64 << 10) - ACME.len())).as_bytes());
    put("latin.toml", b"auth = \"basic\"\ntitle = \"\xe9\"\n");
    put(&format!("{long}n.toml"), ACME.as_bytes());
    put("-dash.toml", ACME.as_bytes());
    put("a b.toml", ACME.as_bytes());
    put("\u{e9}.toml", ACME.as_bytes());
    put("empty.toml", b"");
    fs::create_dir(dir.path().join("folder.toml")).expect("a temporary directory");
    symlink("nowhere", dir.path().join("dangling.toml")).expect("a temporary directory");
    let pipe = dir.path().join("pipe.toml");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .expect("a pipe can be made");
    put("deep.toml", format!("a = {}", "[".repeat(50_000)).as_bytes());
    let expected = [
        ("-dash.toml", "expected a name of 1 to 64 lower-case letters, digits, \"-\" and \"_\" before .toml"),
        ("a b.toml", "expected a name"),
        ("dangling.toml", "cannot read the file: "),
        ("deep.toml", "not TOML: "),
        ("empty.toml", "algorithm: expected "),
        ("empty.toml", "auth: expected "),
        ("empty.toml", "content: expected "),
        ("empty.toml", "signature: expected "),
        ("folder.toml", "expected a file, found a directory, a pipe or a device"),
        ("large.toml", "expected a recipe of at most 64 KiB, found a larger file"),
        ("latin.toml", "expected a recipe in UTF-8, found other bytes; save the file in UTF-8"),
        (&format!("{long}n.toml"), "expected a name"),
        ("pipe.toml", "expected a file, found a directory, a pipe or a device"),
        ("\u{e9}.toml", "expected a name"),
    ];
    let found = diagnostics(dir.path());
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, (file, what)) in found.iter().zip(expected) {
        let number = if file == "latin.toml" { 2 } else { 1 };
        assert!(line.starts_with(&format!("{}:{number}: {what}", dir.path().join(file).display())), "{file}: {found:#?}");
    }
}

#[test]
fn a_directory_that_cannot_be_listed_is_one_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    (0..1001).for_each(|n| fs::write(dir.path().join(format!("{n}.txt")), "").expect("a temporary directory"));
    for (dir, what) in [
        (dir.path(), "expected a directory with at most 1000 files, found "),
        (&dir.path().join("nowhere"), "cannot read "),
        (&dir.path().join("1.txt"), "cannot read "),
        (Path::new(""), "expected a directory of recipes such as "),
    ] {
        // The name of a recipe in a directory that hookhold cannot list causes no error of its own.
        let text =
            format!("providers.dir = {dir:?}\n[sources.a]\nprovider = \"acme\"\nsecrets = [\"env:PATH\"]\ntopic = \"a b\"\n");
        let found = Config::parse("hookhold.toml", &text, |_, _| None).expect_err("the directory").to_string();
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!(lines.len(), 2, "{found}");
        assert!(lines[0].starts_with(&format!("hookhold.toml:1: providers.dir: {what}")), "{found}");
        assert!(lines[1].starts_with("hookhold.toml:5: sources.a.topic: "), "{found}");
    }
    fs::remove_file(dir.path().join("1000.txt")).expect("the file exists");
    assert_eq!(diagnostics(dir.path()), Vec::<String>::new(), "1000 files are allowed");
}

#[test]
fn a_recipe_file_may_contain_addresses_headers_and_public_keys() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let parse = |recipe: &str, entry: &str| {
        fs::write(dir.path().join("own.toml"), recipe).expect("a temporary directory");
        let text = format!("providers.dir = {:?}\n[sources.own]\nprovider = \"own\"\n{entry}\n", dir.path());
        Config::parse("hookhold.toml", &text, |_, _| None)
    };
    let open = "auth = \"none\"\nheaders = [\"X-Kind\"]\n";
    let listed = format!("{open}allow_from = [\"192.0.2.0/24\"]\n");
    let source = parse(&listed, "").unwrap_or_else(|diagnostics| panic!("{diagnostics}")).sources.remove(0);
    assert!(source.allows_address([192, 0, 2, 7].into()) && !source.allows_address([192, 0, 3, 7].into()));
    assert_eq!(source.header_allow_list[0], "x-kind");
    assert!(parse(open, "allow_from = [\"10.0.0.0/8\"]").is_ok(), "the source names the networks");
    assert!(parse(open, "").is_err(), "no networks");

    let keyed = |key: &str| {
        let signature = "auth = \"signature\"\nalgorithm = \"ed25519\"\nkey_format = \"raw-hex\"\ncontent = [\"body\"]\n";
        format!("{signature}signature = {{ from = \"header:S\" }}\npublic_keys = [\"{key}\"]\n")
    };
    let key = "dff7f38f2732eb12c658d84c5851a455ce3647a25d6ae3397a93a6fb117a0a42";
    let source = parse(&keyed(key), "").unwrap_or_else(|diagnostics| panic!("{diagnostics}")).sources.remove(0);
    assert_eq!(source.keys.len(), 1);
    let found = parse(&keyed("dff7"), "").expect_err("a short key").to_string();
    assert!(found.contains("own.toml:6: public_keys[0]: expected ") && found.lines().count() == 1, "{found}");
    let found = parse(&format!("{}headers = [\"Cookie\"]\n", keyed(key)), "").expect_err("a credential").to_string();
    assert!(found.contains("own.toml:7: headers[0]: expected the name of a header that contains no credentials"), "{found}");
}

#[test]
fn random_recipe_files_never_panic() {
    let texts: Vec<&str> = [ACME, METEO, SIGNALS].iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty()).collect();
    assert!(texts.len() > 20);
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut text = String::new();
        for _ in 0..random.usize(1..12) {
            let (key, value) = (texts[random.usize(..texts.len())], texts[random.usize(..texts.len())]);
            let line = match random.u8(0..4) {
                0 => format!(
                    "{} = {}",
                    key.split(" = ").next().unwrap_or(key),
                    value.split_once(" = ").map_or("7", |(_, value)| value)
                ),
                1 => key.chars().filter(|_| random.u8(0..12) > 0).collect(),
                _ => key.to_owned(),
            };
            text += &line;
            text.push('\n');
        }
        let outcome = std::panic::catch_unwind(|| {
            hookhold::source::RecipeFile::check("random".into(), "random.toml".into(), text.clone()).1.len()
        });
        assert!(outcome.is_ok(), "seed {seed} panics:\n{text}");
    }
}
