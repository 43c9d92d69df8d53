//! Runs the real `hookhold run` in a separate directory and on separate loopback ports. Observes the process from outside and
//! stops the process with a signal. Includes an HTTP/1.1 client that sends raw bytes, so a test chooses every byte of a
//! request.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::ports::reserve;

/// The environment in which a test runs `hookhold` processes: two reserved ports, and a directory with the configuration,
/// the secrets and the journal.
pub struct Home {
    /// Address on which the gateway listens for deliveries (`server.listen`).
    pub hooks: SocketAddr,
    /// Address of the admin listener (`admin.listen`), which serves `/metrics` and `/readyz`.
    pub admin: SocketAddr,
    dir: tempfile::TempDir,
    variables: BTreeMap<String, String>,
    _reserved: [UdpSocket; 2],
}

impl Home {
    /// Creates the directory and writes the secrets and the configuration into it. Each secret is a file name and the text of
    /// the file. The configuration refers to a secret as `file:NAME`. The function sets `server.listen`, `admin.listen` and
    /// `journal.dir` in the configuration. `config` contains the other options: first dotted keys such as
    /// `server.drain_delay = "0s"`, then sections.
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

    /// Sets an environment variable for all processes that this `Home` starts later.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Writes a file into the directory of this `Home`, which is the working directory of every `hookhold` command.
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

    /// Starts `hookhold run` with these further arguments, without waiting until the process is ready.
    pub fn launch_args(&self, args: &[&str]) -> Process<'_> {
        self.spawn(self.command(&[&["run"], args].concat()))
    }

    /// Starts `hookhold run` through another command, such as `strace`. `by` contains the name and the first arguments of
    /// that command. The function appends `hookhold run` to these arguments.
    pub fn launch_with(&self, by: &[&str]) -> Process<'_> {
        self.spawn(self.command_with(by, &["run"]))
    }

    /// Starts `hookhold run` with a passed listening socket, as systemd does. `names` is the content of `LISTEN_FDNAMES`.
    pub fn launch_passing(&self, socket: &TcpListener, names: &str) -> Process<'_> {
        const PASS: &str = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let mut command = self.command_with(&["sh", "-c", PASS], &["run"]);
        if !names.is_empty() {
            command.env("LISTEN_FDNAMES", names);
        }
        command.stdin(OwnedFd::from(socket.try_clone().expect("a socket can be copied")));
        self.spawn(command)
    }

    /// Starts `PROGRAM run` from the directory of this `Home`. `program` is the name of a file in this directory.
    pub fn launch_program(&self, program: &str) -> Process<'_> {
        let mut command = Command::new(self.dir.path().join(program));
        self.prepare(command.arg("run"));
        self.spawn(command)
    }

    /// Replaces the file `name` in the directory of this `Home` with a copy of the program, as a package manager does.
    pub fn install_program(&self, name: &str) {
        let (new, path) = (self.dir.path().join("new-program"), self.dir.path().join(name));
        fs::copy(env!("CARGO_BIN_EXE_hookhold"), &new).expect("target/ can be written to");
        fs::rename(new, path).expect("target/ can be written to");
    }

    fn spawn(&self, mut command: Command) -> Process<'_> {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).expect("target/ can be written to");
        let child = command.stderr(log).spawn().expect("the binary has just been built");
        Process { home: self, child }
    }

    /// Runs `hookhold` with the arguments `args` in the directory of this `Home`, waits until the command exits and returns the
    /// output of the command.
    pub fn verb(&self, args: &[&str]) -> Output {
        if args.first().is_some_and(|verb| ["doctor", "rejections"].contains(verb)) {
            self.settle_rejections();
        }
        self.command(args).output().expect("the binary has just been built")
    }

    /// Waits until the running process, if there is one, has written the rejections of all earlier requests: its page waits for them.
    pub fn settle_rejections(&self) {
        if let Some(mut line) = Line::try_open(self.admin) {
            line.send(b"GET /api/rejections?source=none HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            line.rest();
        }
    }

    /// Returns a shell that runs `command` in the directory of this `Home`, as for an operator who pastes it. The directory of the
    /// program `hookhold` is on the path.
    pub fn shell(&self, command: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_hookhold"));
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path = program.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&others));
        let mut shell = Command::new("bash");
        self.prepare(shell.args(["-c", command]));
        shell.env("PATH", std::env::join_paths(path).expect("no directory has a colon in its name"));
        shell
    }

    /// Returns the combined log of all `hookhold run` processes of this `Home`.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_with(&[], args)
    }

    fn command_with(&self, by: &[&str], args: &[&str]) -> Command {
        let words = [by, &[env!("CARGO_BIN_EXE_hookhold")], args].concat();
        let mut command = Command::new(words[0]);
        self.prepare(command.args(&words[1..]));
        command
    }

    /// Makes a command run in the directory of this `Home`, with its environment.
    fn prepare(&self, command: &mut Command) {
        command.current_dir(self.dir.path()).env_remove("HOOKHOLD_LOG").envs(&self.variables);
    }
}

/// A running gateway. Dropping the value kills the process with SIGKILL.
pub struct Process<'a> {
    home: &'a Home,
    child: Child,
}

impl Process<'_> {
    /// Returns the process id of the gateway.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process. `Signal::KILL` simulates a crash.
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

    /// Returns the exit status of the process, or `None` while the process runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Fetches `/readyz` and returns the response status, or `None` if the admin listener is closed.
    pub fn ready(&self) -> Option<u16> {
        let mut line = Line::try_open(self.home.admin)?;
        line.send(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = String::from_utf8(line.rest()).expect("the admin pages are text");
        Some(answer.split(' ').nth(1)?.parse().expect("a status is a number"))
    }

    /// Fetches `/metrics` and returns the response body.
    pub fn metrics(&self) -> String {
        let mut line = Line::open(self.home.admin);
        line.send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = line.answer();
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).expect("metrics are text")
    }

    /// Returns the value of one time series in `/metrics`, or `None` if the series does not exist. `series` is the metric name
    /// with its labels in alphabetical order, such as `name{label="value"}`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().expect("a metric is a number"))
    }

    /// Returns the value of `hookhold_deliveries_total` for each source and outcome.
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

/// Parses the label values and the counter value from the end of a `/metrics` line, for example from
/// `outcome="stored",source="stripe"} 7`.
fn delivery_count(line: &str) -> ((String, String), u64) {
    let fields: Vec<&str> = line.split(['"', ' ']).collect();
    let [_, outcome, _, source, _, count] = fields[..] else { panic!("not two labels and a count: {line}") };
    ((source.to_owned(), outcome.to_owned()), count.parse().expect("a count is a number"))
}

/// An HTTP/1.1 client connection. The test chooses every byte that the client sends.
pub struct Line(TcpStream);

/// A complete HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Status line and header fields as received, without the field `date`.
    pub head: String,
    pub body: Vec<u8>,
}

impl Line {
    /// Connects to `address`. Panics if the listener is closed.
    pub fn open(address: SocketAddr) -> Line {
        Line::try_open(address).unwrap_or_else(|| panic!("cannot connect to {address}"))
    }

    /// Connects to the address `to` from the local address `from`. Panics if the connection fails.
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

    /// Connects to `address`, or returns `None` if the listener is closed.
    pub fn try_open(address: SocketAddr) -> Option<Line> {
        Some(Line::over(TcpStream::connect(address).ok()?))
    }

    fn over(stream: TcpStream) -> Line {
        stream.set_nodelay(true).expect("a socket has this option");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket has this option");
        Line(stream)
    }

    /// Sends `bytes` and ignores errors. A gateway that rejects a request early may close the connection before the test has
    /// sent all bytes. The test can read the response even then.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Sends `request`, then reads and returns the response.
    pub fn ask(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.answer()
    }

    /// Reads one response and returns it.
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

    /// Reads until the gateway closes the connection, and returns the received bytes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset also ends the connection. The function returns the bytes that arrived before the reset.
        let _ = self.0.read_to_end(&mut bytes);
        bytes
    }
}

/// Returns the HTTP/1.1 bytes of a POST request.
pub fn post(path: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: hooks.example.com\r\n{fields}content-length: {}\r\n\r\n", body.len());
    request.reserve(body.len());
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Waits until `condition` returns true. Panics after [`TIMEOUT`] with a message that contains `what`.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// Returns a command that runs a tool such as `promtool`. If `tests/run` has unpacked the tool, uses that copy. Otherwise,
/// uses the installed tool.
pub fn tool(name: &str) -> Command {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(name);
    Command::new(if unpacked.exists() { unpacked } else { name.into() })
}

/// Maximum duration of each wait. The limit exists only to end a stuck test; no assertion depends on the limit.
pub const TIMEOUT: Duration = Duration::from_secs(60);
