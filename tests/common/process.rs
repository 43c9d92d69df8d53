//! The real `hookhold run`: started in a directory and on loopback ports of its own, looked at from outside, ended by a
//! signal. And a client that speaks raw HTTP/1.1, so that a test decides about every byte.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A configuration, its journal and its ports; they stay the same through every start.
pub struct Home {
    /// Where deliveries go.
    pub hooks: SocketAddr,
    /// Where `/metrics` and `/readyz` are.
    pub admin: SocketAddr,
    dir: tempfile::TempDir,
    variables: BTreeMap<String, String>,
    _reserved: [UdpSocket; 2],
}

impl Home {
    /// A home with the given secrets, each a file name and its text, and the given configuration. `server.listen`,
    /// `admin.listen` and `journal.dir` are set; `config` goes on from there: first dotted keys such as
    /// `server.drain_delay = "0s"`, then sections. A secret is `file:NAME`.
    pub fn new(secrets: &[(&str, &str)], config: &str) -> Home {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/ can be written to");
        for (name, text) in secrets {
            fs::write(dir.path().join(name), text).expect("target/ can be written to");
        }
        let ((hooks, first), (admin, second)) = (reserve(), reserve());
        let home = Home { hooks, admin, dir, variables: BTreeMap::new(), _reserved: [first, second] };
        home.configure(config);
        home
    }

    /// A variable in the environment of every verb.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// A file in the directory of the configuration, where every verb runs.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).expect("target/ can be written to");
    }

    /// Replaces the configuration; it counts from the next start or reload.
    pub fn configure(&self, config: &str) {
        let (hooks, admin, journal) = (self.hooks, self.admin, self.journal());
        let ours = format!("server.listen = \"{hooks}\"\nadmin.listen = \"{admin}\"\njournal.dir = {journal:?}\n");
        fs::write(self.dir.path().join("hookhold.toml"), ours + config).expect("target/ can be written to");
    }

    /// The journal's directory.
    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    /// Starts `hookhold run` and waits until `/readyz` says 200.
    pub fn start(&self) -> Process<'_> {
        let mut process = self.launch();
        wait_until("hookhold is ready", || {
            assert!(process.ended().is_none(), "hookhold has ended; it said:\n{}", self.log());
            process.ready() == Some(200)
        });
        process
    }

    /// Starts `hookhold run` and waits for nothing.
    pub fn launch(&self) -> Process<'_> {
        self.launch_with(&[])
    }

    /// The same by another command, which is given `hookhold run` as its last arguments and becomes it.
    pub fn launch_with(&self, by: &[&str]) -> Process<'_> {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).expect("target/ can be written to");
        let child = self.command_with(by, &["run"]).stderr(log).spawn().expect("the binary has just been built");
        Process { home: self, child }
    }

    /// Another verb with this configuration, run to its end.
    pub fn verb(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary has just been built")
    }

    /// What every `run` so far has logged, in one text.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_with(&[], args)
    }

    fn command_with(&self, by: &[&str], args: &[&str]) -> Command {
        let words = [by, &[env!("CARGO_BIN_EXE_hookhold")], args].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.dir.path()).env_remove("HOOKHOLD_LOG").envs(&self.variables);
        command
    }
}

/// A running gateway. Dropping it is a `kill -9`.
pub struct Process<'a> {
    home: &'a Home,
    child: Child,
}

impl Process<'_> {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. `Signal::KILL` is the crash.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled until it is waited for");
    }

    /// Has it read its configuration again; true when that is in force now.
    pub fn reload(&self) -> bool {
        const ENDS: [&str; 2] = ["configuration reloaded", "configuration not reloaded"];
        let counts = || ENDS.map(|end| self.home.log().matches(end).count());
        let before = counts();
        self.signal(Signal::HUP);
        wait_until("the reload has ended", || counts() != before);
        counts()[0] > before[0]
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        let mut status = None;
        wait_until("hookhold ends", || {
            status = self.ended();
            status.is_some()
        });
        status.expect("waited for")
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// The status of `/readyz`, if anybody answers.
    pub fn ready(&self) -> Option<u16> {
        let mut line = Line::try_open(self.home.admin)?;
        line.send(b"GET /readyz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let answer = String::from_utf8(line.rest()).expect("the admin pages are text");
        Some(answer.split(' ').nth(1)?.parse().expect("a status is a number"))
    }

    /// The text at `/metrics`.
    pub fn metrics(&self) -> String {
        let mut line = Line::open(self.home.admin);
        line.send(b"GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let answer = line.answer();
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).expect("metrics are text")
    }

    /// One series, written as it stands at `/metrics`: `name{label="value"}`, labels in alphabetical order.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().expect("a metric is a number"))
    }

    /// Every value of `hookhold_deliveries_total` by source and outcome.
    pub fn deliveries(&self) -> BTreeMap<(String, String), u64> {
        let text = self.metrics();
        let series = text.lines().filter_map(|line| line.strip_prefix("hookhold_deliveries_total{"));
        let values: BTreeMap<_, _> = series.map(delivery_count).collect();
        assert!(!values.is_empty(), "the counters are there from the start");
        values
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("hookhold said:\n{}", self.home.log());
        }
    }
}

/// `outcome="stored",source="stripe"} 7`
fn delivery_count(line: &str) -> ((String, String), u64) {
    let fields: Vec<&str> = line.split(['"', ' ']).collect();
    let [_, outcome, _, source, _, count] = fields[..] else { panic!("not two labels and a count: {line}") };
    ((source.to_owned(), outcome.to_owned()), count.parse().expect("a count is a number"))
}

/// A connection.
pub struct Line(TcpStream);

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and header fields as they arrived, but for `date`.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Line {
    /// Connects; panics when nobody listens.
    pub fn open(address: SocketAddr) -> Line {
        Line::try_open(address).unwrap_or_else(|| panic!("nobody listens at {address}"))
    }

    /// Connects from an address of this machine.
    pub fn open_from(from: Ipv4Addr, to: SocketAddr) -> Line {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime can be built");
        let socket = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind((from, 0).into())?;
            socket.connect(to).await?.into_std()
        });
        let socket = socket.unwrap_or_else(|error| panic!("from {from} to {to}: {error}"));
        socket.set_nonblocking(false).expect("a socket has this option");
        Line::over(socket)
    }

    /// Connects, if anybody listens.
    pub fn try_open(address: SocketAddr) -> Option<Line> {
        Some(Line::over(TcpStream::connect(address).ok()?))
    }

    fn over(stream: TcpStream) -> Line {
        stream.set_nodelay(true).expect("a socket has this option");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket has this option");
        Line(stream)
    }

    /// Writes bytes. A gateway that has refused already may close meanwhile; what it said is read all the same.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Writes a request and reads its answer.
    pub fn ask(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.answer()
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap_or_else(|error| {
                panic!("no whole answer but {:?}: {error}", String::from_utf8_lossy(&head));
            });
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a head is text");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length is a number"))];
        self.0.read_exact(&mut body).expect("the body is as long as announced");
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status line");
        Answer { status, head: head.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect(), body }
    }

    /// Says that nothing more comes.
    pub fn half_close(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }

    /// Reads until the gateway closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is an end, too: what had arrived before it counts.
        let _ = self.0.read_to_end(&mut bytes);
        bytes
    }
}

/// A POST request.
pub fn post(path: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: hooks.example.com\r\n{fields}content-length: {}\r\n\r\n", body.len());
    request.reserve(body.len());
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Waits for a condition; panics with its name when it does not come true in a generous time.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// A tool such as `promtool`, where `tests/run` unpacks it, or as it is installed.
pub fn tool(name: &str) -> Command {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(name);
    Command::new(if unpacked.exists() { unpacked } else { name.into() })
}

/// A free port that no other test takes meanwhile: the UDP port of the same number stands for it. It lies outside the range
/// from which the kernel serves clients, else a sender could be given it while nobody listens.
pub fn reserve() -> (SocketAddr, UdpSocket) {
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..32_000)));
        if let (Ok(reserved), Ok(_free)) = (UdpSocket::bind(address), TcpListener::bind(address)) {
            return (address, reserved);
        }
    }
}

/// No test depends on how long anything takes; this only ends one that would never end.
pub const TIMEOUT: Duration = Duration::from_secs(60);
