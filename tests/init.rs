//! Tests that the configuration from `hookhold init` works for every built-in provider, and that `init` overwrites a file
//! only with `--force`.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use hookhold::source::PROVIDERS;
use process::Home;
use serde_json::Value;

#[test]
fn all_providers_together_store_their_first_delivery() {
    let mut home = Home::new(&[], "");
    let named: Vec<&str> = names().collect();
    let init = home.verb(&[&["init", "--stdout", "--public-url", URL, "--format", "json"], &named[..]].concat());
    assert_eq!(init.status.code(), Some(0), "{}", text(&init.stderr));
    home.put("hookhold.toml", with_test_ports(&text(&init.stdout), &home).as_bytes());
    let steps: Vec<Value> = text(&init.stderr).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps.len(), named.len());
    for step in &steps {
        home.set(step["variable"].as_str().unwrap(), SECRET);
    }
    let check = home.verb(&["check", "--format", "json"]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
    let process = home.start();
    for name in &named {
        let sent = home.verb(&["send", name]);
        assert_eq!(sent.status.code(), Some(0), "{name}: {}{}", text(&sent.stdout), text(&sent.stderr));
        let stored = process.deliveries()[&((*name).to_owned(), "stored".to_owned())];
        assert_eq!(stored, 1, "{name}");
    }
    let lines = text(&home.verb(&["tail", "--last", "100", "--format", "json"]).stdout);
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected: BTreeSet<String> = named.iter().map(|name| format!("webhooks.{name}")).collect();
    assert_eq!(events.iter().map(|event| event["topic"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn each_provider_passes_check_once_its_variable_is_set() {
    for name in names() {
        let dir = tempfile::tempdir().unwrap();
        let init = hookhold(dir.path(), &["init", name, "--public-url", URL, "--kafka", "127.0.0.1:1"], None);
        assert_eq!(init.status.code(), Some(0), "{name}: {}", text(&init.stderr));
        let steps = text(&init.stdout);
        let variable = steps.split("export ").nth(1).and_then(|rest| rest.split('=').next()).expect("a line to paste");
        assert!(steps.contains(&format!("{URL}/hooks/{name}\n")), "{steps}");
        assert!(steps.contains(&format!("hookhold send {name}\n")) && steps.contains(&format!("webhooks.{name}")), "{steps}");

        let unset = hookhold(dir.path(), &["check"], None);
        assert_eq!(unset.status.code(), Some(2));
        let diagnostics = text(&unset.stdout);
        assert!(
            diagnostics.lines().count() == 1 && diagnostics.contains(&format!("{variable}, found the variable unset")),
            "{diagnostics}"
        );

        let set = hookhold(dir.path(), &["check", "--format", "json"], Some(variable));
        assert_eq!(set.status.code(), Some(0), "{name}: {}", text(&set.stdout));
        let summary: Value = serde_json::from_str(&text(&set.stdout)).unwrap();
        assert_eq!(summary["sources"][0]["url"], format!("{URL}/hooks/{name}"));
        assert_eq!(summary["sources"][0]["topic"], format!("webhooks.{name}"));
        assert_eq!(summary["kafka"], "127.0.0.1:1");
        let journal = dir.path().canonicalize().unwrap().join("journal");
        assert_eq!(summary["journal"]["dir"], journal.display().to_string());
    }
}

#[test]
fn an_existing_file_is_replaced_only_with_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("own.toml");
    std::fs::write(&file, "# mine\n").unwrap();
    let args = ["init", "stripe", "--config", "own.toml"];
    let rejected = hookhold(dir.path(), &args, None);
    assert_eq!(rejected.status.code(), Some(2));
    assert!(text(&rejected.stderr).contains("own.toml: expected no file, found one; use --force"), "{}", text(&rejected.stderr));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\n");

    let printed = hookhold(dir.path(), &[&args[..], &["--stdout"]].concat(), None);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\n");
    let forced = hookhold(dir.path(), &[&args[..], &["--force"]].concat(), None);
    assert_eq!((printed.status.code(), forced.status.code()), (Some(0), Some(0)));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text(&printed.stdout));
    assert_eq!(text(&forced.stdout), text(&printed.stderr));
    assert!(text(&forced.stdout).contains("hookhold run --config own.toml\n"));
    assert!(!dir.path().join("hookhold.toml").exists());
}

#[test]
fn init_writes_nothing_when_an_argument_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str, i32); 8] = [
        (&["init"], "hookhold init stripe github", 2),
        (&["init", "stripe", "strip"], "did you mean stripe?", 2),
        (&["init", "twilio"], "found nothing; set public_url here or in [server]", 2),
        (&["init", "stripe", "--public-url", "hooks.example.com"], "--public-url: expected a URL such as", 2),
        (&["init", "stripe", "--public-url", "https://a\n[kafka]"], "--public-url: expected a URL such as", 2),
        (&["init", "stripe", "--kafka", ""], "--kafka", 2),
        (&["init", "stripe", "--stdout", "--force"], "cannot be used with", 2),
        (&["init", "stripe", "--config", "no/such/dir/own.toml"], "cannot write no/such/dir/own.toml", 1),
    ];
    for (args, why, code) in cases {
        let rejected = hookhold(dir.path(), args, None);
        assert_eq!(rejected.status.code(), Some(code), "{args:?}: {}", text(&rejected.stderr));
        assert!(text(&rejected.stderr).contains(why), "{args:?}: {}", text(&rejected.stderr));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn init_without_a_provider_lists_them_all() {
    let listed = text(&hookhold(Path::new("/"), &["init"], None).stdout);
    assert_eq!(listed, text(&hookhold(Path::new("/"), &["providers"], None).stdout));
    assert_eq!(listed.lines().count(), PROVIDERS.len());
}

/// Replaces the two listen addresses in the configuration `text` with the addresses of `home`.
fn with_test_ports(text: &str, home: &Home) -> String {
    assert!(text.contains(PORTS[0]) && text.contains(PORTS[1]), "{text}");
    text.replace(PORTS[0], &format!("\"{}\"", home.hooks)).replace(PORTS[1], &format!("\"{}\"", home.admin))
}

fn names() -> impl Iterator<Item = &'static str> {
    PROVIDERS.iter().map(|(name, _)| *name)
}

/// Runs a `hookhold` command in the directory `dir` and returns its output. If `variable` is `Some`, sets the environment
/// variable with this name to [`SECRET`].
fn hookhold(dir: &Path, args: &[&str], variable: Option<&str>) -> Output {
    let secret = variable.map(|variable| (variable, SECRET));
    Command::new(env!("CARGO_BIN_EXE_hookhold")).args(args).current_dir(dir).envs(secret).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const URL: &str = "https://hooks.example.com/in";
/// The two listen addresses in the configuration that `hookhold init` writes, as TOML strings.
const PORTS: [&str; 2] = ["\"0.0.0.0:8080\"", "\"127.0.0.1:9464\""];
/// A secret whose format every built-in provider accepts.
const SECRET: &str = "whsec_c2VjcmV0IG51bWJlciBvbmU=";
