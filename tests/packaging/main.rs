//! Tests the files with which hookhold is installed: the configurations of the Debian package, the compose file and the Helm
//! chart, and the grace periods of the supervisors. `deploy/check` runs the linters, `tests/packaging/image` starts the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[test]
fn the_compose_configuration_is_valid_on_any_machine() {
    let output = check(&root().join("deploy/compose/hookhold.toml"));
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_packaged_configuration_lacks_nothing_but_a_source() {
    let packaged = read("deploy/debian/hookhold.toml");
    let dir = tempfile::tempdir().expect("a directory for the configurations");
    let file = dir.path().join("hookhold.toml");
    fs::write(&file, &packaged).expect("the directory is writable");
    let output = check(&file);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("sources: expected at least one section"), "{}", text(&output));

    // The example in the file becomes a source when an operator removes the comment signs.
    let (before, example) = packaged.split_once("# [sources.stripe]").expect("the file has an example");
    fs::write(&file, format!("{before}[sources.stripe]{}", example.replace("\n# ", "\n"))).expect("the directory is writable");
    let output = check(&file);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_chart_renders_a_valid_configuration_and_grace_period() {
    let mut cases: Vec<Option<PathBuf>> = vec![None];
    let listed = fs::read_dir(root().join("deploy/helm/cases")).expect("the cases are readable");
    cases.extend(listed.map(|entry| Some(entry.expect("the cases are readable").path())));
    assert!(cases.len() >= 3, "{cases:?}");
    for case in cases {
        let configuration = after(&render(case.as_deref(), "configmap.yaml"), "hookhold.toml: |\n");
        let configuration = configuration.replace("\n    ", "\n");
        let dir = tempfile::tempdir().expect("a directory for the configuration");
        let file = dir.path().join("hookhold.toml");
        fs::write(&file, configuration.trim_start()).expect("the directory is writable");
        let output = check(&file);
        assert!(output.status.success(), "{case:?}: {}\n{configuration}", text(&output));

        let set = render(case.as_deref(), "statefulset.yaml");
        let grace = number(&after(&set, "terminationGracePeriodSeconds: "));
        let drain = number(&after(&configuration, "drain_delay = \"")) + number(&after(&configuration, "drain_deadline = \""));
        assert!(grace > drain, "{case:?}: grace period {grace} s, drain {drain} s");
    }
}

#[test]
fn supervisors_wait_longer_than_the_default_drain() {
    let defaults = read("config/hookhold.toml");
    let drain = number(&after(&defaults, "\ndrain_delay = \"")) + number(&after(&defaults, "\ndrain_deadline = \""));
    let unit = number(&after(&read("deploy/systemd/hookhold.service"), "\nTimeoutStopSec="));
    let compose = number(&after(&read("deploy/compose/compose.yaml"), "stop_grace_period: "));
    assert!(drain > 0 && unit > drain && compose > drain, "drain {drain} s, unit {unit} s, compose {compose} s");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs `hookhold check` on a configuration whose secrets this machine does not have.
fn check(file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookhold"));
    command.args(["check", "--no-secrets", "--config"]).arg(file).output().expect("hookhold starts")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Renders one template of the chart.
fn render(values: Option<&Path>, template: &str) -> String {
    let unpacked = root().join("target/tools/bin/helm");
    let mut helm = Command::new(if unpacked.exists() { unpacked } else { "helm".into() });
    helm.args(["template", "trial", "--kube-version", "1.27"]).arg(root().join("deploy/helm/hookhold"));
    helm.args(["--show-only", &format!("templates/{template}")]);
    let output = helm.args(values.into_iter().flat_map(|file| [Path::new("--values"), file])).output();
    let output = output.expect("helm starts: `deploy/check --fetch` builds it");
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).expect("helm prints UTF-8")
}

/// Returns the text after the first `start`.
fn after(text: &str, start: &str) -> String {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("expected {start:?} in\n{text}"));
    rest.to_owned()
}

/// Parses the number at the beginning of a text.
fn number(text: &str) -> u64 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|error| panic!("{error}: {}", &text[..text.len().min(40)]))
}
