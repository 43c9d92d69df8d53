//! Tests what a newcomer meets in the first hour: unknown commands, secrets that are not set, a file in another format, references in
//! place of values, completions and man pages.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::process::Output;

use process::Home;
use serde_json::Value;

const SOURCE: &str = "sources.stripe.provider = \"stripe\"\n";
const SECRET: &str = "whsec_c2VjcmV0IG51bWJlciBvbmU=";

fn home(more: &str) -> Home {
    Home::new(&[("one", SECRET)], &format!("server.drain_delay = \"0s\"\n{SOURCE}{more}"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn verb(home: &Home, args: &[&str], code: i32) -> String {
    let output = home.verb(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
    text(&output)
}

#[test]
fn an_unknown_command_is_answered_by_its_meaning_or_not_at_all() {
    let home = home("");
    for (word, answer) in [
        ("start", "found start; did you mean `hookhold run`?"),
        ("logs", "found logs; did you mean `hookhold tail`?"),
        ("trigger", "found trigger; did you mean `hookhold send`?"),
        ("dlq", "found dlq; did you mean `hookhold parked list`?"),
        ("sned", "found sned; did you mean `hookhold send`?"),
        ("stop", "found stop; send SIGTERM to the process of `hookhold run`"),
        ("reload", "found reload; send SIGHUP to the process of `hookhold run`"),
        ("kubernetes", "found kubernetes; `hookhold --help` lists the commands"),
    ] {
        let answered = verb(&home, &[word], 2);
        assert!(answered.contains(answer), "{answered}");
        assert_eq!(answered.matches("did you mean").count(), answer.matches("did you mean").count(), "{answered}");
    }
}

#[test]
fn check_without_secrets_checks_everything_else() {
    let home = home("sources.stripe.secrets = [\"env:NOT_SET_HERE\", \"file:absent\"]\n");
    let failed = verb(&home, &["check"], 2);
    assert!(failed.contains("NOT_SET_HERE") && failed.contains("cannot read"), "{failed}");
    assert!(failed.contains("2 errors in hookhold.toml; all other options are valid; --no-secrets checks them"), "{failed}");
    let passed = verb(&home, &["check", "--no-secrets"], 0);
    assert!(passed.contains("no errors") && passed.contains("/hooks/stripe") && passed.contains("NOT_SET_HERE"), "{passed}");
    let object: Value = serde_json::from_str(&verb(&home, &["check", "--no-secrets", "--format", "json"], 0)).expect("JSON");
    assert_eq!(object["sources"][0]["secrets"][0], "NOT_SET_HERE");
    home.configure(&format!("{SOURCE}sources.stripe.secrets = [\"env:NOT_SET_HERE\"]\nsources.stripe.topc = \"x\"\n"));
    for args in [&["check", "--no-secrets"][..], &["check"]] {
        let failed = verb(&home, args, 2);
        assert!(failed.contains("did you mean topic?") && !failed.contains("all other options are valid"), "{failed}");
    }
}

#[test]
fn check_without_secrets_needs_no_secret_of_any_section() {
    let home = home(
        "sources.stripe.secrets = [{ name = \"live\", from = \"env:NOT_SET_HERE\" }]\n\
         admin.token = \"env:NO_TOKEN\"\nserver.tls_cert = \"no.pem\"\nserver.tls_key = \"no.pem\"\n\
         sources.signed = { auth = \"signature\", algorithm = \"ed25519\", signature = { from = \"header:X-Sig\", encoding = \"hex\" }, \
         content = [\"body\"], public_keys = [\"file:absent.pem\"] }\n\
         [kafka]\nbootstrap.servers = \"kafka:9092\"\nsecurity.protocol = \"sasl_ssl\"\nsasl.mechanism = \"PLAIN\"\n\
         sasl.username = \"env:NO_USER\"\nsasl.password = \"env:NO_PASSWORD\"\nssl.ca.location = \"no.pem\"\n",
    );
    let passed = verb(&home, &["check", "--no-secrets"], 0);
    assert!(passed.contains("live") && passed.contains("absent.pem"), "{passed}");
}

#[test]
fn doctor_without_secrets_shows_what_hookhold_has_recorded() {
    let home = home("sources.stripe.secrets = [\"file:one\"]\n");
    let process = home.start();
    verb(&home, &["send", "stripe", "--tamper", "body"], 0);
    home.settle_rejections();
    home.configure(&format!("{SOURCE}sources.stripe.secrets = [\"env:NOT_SET_HERE\"]\n"));
    let shown = verb(&home, &["doctor", "stripe"], 2);
    assert!(
        shown.contains("stripe: the gateway has rejected the delivery as signature_mismatch: signature: expected"),
        "{shown}"
    );
    assert!(shown.contains("NOT_SET_HERE") && shown.contains("set them in this shell"), "{shown}");
    drop(process);
}

#[test]
fn the_missing_secret_of_one_source_does_not_stop_another() {
    let home = home(
        "sources.stripe.secrets = [\"file:one\"]\nsources.code.provider = \"github\"\nsources.code.secrets = [\"file:one\"]\n",
    );
    let process = home.start();
    home.configure(&format!(
        "{SOURCE}sources.stripe.secrets = [\"file:one\"]\nsources.code.provider = \"github\"\nsources.code.secrets = [\"env:NOT_SET\"]\n"
    ));
    verb(&home, &["send", "stripe"], 0);
    let failed = verb(&home, &["send", "code"], 2);
    assert!(failed.contains("NOT_SET") && failed.contains("export it in this shell"), "{failed}");
    verb(&home, &["send", "stripe", "--tamper", "body"], 0);
    let explained = verb(&home, &["doctor", "stripe"], 1);
    assert!(explained.contains("stripe: the gateway rejects the delivery as signature_mismatch"), "{explained}");
    drop(process);
}

#[test]
fn a_file_in_another_format_is_named() {
    let home = home("");
    for (file, content, format) in [
        ("hookhold.yaml", "server:\n  listen: 0.0.0.0:8080\n", "YAML"),
        ("config.toml", "# hookhold\n---\nserver:\n  listen: 0.0.0.0:8080\n", "YAML"),
        ("config.toml", "{ \"server\": {} }", "JSON"),
    ] {
        home.put(file, content.as_bytes());
        let failed = verb(&home, &["check", "--config", file], 2);
        let expected = format!("{file}:1: expected TOML, found {format}; write sections and keys");
        assert!(failed.replace(":2:", ":1:").replace(":3:", ":1:").contains(&expected), "{failed}");
    }
    home.put("config.toml", b"[server]\nlisten = \n");
    assert!(verb(&home, &["check", "--config", "config.toml"], 2).contains("config.toml:2: not TOML: "));
}

#[test]
fn every_string_value_can_be_a_reference() {
    let mut home = home("sources.stripe.secrets = [\"file:one\"]\n");
    let (hooks, admin) = (home.hooks.to_string(), home.admin.to_string());
    for (name, value) in [("HOOKS", &*hooks), ("ADMIN", &admin), ("PROVIDER", "stripe"), ("TOPIC", "orders"), ("WAIT", "0s")] {
        home.set(name, value);
    }
    home.put("window", b"9d\n");
    home.put(
        "hookhold.toml",
        b"[server]\nlisten = \"env:HOOKS\"\ndrain_delay = \"env:WAIT\"\n\
        [admin]\nlisten = \"env:ADMIN\"\n[journal]\ndir = \"journal\"\n[dedupe]\nwindow = \"file:window\"\n\
        [sources.shop]\nprovider = \"env:PROVIDER\"\ntopic = \"env:TOPIC\"\nsecrets = [\"file:one\"]\n",
    );
    let process = home.start();
    verb(&home, &["send", "shop"], 0);
    assert!(home.log().contains("topics=\"orders\""), "{}", home.log());
    let changes = || verb(&home, &["check", "--diff"], 0);
    assert!(!changes().contains("dedupe.window"), "{}", changes());
    home.put("window", b"10d\n");
    let change = changes();
    assert!(change.contains("dedupe.window") && change.contains("the value behind the reference has changed"), "{change}");
    assert!(process.reload(), "{}", home.log());
    assert!(!changes().contains("dedupe.window"), "{}", changes());
}

#[test]
fn a_reference_without_a_value_is_one_error_that_names_it() {
    let mut home = home("");
    home.set("EMPTY", "");
    home.put("binary", b"\xff\xfe");
    home.put("hookhold.toml", b"[server]\nlisten = \"env:UNSET\"\nmax_body = \"env:EMPTY\"\npublic_url = \"file:absent\"\n\
        request_deadline = \"file:binary\"\n[journal]\ndir = \"journal\"\n[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:one\"]\n");
    let failed = verb(&home, &["check"], 2);
    for expected in [
        "hookhold.toml:2: server.listen: expected a value in the environment variable UNSET, found the variable unset; export it",
        "hookhold.toml:3: server.max_body: expected a value in the environment variable EMPTY, found the variable empty; export it",
        "hookhold.toml:4: server.public_url: cannot read absent: ",
        "hookhold.toml:5: server.request_deadline: expected a text in UTF-8, found another encoding",
        "4 errors in hookhold.toml",
    ] {
        assert!(failed.contains(expected), "{expected}\n{failed}");
    }
    home.set("UNSET", "nonsense that may be secret");
    let failed = verb(&home, &["check"], 2);
    assert!(failed.contains("server.listen: expected a string such as") && !failed.contains("nonsense"), "{failed}");
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let home = home("");
    let help = verb(&home, &["--help"], 0);
    let commands = help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next()).expect("a list of commands");
    let names: Vec<&str> =
        commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty()).collect();
    assert!(names.len() > 10 && names.contains(&"run"), "{names:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = verb(&home, &["completions", shell], 0);
        names.iter().for_each(|name| assert!(script.contains(name), "{shell}: {name}"));
    }
    let syntax = home.shell("hookhold completions bash | bash -n").output().expect("a shell");
    assert!(syntax.status.success() && syntax.stderr.is_empty(), "{}", text(&syntax));
    let missing = verb(&home, &["completions", "man"], 2);
    assert!(missing.contains("add --dir DIR"), "{missing}");
    assert!(verb(&home, &["completions", "man", "--dir", "absent"], 1).contains("cannot write to absent"));
    verb(&home, &["completions", "man", "--dir", "."], 0);
    let written = |page: &str| home.journal().with_file_name(page).exists();
    for name in names.iter().filter(|name| **name != "help") {
        assert!(written(&format!("hookhold-{name}.1")), "{name}");
    }
    let page = std::fs::read_to_string(home.journal().with_file_name("hookhold-send.1")).expect("just written");
    assert!(page.contains(".SH SYNOPSIS") && page.contains("repeat\\-percent"), "{page}");
}

#[test]
fn counts_of_zero_are_rejected_with_the_range() {
    let home = home("sources.stripe.secrets = [\"file:one\"]\n");
    let failed = verb(&home, &["send", "stripe", "--count", "0"], 2);
    assert!(failed.contains("--count <N>") && failed.contains("expected a number of deliveries of at least 1"), "{failed}");
}
