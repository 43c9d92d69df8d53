//! Tests the properties of the command line that scripts depend on, such as the exit code and the first word of each output
//! line. An error must be one line, and a closed standard output must not cause an error.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hookhold::clock::SystemClock;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{Journal, Options};
use hookhold::limits::JournalLimits;
use hookhold::source::PROVIDERS;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn hookhold(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hookhold")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Creates a directory and writes a configuration file into it. The file contains the TOML `rest`, a `[journal]` section and
/// two sources. Returns the directory and the path of the file.
fn configured(rest: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("one"), "c2VjcmV0IG51bWJlciBvbmU=\n").unwrap();
    let secret = dir.path().join("one").display().to_string();
    let sources = format!(
        "{rest}\n[journal]\ndir = {:?}\n\n[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:{secret}\"]\n\n\
         [sources.code]\nprovider = \"github\"\npath = \"/github\"\nsecrets = [{{ name = \"2026-11\", from = \"file:{secret}\" }}]\n",
        dir.path().join("journal"),
    );
    let file = dir.path().join("hookhold.toml");
    std::fs::write(&file, sources).unwrap();
    let path = file.display().to_string();
    (dir, path)
}

#[test]
fn the_version_names_the_commit_the_target_and_the_features() {
    let long = text(&hookhold(&["--version"]).stdout);
    let (version, facts) = long.split_once('\n').expect("several lines");
    assert_eq!(version, concat!("hookhold ", env!("CARGO_PKG_VERSION")));
    let names: Vec<&str> = facts.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    assert_eq!(names, ["commit", "target", "features"], "{long}");
    assert_eq!(text(&hookhold(&["-V"]).stdout).trim_end(), version);
}

#[test]
fn providers_prints_one_name_first_on_each_line() {
    let listed = text(&hookhold(&["providers"]).stdout);
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let known: Vec<&str> = PROVIDERS.iter().map(|(name, _)| *name).collect();
    assert!(known.contains(&"stripe"));
    assert_eq!(names, known);
    for line in text(&hookhold(&["providers", "--format", "json"]).stdout).lines() {
        let provider: Value = serde_json::from_str(line).unwrap();
        assert!(known.contains(&provider["name"].as_str().unwrap()));
    }
}

#[test]
fn providers_prints_the_steps_for_each_provider() {
    for (name, _) in PROVIDERS {
        let steps = hookhold(&["providers", name]);
        assert_eq!(steps.status.code(), Some(0));
        let steps = text(&steps.stdout);
        assert!(steps.contains(&format!("/hooks/{name}\n")), "{steps}");
        assert!(steps.contains(&format!("provider = \"{name}\"")), "{steps}");
        let types = hookhold::source::provider(name).unwrap().sample_types().join(", ");
        assert!(types.contains(", ") && steps.contains(&format!("Types:  {types}\n")), "{steps}");
    }
    let unknown = hookhold(&["providers", "strip"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("did you mean stripe?"));
}

#[test]
fn check_summarizes_a_valid_configuration_without_secrets() {
    let (_dir, file) = configured("[server]\npublic_url = \"https://hooks.example.com/in/\"\n");
    let check = hookhold(&["check", "--config", &file]);
    let shown = text(&check.stdout);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    for part in ["https://hooks.example.com/in/hooks/stripe", "https://hooks.example.com/in/github", "webhooks.code", "2026-11"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    // The number depends on the free space of this machine.
    let warnings = shown.matches("\nwarning: ").count();
    let summary = if warnings == 1 { "1 warning".to_owned() } else { format!("{warnings} warnings") };
    assert!(warnings > 0 && shown.lines().next().unwrap().ends_with(&format!(": no errors, {summary} (below)")), "{shown}");
    let json = text(&hookhold(&["check", "--format", "json", "--config", &file]).stdout);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["sources"][1]["secrets"][0], "2026-11");
    assert_eq!(json["kafka"], Value::Null);
    assert!(json["journal"]["file_system"].as_str().is_some_and(|name| !name.is_empty()));
    assert!(!shown.contains("c2VjcmV0") && !json.to_string().contains("c2VjcmV0"), "a secret was printed");
}

/// Each of these mistakes lets hookhold start, and then costs deliveries.
#[test]
fn check_warns_about_what_does_not_fit_the_machine() {
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [hooks, admin] = taken.each_ref().map(|listener| listener.local_addr().unwrap());
    let (dir, file) = configured(&format!("[server]\nlisten = \"{hooks}\"\n[admin]\nlisten = \"{admin}\"\n"));
    std::fs::write(dir.path().join("one"), "\"c2VjcmV0IG51bWJlciBvbmU=\"\n").unwrap();
    let huge = std::fs::read_to_string(&file).unwrap().replace("[journal]", "[journal]\nmax_size = \"256 TiB\"");
    std::fs::write(&file, huge).unwrap();
    let check = hookhold(&["check", "--config", &file]);
    let shown = text(&check.stdout);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    let json = text(&hookhold(&["check", "--format", "json", "--config", &file]).stdout);
    let json: Value = serde_json::from_str(&json).unwrap();
    let warnings: Vec<&str> = json["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap()).collect();
    for expected in [
        &*format!("server.listen: cannot listen at {hooks}"),
        &format!("admin.listen: cannot listen at {admin}"),
        "sources.code: the secret 2026-11 is in quotation marks",
        "sources.stripe: the secret one is in quotation marks",
        "allow 256.0 TiB",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(expected)), "{expected} in {warnings:?}");
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    assert!(!shown.contains("c2VjcmV0") && !json.to_string().contains("c2VjcmV0"), "a secret was printed");
}

/// A start from another directory would otherwise create a second, empty journal, and the events of the first one would wait unseen.
#[test]
fn paths_are_relative_to_the_configuration_file() {
    let (dir, file) = configured("[providers]\ndir = \"recipes\"\n");
    std::fs::create_dir(dir.path().join("recipes")).unwrap();
    let relative = std::fs::read_to_string(&file).unwrap().replace(&format!("{}/", dir.path().display()), "");
    assert!(relative.contains("dir = \"journal\"") && relative.contains("\"file:one\""), "{relative}");
    std::fs::write(&file, &relative).unwrap();
    let whole = dir.path().join("journal").display().to_string();
    let elsewhere = tempfile::tempdir().unwrap();
    let check = |args: &[&str], from: &std::path::Path, variable: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookhold"));
        command.args(["check", "--format", "json"]).args(args).current_dir(from).env("HOOKHOLD_CONFIG", variable);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that reads no standard input may have ended already.
        let _ = child.stdin.take().unwrap().write_all(relative.as_bytes());
        let output = child.wait_with_output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        json["journal"]["dir"].as_str().unwrap().to_owned()
    };
    assert_eq!(check(&["--config", &file], elsewhere.path(), "/nonexistent"), whole);
    assert_eq!(check(&[], elsewhere.path(), &file), whole, "HOOKHOLD_CONFIG names the file");
    assert_eq!(
        check(&["-c", "-"], dir.path(), ""),
        "journal",
        "standard input has no directory, so the working directory applies"
    );
}

#[test]
fn check_rejects_a_file_in_place_of_the_journals_directory() {
    let (dir, file) = configured("");
    std::fs::write(dir.path().join("journal"), "").unwrap();
    let check = hookhold(&["check", "--config", &file]);
    assert_eq!(check.status.code(), Some(2));
    assert!(text(&check.stderr).contains("journal.dir: expected a directory, found the file"), "{}", text(&check.stderr));
}

#[test]
fn check_prints_one_json_object_per_diagnostic() {
    let (_dir, file) = configured("nonsense = 1\n[server]\nmax_headers = 1\n");
    let check = hookhold(&["check", "--format", "json", "--config", &file]);
    let diagnostics: Vec<Value> = text(&check.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(check.status.code(), Some(2));
    assert_eq!(diagnostics.len(), 2);
    assert_eq!((&diagnostics[0]["key"], &diagnostics[0]["line"]), (&"nonsense".into(), &1.into()));
    assert_eq!((&diagnostics[1]["key"], &diagnostics[1]["line"]), (&"server.max_headers".into(), &3.into()));
}

#[test]
fn check_and_run_reject_kafka_settings_without_a_client() {
    let kafka = "\n[kafka]\nbootstrap.servers = \"localhost:1\"\nsecurity.protocol = \"ssl\"\nssl.ca.location = ";
    let (_dir, file) = configured(&format!("{kafka}\"/nonexistent/ca.pem\"\n"));
    let check = hookhold(&["check", "--config", &file]);
    let run = hookhold(&["run", "--config", &file]);
    assert_eq!((check.status.code(), run.status.code()), (Some(2), Some(2)));
    for output in [text(&check.stdout), text(&run.stderr)] {
        assert!(output.starts_with(&format!("{file}:2: kafka: ")) && output.contains("ssl.ca.location"), "{output}");
    }
    let (_dir, file) = configured("\n[kafka]\nbootstrap.servers = \"localhost:1\"\n");
    let check = hookhold(&["check", "--config", &file]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
}

#[test]
fn wrong_usage_exits_with_2_and_one_line() {
    let missing = hookhold(&["check", "--config", "/nonexistent/hookhold.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    let without_file = Command::new(env!("CARGO_BIN_EXE_hookhold")).arg("check").current_dir("tests").output().unwrap();
    if !std::path::Path::new("/etc/hookhold/hookhold.toml").exists() {
        assert_eq!(without_file.status.code(), Some(2));
        assert_eq!(text(&without_file.stderr).lines().count(), 1);
    }
    assert_eq!(hookhold(&["chek"]).status.code(), Some(2));
    let count = hookhold(&["send", "stripe", "--count", "0"]);
    assert_eq!(count.status.code(), Some(2));
    assert!(text(&count.stderr).contains("expected a number of deliveries of at least 1, found \"0\""));
}

#[test]
fn a_closed_standard_output_is_not_an_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookhold"));
    let output = command.arg("providers").stdout(Stdio::from(writer)).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn send_rejects_arguments_that_cannot_be_sent() {
    let (_dir, file) = configured("");
    let cases: [(&[&str], &str); 5] = [
        (&["send", "strip"], "did you mean stripe?"),
        (&["send", "code", "--tamper", "stale"], "expected a source with signed timestamps"),
        (&["send", "stripe", "--body", "/nonexistent/body"], "cannot read"),
        (&["send", "stripe", "--url", "not a url"], "--url"),
        (&["send", "stripe", "--url", "localhost:8080"], "did you mean http://localhost:8080?"),
    ];
    for (args, why) in cases {
        let rejected = hookhold(&[args, &["--config", &file]].concat());
        assert_eq!(rejected.status.code(), Some(2), "{args:?}");
        assert!(text(&rejected.stderr).contains(why), "{}", text(&rejected.stderr));
    }
}

/// Starts a server that answers every request with 200. Returns the server's URL, and a channel that receives the path and
/// the body of each request.
fn accepting_server() -> (String, Receiver<(String, Vec<u8>)>) {
    server_answering("200 OK")
}

/// Starts a server that answers every request with `status`, an empty response or one with its own body. Returns the server's URL, and a channel that receives the path
/// and the body of each request.
fn server_answering(status: &'static str) -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (requests, received) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let requests = requests.clone();
            std::thread::spawn(move || answer(connection, status, &requests));
        }
    });
    (url, received)
}

fn answer(connection: TcpStream, status: &str, requests: &Sender<(String, Vec<u8>)>) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    loop {
        let head: Vec<String> = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let path = head.first()?.split(' ').nth(1)?.to_owned();
        let length = head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        requests.send((path, body)).ok()?;
        let end = if status.contains("\r\n\r\n") { "" } else { "\r\ncontent-length: 0\r\n\r\n" };
        write!(&connection, "HTTP/1.1 {status}{end}").ok()?;
    }
}

#[test]
fn genuine_deliveries_have_distinct_ids_and_repeats_equal_bytes() {
    let (_dir, file) = configured("");
    let (url, received) = accepting_server();
    let args = ["send", "stripe", "--count", "60", "--connections", "3", "--format", "json", "--config", &file, "--url", &url];
    let sent = hookhold(&args);
    assert_eq!(sent.status.code(), Some(0), "{}", text(&sent.stderr));
    let bodies: BTreeSet<Vec<u8>> =
        received.try_iter().map(|(path, body)| (path == "/hooks/stripe").then_some(body).unwrap()).collect();
    assert_eq!(bodies.len(), 60);

    let sent = hookhold(&[&args[..], &["--repeat-percent", "50"]].concat());
    let rows: Vec<Value> = text(&sent.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [genuine, repeats] =
        ["genuine", "repeat"].map(|kind| rows.iter().find(|row| row["sent"] == kind).expect("both were sent"));
    let bodies: Vec<Vec<u8>> = received.try_iter().map(|(_, body)| body).collect();
    let distinct: BTreeSet<&Vec<u8>> = bodies.iter().collect();
    assert_eq!((bodies.len() as u64, distinct.len() as u64), (60, genuine["count"].as_u64().unwrap()));
    assert_eq!(repeats["count"].as_u64(), Some(60 - distinct.len() as u64));
}

#[test]
fn send_exits_with_1_when_a_tampered_delivery_passes() {
    let (_dir, file) = configured("");
    let (url, received) = accepting_server();
    for (how, path) in [("body", "/hooks/stripe"), ("stale", "/hooks/stripe"), ("unknown", "/hooks/stripe-unknown")] {
        let sent = hookhold(&["send", "stripe", "--tamper", how, "--url", &url, "--config", &file]);
        assert_eq!(sent.status.code(), Some(1), "{how}");
        assert!(text(&sent.stdout).contains("NOT as expected"), "{how}");
        assert_eq!(received.try_recv().unwrap().0, path);
    }
}

#[test]
fn send_explains_429_in_text_but_not_in_json() {
    let (_dir, file) = configured("");
    let (url, _received) = server_answering("429 Too Many Requests");
    let send = |more: &[&str]| hookhold(&[&["send", "stripe", "--url", &url, "--config", &file], more].concat());
    let (as_text, as_json) = (send(&[]), send(&["--format", "json"]));
    assert_eq!((as_text.status.code(), as_json.status.code()), (Some(1), Some(1)));
    let hint = text(&as_text.stderr);
    assert!(hint.contains("rate_limited") && hint.contains("max_rejected_per_address") && hint.lines().count() == 1, "{hint}");
    assert_eq!(text(&as_json.stderr), "");
}

#[test]
fn send_explains_the_answers_of_other_servers() {
    let (_dir, file) = configured("");
    let cases = [
        (
            "404 Not Found\r\ncontent-length: 4\r\n\r\nnone",
            "found 404 in a form that hookhold does not send; does another server answer",
        ),
        ("404 Not Found", "found 404; the gateway has no source at this path"),
        ("502 Bad Gateway", "found 502 in a form that hookhold does not send; does another server answer"),
        ("400 Bad Request", "found 400; the listener probably expects TLS. Use https:// with --url"),
        ("401 Unauthorized", "found 401; the running gateway has another secret than this shell"),
    ];
    for (status, expected) in cases {
        let (url, _received) = server_answering(status);
        let sent = hookhold(&["send", "stripe", "--url", &url, "--config", &file]);
        assert_eq!(sent.status.code(), Some(1), "{status}");
        let (table, hint) = (text(&sent.stdout), text(&sent.stderr));
        assert!(table.contains("NOT as expected") && !table.contains("stored:"), "{table}");
        assert!(hint.contains(expected) && hint.lines().count() == 1, "{status}: {hint}");
    }
}

/// Interrupts `send` between two deliveries. `send` schedules the second delivery 1,000 seconds after the first delivery, so
/// `send` is still waiting when the interrupt arrives.
#[test]
fn an_interrupted_send_still_prints_its_report() {
    let (_dir, file) = configured("");
    let (url, received) = accepting_server();
    let args = ["send", "stripe", "--count", "2", "--rate", "0.001", "--url", &url, "--config", &file];
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookhold"));
    let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
    received.recv().unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut table = String::new();
    let (sender, printed) = channel();
    let mut out = child.stdout.take().unwrap();
    std::thread::spawn(move || out.read_to_string(&mut table).map(|_| sender.send(table)));
    let table = printed.recv_timeout(Duration::from_secs(60));
    if table.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().unwrap();
    assert!(table.expect("the report is printed").contains("1 delivery of type invoice.paid"));
    assert_eq!(status.code(), Some(130));
}

#[test]
fn tail_warns_of_a_source_that_is_not_configured() {
    let (dir, file) = configured("");
    let disk = LocalDisk::create(&dir.path().join("journal")).unwrap();
    let limits = JournalLimits { segment_size: 1 << 20, ..JournalLimits::default() };
    let options = Options { limits, ..Options::default() };
    Journal::open(Arc::new(disk), options, Arc::new(SystemClock), Arc::default()).unwrap().close();
    for (source, is_warned) in [("strip", true), ("stripe", false)] {
        let tail = hookhold(&["tail", "--source", source, "--config", &file]);
        assert_eq!(tail.status.code(), Some(0));
        assert_eq!(text(&tail.stderr).contains("did you mean stripe?"), is_warned, "{}", text(&tail.stderr));
    }
}
