//! Upgrades hookhold in a bare root: the test installs a build, starts it by the command of the unit with the socket passed, and
//! installs another build under load. `tests/upgrade/prepare` makes the bare root and both builds.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use hookhold::config::Config;
use hookhold::journal::ReadOnlyJournal;
use hookhold::journal::disk::LocalDisk;
use rustix::process::{Pid, Signal, kill_process};

use crate::https::Pair;
use crate::ports::reserve;
use crate::process::{Line, wait_until};
use crate::steady_load::{SteadyLoad, SteadyOrder, SteadyResult, Transport};

/// A bare root in which hookhold is installed.
struct BareRoot {
    root: PathBuf,
    hooks: SocketAddr,
    admin: SocketAddr,
    _reserved: [UdpSocket; 2],
}

/// The process of hookhold in the bare root. Dropping the value kills it.
struct Installed(Pid);

impl BareRoot {
    /// Writes a configuration, with TLS if `pair` is given, and an empty journal directory.
    fn new(pair: Option<&Pair>) -> BareRoot {
        let ((hooks, first), (admin, second)) = (reserve(), reserve());
        let root = work().join("root");
        let bare = BareRoot { root, hooks, admin, _reserved: [first, second] };
        let _ = fs::remove_dir_all(bare.inside("var/lib/hookhold"));
        let _ = fs::remove_file(bare.log_file());
        for dir in ["etc/hookhold", "var/lib/hookhold", "var/log"] {
            fs::create_dir_all(bare.inside(dir)).expect("root writes here");
        }
        fs::write(bare.inside("etc/hookhold/secret"), "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0").expect("root writes here");
        let tls = pair.map(|pair| {
            for (from, to) in [(pair.cert(), "cert.pem"), (pair.key(), "key.pem")] {
                fs::copy(from, bare.inside("etc/hookhold").join(to)).expect("root writes here");
            }
            "server.tls_cert = \"/etc/hookhold/cert.pem\"\nserver.tls_key = \"/etc/hookhold/key.pem\"\n"
        });
        let config = format!(
            "server.listen = \"{hooks}\"\nadmin.listen = \"{admin}\"\njournal.dir = \"/var/lib/hookhold/journal\"\n{}\
             [sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:/etc/hookhold/secret\"]\n",
            tls.unwrap_or_default()
        );
        fs::write(bare.inside("etc/hookhold/hookhold.toml"), config).expect("root writes here");
        bare
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn log_file(&self) -> PathBuf {
        self.inside("var/log/hookhold.test")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Starts hookhold by the command of the unit, with the socket passed.
    fn start(&self, socket: &TcpListener) -> Installed {
        const PASS: &str = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=deliveries; exec \"$@\"";
        let line = fs::read_to_string(work().join("exec-start")).expect("tests/upgrade/prepare writes it");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("root writes here");
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(["sh", "-c", PASS, "sh"]).args(line.split_whitespace());
        command.stdin(OwnedFd::from(socket.try_clone().expect("a socket can be copied"))).stderr(log);
        let child = command.spawn().expect("chroot is essential");
        let installed = Installed(Pid::from_child(&child));
        // The process is waited for by this thread, so that it does not stay as a zombie.
        std::thread::spawn(move || child.wait_with_output());
        wait_until("the installed hookhold is ready", || {
            self.page("/readyz").is_some_and(|page| page.starts_with("HTTP/1.1 200 "))
        });
        installed
    }

    fn page(&self, path: &str) -> Option<String> {
        let mut line = Line::try_open(self.admin)?;
        line.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes());
        Some(String::from_utf8(line.rest()).expect("the admin pages are text"))
    }

    /// Installs a build and upgrades the running process to it.
    fn upgrade(&self, process: &mut Installed, number: u8) {
        run(&work().join(format!("install-{number}")));
        let before = self.log().matches("hand-over complete").count();
        kill_process(process.0, Signal::USR2).expect("the process runs");
        wait_until("the hand-over is complete", || self.log().matches("hand-over complete").count() > before);
        let log = self.log();
        let line =
            log.lines().rev().find(|line| line.contains("upgrade: started the new process")).expect("an upgrade in the log");
        let pid = line.split("process=").nth(1).and_then(|rest| rest.trim().parse().ok()).and_then(Pid::from_raw);
        process.0 = pid.expect("a process id");
        let version = if number == 1 { env!("CARGO_PKG_VERSION") } else { "0.1.1-test" };
        let metrics = self.page("/metrics").expect("the admin listener is open");
        let build = metrics.lines().find(|line| line.starts_with("hookhold_build_info{")).expect("the metric exists");
        assert!(build.contains(&format!("version=\"{version}\"")), "{build}");
    }

    fn stored(&self) -> Vec<String> {
        let disk = LocalDisk::existing(&self.inside("var/lib/hookhold/journal")).expect("the journal exists");
        let mut journal = ReadOnlyJournal::open(Arc::new(disk)).expect("the journal can be read");
        let stored = std::iter::from_fn(|| journal.next().expect("the journal can be read"));
        stored.map(|stored| stored.event.id().expect("every delivery here has an id").to_owned()).collect()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
#[ignore = "needs root and a bare root, and builds hookhold twice"]
fn an_installed_program_is_upgraded_under_load() {
    run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/prepare"));
    let pair = Arc::new(Pair::new(30));
    let plain = [("new", Transport::New), ("persistent", Transport::Persistent)];
    let tls = [("h2", Transport::Http2(pair.clone()))];
    for (pair, transports) in [(None, &plain[..]), (Some(&*pair), &tls[..])] {
        let bare = BareRoot::new(pair);
        run(&work().join("install-1"));
        let socket = TcpListener::bind(bare.hooks).expect("the port is reserved");
        let mut process = bare.start(&socket);
        let mut accepted = BTreeSet::new();
        for (rate, number) in [(200, 2), (2_000, 1)] {
            let loads: Vec<_> = transports.iter().map(|(name, transport)| (name, load(&bare, name, transport, rate))).collect();
            loads.iter().for_each(|(_, load)| load.wait_for(u64::from(rate)));
            bare.upgrade(&mut process, number);
            loads.iter().for_each(|(_, load)| load.wait_for(u64::from(rate)));
            for (name, load) in loads {
                let result: SteadyResult = load.stop();
                println!("{name} at {rate}/s: {:?}", result.statuses);
                result.assert_no_sender_noticed(name);
                accepted.extend(result.accepted);
            }
        }
        let stored = bare.stored();
        assert_eq!(stored.len(), accepted.len(), "each event is stored once");
        assert_eq!(stored.into_iter().collect::<BTreeSet<_>>(), accepted);
    }
}

fn load(bare: &BareRoot, name: &str, transport: &Transport, rate: u32) -> SteadyLoad {
    let text = fs::read_to_string(bare.inside("etc/hookhold/hookhold.toml")).expect("written by the test");
    let text = text.replace("/etc/hookhold", &bare.inside("etc/hookhold").display().to_string());
    let config = Config::parse("hookhold.toml", &text, |_, _| None).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let source = config.sources[0].clone();
    let (transport, name) = (transport.clone(), format!("{name}_{rate}"));
    SteadyLoad::start(SteadyOrder { address: bare.hooks, source, rate, senders: 60, transport, name })
}

fn run(program: &Path) {
    let status = Command::new(program).status().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(status.success(), "{}: {status}", program.display());
}

fn work() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/upgrade")
}
