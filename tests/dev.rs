//! Tests `hookhold dev` as an operator and a provider see it: the lines without a terminal, the screen and the keys on a
//! pseudo-terminal, the local program of `--forward`, and the files that remain at the end.

#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/pty.rs"]
mod pty;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hookhold::clock::{Clock, SystemClock};
use hookhold::config::Config;
use hookhold::verify::sign::{Sample, SampleOptions, Tamper, sign};
use kafka::{Kafka, Record};
use process::{Line, post, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use pty::Screen;

/// A `hookhold dev` without a terminal, and the lines that it has printed. Dropping the value kills the process.
struct Dev {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Dev {
    fn start(args: &[&str], variables: &[(&str, &str)]) -> Dev {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookhold"));
        command.arg("dev").args(args).env_remove("HOOKHOLD_LOG").envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the binary has just been built");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = lines.clone();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).for_each(|line| into.lock().expect("no test panics with this lock").push(line));
        });
        Dev { child, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no test panics with this lock").clone()
    }

    /// Waits for a line that contains `part`, and returns it.
    fn line(&self, part: &str) -> String {
        let mut found = None;
        wait_until(&format!("dev prints {part:?}"), || {
            found = self.lines().into_iter().find(|line| line.contains(part));
            found.is_some()
        });
        found.expect("waited for")
    }

    /// Returns the printed JSON objects of a kind.
    fn objects(&self, kind: &str) -> Vec<Value> {
        let objects = self.lines().into_iter().map(|line| serde_json::from_str(&line).expect("each line is an object"));
        objects.filter(|object: &Value| object["kind"] == kind).collect()
    }

    /// Waits for `count` JSON objects of a kind, and returns them.
    fn wait_for(&self, kind: &str, count: usize) -> Vec<Value> {
        wait_until(&format!("dev prints {count} objects of the kind {kind}"), || self.objects(kind).len() >= count);
        self.objects(kind)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled until it is waited for");
    }

    fn stop(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    fn wait(mut self) -> ExitStatus {
        let mut status = None;
        wait_until("dev exits", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("waited for")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hookhold(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hookhold")).args(args).stdin(Stdio::null()).output().expect("the binary has just been built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("hookhold prints UTF-8")
}

/// Signs a sample of a provider with the secret to which `reference` refers.
fn signed(provider: &str, reference: &str, id: &str, tamper: Option<Tamper>) -> Sample {
    let toml = format!("[sources.{provider}]\nprovider = \"{provider}\"\nsecrets = [\"{reference}\"]\n");
    let config = Config::parse("test", &toml, |_, _| None).expect("the secret exists");
    let options = SampleOptions { id: id.to_owned(), event_type: None, key: None, now: SystemClock.now(), tamper };
    sign(&config.sources[0], None, &options).expect("the source has a secret")
}

fn send(address: SocketAddr, sample: &Sample) -> u16 {
    let headers: Vec<(String, String)> = sample
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().expect("samples have text headers").to_owned()))
        .collect();
    Line::open(address).ask(&post(&sample.target, &headers, &sample.body)).status
}

#[test]
fn one_command_shows_a_genuine_and_a_tampered_delivery() {
    let (address, _reserved) = ports::reserve();
    let dev = Dev::start(&["stripe", "--listen", &address.to_string()], &[]);
    let secret = dev.line("(generated)");
    let file = secret.split_whitespace().nth(1).expect("the path of the secret");
    dev.line("ngrok http");
    let reference = format!("file:{file}");
    assert_eq!(send(address, &signed("stripe", &reference, "evt_1", None)), 200);
    let line = dev.line("stored #0");
    for part in ["  200  ", "  stripe  ", "  invoice.paid  ", "  evt_1  "] {
        assert!(line.contains(part), "{line:?}");
    }
    assert_eq!(send(address, &signed("stripe", &reference, "evt_2", Some(Tamper::Body))), 401);
    let rejected = dev.line("signature_mismatch");
    assert!(rejected.contains("  401  ") && !rejected.contains("evt_2"), "an unverified id is shown: {rejected:?}");
    let cause = dev.line("expected one made with a configured secret");
    assert!(cause.starts_with("     "), "{cause:?}");
    assert!(!dev.lines().concat().contains('\u{1b}'), "escape sequences without a terminal");
    assert!(Path::new(file).exists());
    assert_eq!(dev.stop().code(), Some(0));
    assert!(!Path::new(file).exists() && !Path::new(file).parent().expect("a directory").exists(), "{file} remains");
}

#[test]
fn json_lines_describe_each_provider_and_each_delivery() {
    let (address, _reserved) = ports::reserve();
    let dev = Dev::start(&["stripe", "github", "--listen", &address.to_string(), "--format", "json"], &[]);
    let providers = dev.wait_for("provider", 2);
    assert_eq!(providers[1]["url"], format!("http://localhost:{}/hooks/github", address.port()));
    let gh = providers[1]["commands"][0]["run"].as_str().expect("GitHub has a tool");
    assert!(gh.starts_with("gh webhook forward") && gh.contains(providers[1]["url"].as_str().expect("a URL")), "{gh}");
    assert!(providers[0]["commands"][0]["run"].as_str().expect("Stripe has a tool").contains("stripe listen --print-secret"));
    let github = signed("github", providers[1]["secrets"][0].as_str().expect("a reference"), "evt_7", None);
    assert_eq!((send(address, &github), send(address, &github)), (200, 200));
    let deliveries = dev.wait_for("delivery", 2);
    let fields = |index: usize| ["outcome", "source", "type", "id"].map(|name| deliveries[index][name].as_str().unwrap_or("-"));
    assert_eq!(fields(0), ["stored", "github", "pull_request.opened", "evt_7"]);
    assert_eq!(fields(1), ["duplicate", "github", "pull_request.opened", "evt_7"]);
    assert_eq!((&deliveries[0]["seq"], &deliveries[1]["seq"]), (&0.into(), &0.into()));
    dev.signal(Signal::INT);
    assert_eq!(dev.wait().code(), Some(0));
}

#[test]
fn the_operators_secret_and_journal_are_used_and_remain() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, journal) = (dir.path().join("secret"), dir.path().join("journal"));
    std::fs::write(&file, "whsec_c2VjcmV0IG51bWJlciBvbmU=\n").expect("a file");
    let (address, _reserved) = ports::reserve();
    let (file, journal) = (file.display().to_string(), journal.display().to_string());
    let secret = format!("stripe=file:{file}");
    let args = ["stripe", "--listen", &address.to_string(), "--secret", &secret, "--journal", &journal, "--format", "json"];
    for (id, seq) in [("evt_1", 0), ("evt_2", 1)] {
        let dev = Dev::start(&args, &[]);
        let provider = &dev.wait_for("provider", 1)[0];
        assert_eq!((&provider["secrets"][0], &provider["generated"]), (&format!("file:{file}").into(), &false.into()));
        assert_eq!(send(address, &signed("stripe", &format!("file:{file}"), id, None)), 200);
        assert_eq!(dev.wait_for("delivery", 1)[0]["seq"], seq);
        assert_eq!(dev.stop().code(), Some(0));
    }
    let config = dir.path().join("hookhold.toml");
    std::fs::write(&config, format!("journal.dir = {journal:?}\n")).expect("a file");
    let tail = text(&hookhold(&["tail", "--config", &config.display().to_string()]).stdout);
    assert!(tail.contains("evt_1") && tail.contains("evt_2"), "{tail}");
}

#[test]
fn the_next_free_port_is_used_when_the_first_is_taken() {
    let [first, second] = [(); 2].map(|()| Dev::start(&["stripe", "--format", "json"], &[]));
    let [one, other] = [&first, &second].map(|dev| dev.wait_for("listening", 1)[0]["url"].clone());
    assert!(one != other && one.as_str().expect("a URL").starts_with("http://localhost:8"), "{one} {other}");
    [first, second].into_iter().for_each(|dev| assert_eq!(dev.stop().code(), Some(0)));
}

#[test]
fn a_taken_address_of_the_operator_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let dev = hookhold(&["dev", "stripe", "--listen", &address]);
    assert_eq!(dev.status.code(), Some(2));
    assert!(text(&dev.stderr).contains(&format!("--listen: expected an available address, found {address}")));
}

#[test]
fn a_misspelt_provider_gets_the_nearest_name() {
    let dev = hookhold(&["dev", "strip"]);
    assert_eq!((dev.status.code(), text(&dev.stdout)), (Some(2), String::new()));
    let error = text(&dev.stderr);
    assert!(error.contains("did you mean stripe?") && error.lines().count() == 1, "{error}");
}

#[test]
fn wrong_arguments_are_named_without_repeating_a_secret() {
    let cases: [(&[&str], &str); 5] = [
        (&["stripe", "--secret", "stripe=whsec_very_secret"], "--secret: expected NAME=env:VARIABLE or NAME=file:PATH"),
        (&["stripe", "--secret", "github=env:X"], "--secret: expected the name of a named provider (stripe), found github"),
        (&["stripe", "--secret", "stripe=env:HOOKHOLD_TEST_UNSET"], "--secret: "),
        (&["stripe", "--forward", "localhost:3000"], "--forward: expected a URL such as http://localhost:3000/hook"),
        (&["twilio", "--public-url", "tunnel.example"], "--public-url: expected a URL"),
    ];
    for (args, why) in cases {
        let dev = hookhold(&[&["dev"], args].concat());
        let error = text(&dev.stderr);
        assert_eq!(dev.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(why) && error.lines().count() == 1, "{args:?}: {error}");
        assert!(!error.contains("very_secret"), "{error}");
    }
}

/// A request that the local program has received: the header fields in lower case, and the body.
struct ProgramRequest {
    line: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Answers one request on `connection` with `status`, and returns the request.
fn answer(connection: TcpStream, status: &str) -> Option<ProgramRequest> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let head: Vec<String> = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let field = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let fields: Vec<(String, String)> = head.iter().skip(1).filter_map(field).collect();
    let length = fields.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    write!(&connection, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok()?;
    Some(ProgramRequest { line: head.first()?.clone(), fields, body })
}

#[test]
fn a_program_that_was_down_gets_every_event_in_order_and_unchanged() {
    let ((address, _first), (program, _second)) = (ports::reserve(), ports::reserve());
    let url = format!("http://{program}/hook");
    let args = ["stripe", "github", "--listen", &address.to_string(), "--forward", &url, "--format", "json"];
    let dev = Dev::start(&args, &[]);
    let providers = dev.wait_for("provider", 2);
    let secret = |index: usize| providers[index]["secrets"][0].as_str().expect("a reference").to_owned();
    let mut samples = [
        signed("stripe", &secret(0), "evt_1", None),
        signed("github", &secret(1), "evt_2", None),
        signed("stripe", &secret(0), "evt_3", None),
    ];
    samples[1].headers.insert("x-several", "a".parse().expect("a value"));
    samples[1].headers.append("x-several", "b".parse().expect("a value"));
    samples.iter().for_each(|sample| assert_eq!(send(address, sample), 200));
    assert_eq!(dev.wait_for("waiting", 1)[0]["reason"], "no connection");

    let listener = TcpListener::bind(program).expect("the port is reserved");
    for (seq, (sample, status)) in samples.iter().zip(["200 OK", "500 Internal Server Error", "204 No Content"]).enumerate() {
        let received = answer(listener.accept().expect("a connection").0, status).expect("a whole request");
        assert_eq!((&*received.line, Bytes::from(received.body)), ("POST /hook HTTP/1.1", sample.body.clone()));
        for name in sample.headers.keys() {
            let expected: Vec<&str> = sample.headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect();
            let found = received.fields.iter().filter(|(other, _)| *other == name.as_str()).map(|(_, value)| &**value);
            assert_eq!(found.collect::<Vec<_>>(), expected, "{name}");
        }
        let forwarded = dev.wait_for("forwarded", seq + 1);
        let code: u16 = status[..3].parse().expect("a status");
        assert_eq!((&forwarded[seq]["seq"], &forwarded[seq]["status"]), (&seq.into(), &code.into()));
    }
    assert!(dev.objects("forwarded")[0]["attempts"].as_u64() > Some(1));
    assert_eq!(dev.stop().code(), Some(0));
}

#[test]
fn with_a_named_journal_a_restart_continues_with_the_first_event_that_has_no_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let ((address, _first), (program, _second)) = (ports::reserve(), ports::reserve());
    let (journal, url) = (dir.path().join("events").display().to_string(), format!("http://{program}/hook"));
    std::fs::write(dir.path().join("secret"), "whsec_c2VjcmV0").expect("a file");
    let reference = format!("file:{}", dir.path().join("secret").display());
    let (address_text, secret) = (address.to_string(), format!("stripe={reference}"));
    let args =
        ["stripe", "--listen", &address_text, "--forward", &url, "--journal", &journal, "--secret", &secret, "--format", "json"];
    let answered_ids = |dev: &Dev, count: usize| {
        let listener = TcpListener::bind(program).expect("a reserved port");
        listener.set_nonblocking(true).expect("a listener has this option");
        let bodies = (0..count).map(|_| {
            let mut connection = None;
            wait_until("dev posts an event", || {
                connection = listener.accept().ok();
                connection.is_some()
            });
            let (connection, _) = connection.expect("waited for");
            connection.set_nonblocking(false).expect("a connection has this option");
            answer(connection, "200 OK").expect("a request").body
        });
        let ids: Vec<String> = bodies
            .map(|body| serde_json::from_slice::<Value>(&body).expect("JSON")["id"].as_str().expect("an id").to_owned())
            .collect();
        dev.wait_for("forwarded", count);
        ids
    };
    let dev = Dev::start(&args, &[]);
    dev.wait_for("provider", 1);
    assert_eq!(send(address, &signed("stripe", &reference, "evt_1", None)), 200);
    assert_eq!(answered_ids(&dev, 1), ["evt_1"]);
    for id in ["evt_2", "evt_3"] {
        assert_eq!(send(address, &signed("stripe", &reference, id, None)), 200);
    }
    assert_eq!(dev.stop().code(), Some(0));
    let dev = Dev::start(&args, &[]);
    assert_eq!(answered_ids(&dev, 2), ["evt_2", "evt_3"]);
    assert_eq!(dev.stop().code(), Some(0));
}

#[test]
fn other_commands_reach_the_gateway_of_dev_by_its_configuration() {
    let (address, _reserved) = ports::reserve();
    let providers = ["stripe", "github", "shopify", "slack", "twilio", "standard-webhooks", "svix"];
    let dev = Dev::start(&[&providers[..], &["--listen", &address.to_string(), "--format", "json"]].concat(), &[]);
    let config = dev.wait_for("listening", 1)[0]["config"].as_str().expect("a path").to_owned();
    let on_dev = |args: &[&str]| hookhold(&[args, &["--config", &config]].concat());
    wait_until("dev answers", || on_dev(&["status"]).status.code() == Some(0));
    for provider in providers {
        let sent = on_dev(&["send", provider]);
        assert_eq!(sent.status.code(), Some(0), "{provider}: {}", text(&sent.stderr));
    }
    assert_eq!(text(&on_dev(&["tail"]).stdout).lines().count(), providers.len());
    assert!(on_dev(&["inspect", "0"]).status.success());
    let checked = text(&on_dev(&["check"]).stdout);
    assert!(!checked.contains("signing secret"), "the generated secrets have the form of the providers': {checked}");
    assert_eq!(dev.stop().code(), Some(0));
}

#[test]
fn with_kafka_each_event_shows_its_topic_partition_and_offset() {
    let kafka = Kafka::start();
    kafka.create_topic("webhooks.stripe", 3, &[]);
    let (address, _reserved) = ports::reserve();
    let args = ["stripe", "--listen", &address.to_string(), "--kafka", &kafka.bootstrap(), "--format", "json"];
    let dev = Dev::start(&args, &[]);
    assert_eq!(dev.wait_for("listening", 1)[0]["kafka"], kafka.bootstrap());
    let secret = dev.wait_for("provider", 1)[0]["secrets"][0].as_str().expect("a reference").to_owned();
    for id in ["evt_1", "evt_2", "evt_3"] {
        assert_eq!(send(address, &signed("stripe", &secret, id, None)), 200);
    }
    let mut shown = dev.wait_for("acknowledged", 3);
    shown.sort_by_key(|event| event["seq"].as_u64());
    let mut records = kafka.wait_for_records("webhooks.stripe", 3);
    records.sort_by_key(Record::seq);
    for (event, record) in shown.iter().zip(&records) {
        let place = (&event["seq"], &event["topic"], &event["partition"], &event["offset"]);
        let expected = (record.seq(), "webhooks.stripe", record.partition, record.offset);
        assert_eq!(place, (&expected.0.into(), &expected.1.into(), &expected.2.into(), &expected.3.into()));
    }
    assert_eq!(dev.stop().code(), Some(0));
}

#[test]
fn the_keys_send_samples_and_the_screen_explains_each_result() {
    let (address, _reserved) = ports::reserve();
    let mut screen = Screen::start(&["stripe", "github", "--listen", &address.to_string()], &[]);
    screen.wait_for("stripe: g genuine  d duplicate  t tampered  s stale  Tab next  ? help  q quit");
    let keys =
        [("g", "stored #0"), ("d", "duplicate of #0"), ("t", "signature_mismatch"), ("s", "timestamp_stale"), ("g", "stored #1")];
    for (key, end) in keys {
        screen.press(key);
        screen.wait_for(end);
    }
    screen.wait_for("timestamp: expected at most 300 s in the past");
    let frame = screen.deliveries();
    let expected = [
        "TIME  200  stripe        invoice.paid                ID  stored #0",
        "TIME  200  stripe        invoice.paid                ID  duplicate of #0",
        "TIME  401  stripe        -                           -                             signature_mismatch",
        "TIME  401  stripe        -                           -                             timestamp_stale",
        "TIME  200  stripe        checkout.session.completed  ID  stored #1",
    ];
    assert_eq!(frame, expected, "{}", screen.text());
    screen.press("\t");
    screen.wait_for("github: g genuine");
    screen.press("s");
    screen.wait_for("github: its signatures contain no time, so no delivery is stale");
    screen.press("?");
    screen.wait_for("send a genuine but stale sample");
    screen.press("r");
    screen.wait_for("replay: expected --forward URL");
    screen.press("1");
    screen.wait_for("stripe: g genuine");
    assert!(screen.last_line().starts_with("stripe: g genuine"), "the footer is the last line: {}", screen.text());
    screen.press("q");
    assert_eq!(screen.wait(), 0);
}

/// The whole screen before and after the first sample, with placeholders for the port, the directory, the time and the id.
#[test]
fn the_first_screen_says_where_to_send_and_shows_what_arrives() {
    let (address, _reserved) = ports::reserve();
    let mut screen = Screen::start(&["stripe", "--listen", &address.to_string()], &[]);
    screen.wait_for("? help  q quit");
    assert_eq!(frame(&screen, address), FIRST_FRAME.trim_start_matches('\n'));
    screen.press("g");
    screen.wait_for("stored #0");
    let delivery = "TIME  200  stripe        invoice.paid                ID  stored #0\n";
    let (page, footer) = FIRST_FRAME.trim_start_matches('\n').rsplit_once("stripe: g").expect("a footer");
    assert_eq!(frame(&screen, address), format!("{page}{delivery}stripe: g{footer}"));
    screen.press("q");
    assert_eq!(screen.wait(), 0);
}

/// Returns the text of the screen with placeholders.
fn frame(screen: &Screen, address: SocketAddr) -> String {
    let text = screen.text().replace(&format!("localhost:{}", address.port()), "localhost:PORT");
    let text = text.replace(&format!("ngrok http {}", address.port()), "ngrok http PORT");
    let directory = text.split("hookhold-dev-").nth(1).and_then(|rest| rest.split('/').next()).expect("a directory").to_owned();
    let temporary = std::env::temp_dir().join(format!("hookhold-dev-{directory}")).display().to_string();
    let lines = text.replace(&temporary, "DIR");
    let lines: Vec<String> = lines
        .lines()
        .map(|line| match line.split("  ").nth(1).is_some_and(|status| status.parse::<u16>().is_ok()) {
            true => pty::without_time_and_id(line),
            false => line.trim_end().to_owned(),
        })
        .collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

const FIRST_FRAME: &str = "
  listens   http://localhost:PORT
  journal   DIR/journal (deleted at the end)
  program   none; --forward URL posts each stored event to a local program
  commands  hookhold -c DIR/hookhold.toml send NAME --body FILE, tail, inspect, doctor NAME, …

1 Stripe
  URL       http://localhost:PORT/hooks/stripe
  secret    DIR/stripe.secret (generated)
  this tool signs with a secret of its own, so end this command and start it with that secret:
    STRIPE_WEBHOOK_SECRET=$(stripe listen --print-secret) hookhold dev stripe --secret stripe=env:STRIPE_WEBHOOK_SECRET
  in another shell, the provider's own tool sends real events:
    stripe listen --forward-to http://localhost:PORT/hooks/stripe

From the internet, in another shell
  cloudflared tunnel --url http://localhost:PORT
  ngrok http PORT
  Then enter https://TUNNEL/hooks/NAME in the provider's dashboard.
stripe: g genuine  d duplicate  t tampered  s stale  ? help  q quit
";

#[test]
fn colours_follow_no_color() {
    for (variables, is_coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let (address, _reserved) = ports::reserve();
        let mut screen = Screen::start(&["stripe", "--listen", &address.to_string()], variables);
        screen.wait_for("g genuine");
        screen.press("g");
        screen.wait_for("stored #0");
        assert_eq!(screen.is_coloured("stored #0"), is_coloured, "{variables:?}");
        screen.press("\u{3}");
        assert_eq!(screen.wait(), 0);
    }
}

#[test]
fn every_end_restores_the_terminal() {
    for end in ["q", "\u{3}", "SIGTERM", "SIGHUP"] {
        let (address, _reserved) = ports::reserve();
        let mut screen = Screen::start(&["stripe", "--listen", &address.to_string()], &[]);
        assert!(screen.echoes(), "a new terminal echoes");
        screen.wait_for("g genuine");
        assert!(!screen.echoes(), "dev reads single keys");
        match end {
            "SIGTERM" => screen.signal(Signal::TERM),
            "SIGHUP" => screen.signal(Signal::HUP),
            key => screen.press(key),
        }
        assert_eq!(screen.wait(), 0, "{end}");
        assert!(screen.echoes(), "{end}");
    }
}

#[test]
fn the_key_r_posts_the_last_event_again() {
    let ((address, _first), (program, _second)) = (ports::reserve(), ports::reserve());
    let url = format!("http://{program}/hook");
    let listener = TcpListener::bind(program).expect("the port is reserved");
    let mut screen = Screen::start(&["github", "--listen", &address.to_string(), "--forward", &url], &[]);
    screen.wait_for("r replay");
    screen.press("r");
    screen.wait_for("replay: no event is stored yet");
    screen.press("g");
    let first = answer(listener.accept().expect("a connection").0, "200 OK").expect("a whole request");
    screen.wait_for(&format!("200  forwarded #0 to {url}"));
    screen.press("r");
    let second = answer(listener.accept().expect("a connection").0, "500 Internal Server Error").expect("a whole request");
    screen.wait_for(&format!("500  replayed #0 to {url}"));
    assert_eq!((first.body, first.fields), (second.body, second.fields));
    screen.press("q");
    assert_eq!(screen.wait(), 0);
}
