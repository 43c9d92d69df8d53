//! Runs the real `hookhold run` in its own directory and on its own loopback ports, observes the process from outside and
//! stops the process with a signal. Includes an HTTP/1.1 client that sends raw bytes, so a test chooses every byte of a
//! request.

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

/// A directory and two reserved ports, shared by several processes. The directory contains the configuration, the secrets
/// and the journal.
pub struct Home {
    /// Address for deliveries.
    pub hooks: SocketAddr,
    /// Address for `/metrics` and `/readyz`.
    pub admin: SocketAddr,
    dir: tempfile::TempDir,
    variables: BTreeMap<String, String>,
    _reserved: [UdpSocket; 2],
}

impl Home {
    /// Creates a home with these secrets and this configuration. Each secret is a file name and the text of the file, and
    /// the configuration refers to the secret as `file:NAME`. The home sets `server.listen`, `admin.listen` and
    /// `journal.dir`. `config` contains dotted keys such as `server.drain_delay = "0s"`, followed by sections.
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

    /// Sets an environment variable for all later processes of this home.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Writes a file into the home's directory, which is the working directory of every verb.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).expect("target/ can be written to");
    }

    /// Replaces the configuration file. The change takes effect at the next startup or reload.
    pub fn configure(&self, config: &str) {
        let (hooks, admin, journal) = (self.hooks, self.admin, self.journal());
        let ours = format!("server.listen = \"{hooks}\"\nadmin.listen = \"{admin}\"\njournal.dir = {journal:?}\n");
        fs::write(self.dir.path().join("hookhold.toml"), ours + config).expect("target/ can be written to");
    }

    /// Returns the path of the journal directory.
    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    /// Starts `hookhold run` and waits until `/readyz` returns 200.
    pub fn start(&self) -> Process<'_> {
        let mut process = self.launch();
        wait_until("hookhold is ready", || {
            assert!(process.ended().is_none(), "hookhold exited; its log:\n{}", self.log());
            process.ready() == Some(200)
        });
        process
    }

    /// Starts `hookhold run` without waiting until the process is ready.
    pub fn launch(&self) -> Process<'_> {
        self.launch_with(&[])
    }

    /// Starts `hookhold run` through another command. `by` contains the command's name and its first arguments. The command
    /// must execute its last arguments, `hookhold run`.
    pub fn launch_with(&self, by: &[&str]) -> Process<'_> {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).expect("target/ can be written to");
        let child = self.command_with(by, &["run"]).stderr(log).spawn().expect("the binary has just been built");
        Process { home: self, child }
    }

    /// Runs another verb with this configuration and returns its output.
    pub fn verb(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary has just been built")
    }

    /// Returns the log of all `hookhold run` processes of this home.
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

/// A running gateway. Dropping the value kills the process with SIGKILL.
pub struct Process<'a> {
    home: &'a Home,
    child: Child,
}

impl Process<'_> {
    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. `Signal::KILL` simulates a crash.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled until it is waited for");
    }

    /// Reloads the configuration with SIGHUP and returns true if the reload succeeded.
    pub fn reload(&self) -> bool {
        const ENDS: [&str; 2] = ["configuration reloaded", "configuration not reloaded"];
        let counts = || ENDS.map(|end| self.home.log().matches(end).count());
        let before = counts();
        self.signal(Signal::HUP);
        wait_until("the reload ends", || counts() != before);
        counts()[0] > before[0]
    }

    /// Waits until the process exits and returns its exit status.
    pub fn wait(mut self) -> ExitStatus {
        let mut status = None;
        wait_until("hookhold exits", || {
            status = self.ended();
            status.is_some()
        });
        status.expect("waited for")
    }

    /// Returns the exit status, or `None` while the process runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Returns the status of `/readyz`, or `None` if the listener is closed.
    pub fn ready(&self) -> Option<u16> {
        let mut line = Line::try_open(self.home.admin)?;
        line.send(b"GET /readyz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let answer = String::from_utf8(line.rest()).expect("the admin pages are text");
        Some(answer.split(' ').nth(1)?.parse().expect("a status is a number"))
    }

    /// Returns the text of `/metrics`.
    pub fn metrics(&self) -> String {
        let mut line = Line::open(self.home.admin);
        line.send(b"GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let answer = line.answer();
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).expect("metrics are text")
    }

    /// Returns the value of one series in `/metrics`. `series` is the metric's name with its labels in alphabetical order,
    /// such as `name{label="value"}`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().expect("a metric is a number"))
    }

    /// Returns every value of `hookhold_deliveries_total` by source and outcome.
    pub fn deliveries(&self) -> BTreeMap<(String, String), u64> {
        let text = self.metrics();
        let series = text.lines().filter_map(|line| line.strip_prefix("hookhold_deliveries_total{"));
        let values: BTreeMap<_, _> = series.map(delivery_count).collect();
        assert!(!values.is_empty(), "the counters exist from the start");
        values
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("log of hookhold:\n{}", self.home.log());
        }
    }
}

/// Parses the labels and the value of a series, such as `outcome="stored",source="stripe"} 7`.
fn delivery_count(line: &str) -> ((String, String), u64) {
    let fields: Vec<&str> = line.split(['"', ' ']).collect();
    let [_, outcome, _, source, _, count] = fields[..] else { panic!("not two labels and a count: {line}") };
    ((source.to_owned(), outcome.to_owned()), count.parse().expect("a count is a number"))
}

/// A client connection. The test chooses every byte that the client sends.
pub struct Line(TcpStream);

/// A complete response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Status line and header fields as received, without `date`.
    pub head: String,
    pub body: Vec<u8>,
}

impl Line {
    /// Connects. Panics if the listener is closed.
    pub fn open(address: SocketAddr) -> Line {
        Line::try_open(address).unwrap_or_else(|| panic!("cannot connect to {address}"))
    }

    /// Connects from this local address. Panics if the connection fails.
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

    /// Connects, or returns `None` if the listener is closed.
    pub fn try_open(address: SocketAddr) -> Option<Line> {
        Some(Line::over(TcpStream::connect(address).ok()?))
    }

    fn over(stream: TcpStream) -> Line {
        stream.set_nodelay(true).expect("a socket has this option");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket has this option");
        Line(stream)
    }

    /// Writes bytes and ignores errors. A gateway that rejects a request early may close the connection while the test still
    /// sends, and the test can still read the response.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Writes a request and reads its response.
    pub fn ask(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.answer()
    }

    /// Reads one response.
    pub fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap_or_else(|error| {
                panic!("incomplete response {:?}: {error}", String::from_utf8_lossy(&head));
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

    /// Closes the sending side of the connection.
    pub fn half_close(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }

    /// Reads all bytes until the gateway closes the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset also ends the connection; bytes that arrived before it count.
        let _ = self.0.read_to_end(&mut bytes);
        bytes
    }
}

/// Builds a POST request as HTTP/1.1 bytes.
pub fn post(path: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: hooks.example.com\r\n{fields}content-length: {}\r\n\r\n", body.len());
    request.reserve(body.len());
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Waits until the condition is true. Panics with the description `what` after [`TIMEOUT`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// Returns a command for a tool such as `promtool`. Prefers the copy that `tests/run` unpacks to an installed tool.
pub fn tool(name: &str) -> Command {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(name);
    Command::new(if unpacked.exists() { unpacked } else { name.into() })
}

/// Reserves a free TCP port by binding the UDP port with the same number, so no other test uses the TCP port. The port is
/// outside the kernel's range for outgoing connections. Otherwise, the kernel could assign the port to a sender while the
/// gateway is down.
pub fn reserve() -> (SocketAddr, UdpSocket) {
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..32_000)));
        if let (Ok(reserved), Ok(_free)) = (UdpSocket::bind(address), TcpListener::bind(address)) {
            return (address, reserved);
        }
    }
}

/// Maximum duration of each wait. The limit only ends a stuck test, and no assertion depends on it.
pub const TIMEOUT: Duration = Duration::from_secs(60);
