//! Tests the access to the admin listener of the real binary: the token, kubelet's probes, and scrapes of a Prometheus server.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};

use ports::reserve;
use process::{Answer, Home, Line, tool, wait_until};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
const SOURCE: &str = "[sources.github]\nprovider = \"github\"\nsecrets = [\"file:github\"]\n";
const WITH_TOKEN: &str = "server.drain_delay = \"0s\"\nadmin.token = \"file:token\"\nadmin.hosts = [\"hookhold.internal\"]\n";

fn home() -> Home {
    Home::new(&[("github", "it is only for tests"), ("token", TOKEN)], &format!("{WITH_TOKEN}{SOURCE}"))
}

/// Sends a GET request with these header fields and returns the response.
fn get(home: &Home, path: &str, fields: &str) -> Answer {
    Line::open(home.admin).ask(format!("GET {path} HTTP/1.1\r\n{fields}connection: close\r\n\r\n").as_bytes())
}

#[test]
fn off_loopback_the_start_and_check_need_a_token() {
    let home = home();
    let config =
        |admin: &str| format!("[server]\nlisten = \"{}\"\n[admin]\n{admin}\n[journal]\ndir = \"journal\"\n{SOURCE}", home.hooks);
    home.put("open.toml", config("listen = \"0.0.0.0:9464\"\nkeep_rejected = \"1 MiB\"").as_bytes());
    for verb in ["check", "run"] {
        let output = home.verb(&[verb, "--config", "open.toml"]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let expected = "open.toml:4: admin.listen: expected a loopback address such as 127.0.0.1:9464, or a token, \
                        found 0.0.0.0:9464 and no token; set token = \"env:NAME\" or \"file:PATH\"";
        assert!(output.status.code() == Some(2) && text.contains(expected), "{verb}: {text}");
    }
    home.put("short", b"0123456789abcde");
    home.put("lines", format!("{TOKEN}\n{TOKEN}\n").as_bytes());
    let tokens = [("token", Some(0)), ("short", Some(2)), ("lines", Some(2)), ("missing", Some(2))];
    for (file, code) in tokens {
        home.put("token.toml", config(&format!("listen = \"0.0.0.0:9464\"\ntoken = \"file:{file}\"")).as_bytes());
        let output = home.verb(&["check", "--config", "token.toml"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == code && !text.contains("0123456789"), "{file}: {text}");
        assert!(code == Some(0) || text.contains("token.toml:5: admin.token: "), "{file}: {text}");
    }
    for (hosts, good) in [("[\"Hookhold.Internal\"]", true), ("[\"hookhold.internal:9464\"]", false), ("[\"10.0.0.7\"]", false)] {
        home.put("hosts.toml", config(&format!("hosts = {hosts}")).as_bytes());
        let output = home.verb(&["check", "--config", "hosts.toml"]);
        assert_eq!(output.status.success(), good, "{hosts}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn probes_of_kubelet_need_no_token_and_show_only_the_status() {
    let home = home();
    let _process = home.start();
    let probe = "Host: 10.1.2.3:9464\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\n";
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(&home, path, probe).status, 200);
    }
    assert_eq!(get(&home, "/readyz", probe).body, b"{\"ready\":true}\n");
    assert_eq!(get(&home, "/metrics", probe).status, 401);
    let balancer = Line::open(home.admin).ask(b"OPTIONS /readyz HTTP/1.0\r\n\r\n");
    assert_eq!(balancer.status, 405, "a health check of HAProxy without Host reaches the page");
    assert_eq!(Line::open(home.admin).ask(b"GET /readyz HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn a_scrape_with_the_token_reads_the_metrics() {
    let home = home();
    let process = home.start();
    let scrape = |token: &str| {
        format!(
            "Host: hookhold.internal:9464\r\nUser-Agent: Prometheus/3.7.3\r\nAccept: application/openmetrics-text;version=1.0.0;\
             escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.2\r\nAccept-Encoding: gzip\r\n\
             Authorization: Bearer {token}\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n"
        )
    };
    let page = get(&home, "/metrics", &scrape(TOKEN));
    assert!(page.status == 200 && page.head.contains("content-type: text/plain; version=0.0.4"), "{}", page.head);
    assert!(String::from_utf8_lossy(&page.body).contains("\nhookhold_deliveries_total{"));
    assert_eq!(get(&home, "/metrics", &scrape(OTHER)).status, 401);

    home.put("token", OTHER.as_bytes());
    let diff = home.verb(&["check", "--diff"]);
    assert!(String::from_utf8_lossy(&diff.stderr).contains("found 401 Unauthorized: authorization: "), "{diff:?}");
    assert!(process.reload(), "a token can change without a restart");
    assert_eq!((get(&home, "/metrics", &scrape(TOKEN)).status, get(&home, "/metrics", &scrape(OTHER)).status), (401, 200));
    let diff = home.verb(&["check", "--diff"]);
    assert!(diff.status.success() && String::from_utf8_lossy(&diff.stdout).ends_with(": none\n"), "{diff:?}");
    assert!(!home.log().contains(TOKEN) && !home.log().contains(OTHER), "the log contains no token");
}

/// A Prometheus server that scrapes `target` every second with the token in a file.
struct Prometheus {
    address: SocketAddr,
    child: Child,
    dir: tempfile::TempDir,
    _reserved: UdpSocket,
}

impl Prometheus {
    fn start(target: SocketAddr, token: &str) -> Prometheus {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/ can be written to");
        let (address, reserved) = reserve();
        fs::write(dir.path().join("token"), token).expect("target/ can be written to");
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n- job_name: hookhold\n  authorization:\n    \
             credentials_file: token\n  static_configs:\n  - targets: [\"{target}\"]\n"
        );
        fs::write(dir.path().join("prometheus.yml"), config).expect("target/ can be written to");
        let log = fs::File::create(dir.path().join("log")).expect("target/ can be written to");
        let mut command = tool("prometheus");
        command.current_dir(dir.path()).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        let child = command.arg(format!("--web.listen-address={address}")).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start prometheus: {error}; run tests/run, which unpacks it"));
        Prometheus { address, child, dir, _reserved: reserved }
    }

    /// Waits until Prometheus has scraped the target, and returns its description of the target.
    fn scraped(&mut self) -> String {
        let mut page = String::new();
        wait_until("Prometheus has scraped hookhold", || {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "{ended:?}: {}", fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
            page = self.get("/api/v1/targets?state=active");
            page.contains("\"health\":\"up\"") || page.contains("\"health\":\"down\"")
        });
        page
    }

    fn get(&self, path: &str) -> String {
        let Some(mut line) = Line::try_open(self.address) else { return String::new() };
        line.send(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        String::from_utf8_lossy(&line.rest()).into_owned()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_prometheus_server_with_the_token_scrapes_hookhold() {
    let home = home();
    let _process = home.start();
    let mut prometheus = Prometheus::start(home.admin, TOKEN);
    let target = prometheus.scraped();
    assert!(target.contains("\"health\":\"up\""), "{target}");
    wait_until("Prometheus has stored a sample", || {
        prometheus.get("/api/v1/query?query=hookhold_journal_limit_bytes").contains("\"value\":[")
    });
    let target = Prometheus::start(home.admin, OTHER).scraped();
    assert!(target.contains("\"health\":\"down\"") && target.contains("401"), "{target}");
}
