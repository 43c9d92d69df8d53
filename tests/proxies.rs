//! Tests hookhold behind nginx, Caddy and HAProxy, as packaged by Debian. The configuration of each proxy is a code block of
//! `docs/deploy.md`. In further tests, untrusted peers send proxy headers.

#[path = "common/h2.rs"]
mod h2;
#[path = "common/h2_frames.rs"]
mod h2_frames;
#[path = "common/https.rs"]
mod https;
#[path = "proxies/idle.rs"]
mod idle;
#[path = "proxies/malformed.rs"]
mod malformed;
#[path = "common/malformed.rs"]
mod malformed_requests;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "proxies/relay.rs"]
mod relay;
#[path = "common/sdk.rs"]
mod sdk;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{ReadOnlyJournal, StoredEvent};
use https::{Delivery, HOST, Pair, SECRET, SOURCE, curl_status};
use ports::reserve;
use process::{Home, Line, post, tool, wait_until};
use sdk::{Sample, Sdk};

/// A running proxy. The proxy's configuration is a code block of `docs/deploy.md`, in which the test has replaced the addresses
/// and the file names.
struct ProxyProcess {
    address: SocketAddr,
    child: Child,
    dir: tempfile::TempDir,
    _reserved: UdpSocket,
}

impl ProxyProcess {
    /// Starts the proxy `name` in front of `upstream`. The proxy's configuration is the first code block of `docs/deploy.md`
    /// that has the language tag `language`.
    fn start(name: &str, language: &str, upstream: SocketAddr, pair: &Pair) -> ProxyProcess {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/ can be written to");
        let (address, reserved) = reserve();
        let both = dir.path().join("both.pem");
        let texts = [pair.cert(), pair.key()].map(|file| fs::read_to_string(file).expect("the test wrote it"));
        fs::write(&both, texts.concat()).expect("target/ can be written to");
        let (cert, key, both) = (pair.cert(), pair.key(), both.display().to_string());
        let (cert, key) = (cert.display().to_string(), key.display().to_string());
        let port = address.port();
        let text = [
            ("127.0.0.1:8080", upstream.to_string()),
            ("listen 443", format!("listen {address}")),
            ("bind :443", format!("bind {address}")),
            ("hooks.example.com {\n", format!("https://{HOST}:{port} {{\n    tls {cert} {key}\n")),
            ("/etc/ssl/hooks/fullchain.pem", cert.clone()),
            ("/etc/ssl/hooks/privkey.pem", key.clone()),
            ("/etc/haproxy/hooks.pem", both),
        ]
        .into_iter()
        .fold(snippet(language, 0), |text, (from, to)| text.replace(from, &to));
        let mut command = tool(name);
        let file = dir.path().join(name);
        let path = file.to_str().expect("a path in target/");
        let (text, args) = match name {
            "nginx" => (nginx(dir.path(), &text), vec!["-p", ".", "-c", path]),
            "caddy" => (
                format!("{{\n    admin off\n    auto_https off\n    servers {{\n        protocols h1 h2\n    }}\n}}\n{text}"),
                vec!["run", "--adapter", "caddyfile", "--config", path],
            ),
            _ => (text, vec!["-db", "-f", path]),
        };
        fs::write(&file, text).expect("target/ can be written to");
        let log = fs::File::create(dir.path().join("log")).expect("target/ can be written to");
        command
            .args(args)
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME");
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {name}: {error}; run tests/run, which unpacks it"));
        let mut proxy = ProxyProcess { address, child, dir, _reserved: reserved };
        wait_until("the proxy listens", || {
            let ended = proxy.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "{name}: {ended:?}\n{}", proxy.log());
            Line::try_open(address).is_some()
        });
        proxy
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the proxy:\n{}", self.log());
        }
    }
}

/// Returns a code block of `docs/deploy.md`: the block with the index `nth`, counted from 0, among the blocks with the language
/// tag `language`.
fn snippet(language: &str, nth: usize) -> String {
    let page = include_str!("../docs/deploy.md");
    let block = page.split(&format!("```{language}\n")).nth(nth + 1).and_then(|rest| rest.split("```").next());
    block.unwrap_or_else(|| panic!("docs/deploy.md has no block {nth} in {language}")).to_owned()
}

/// Returns an nginx configuration that contains the block `server`. With this configuration, nginx runs as a single process
/// and writes only to the directory `dir`.
fn nginx(dir: &Path, server: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.map(|kind| format!("{kind}_temp_path {};\n", dir.join(kind).display())).concat();
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
    )
}

/// Creates a `Home` with a `[server]` section from `docs/deploy.md`: the block with the index `nth`, counted from 0. Omits the
/// listen address and the certificate of this block. `more` contains additional options.
fn home(nth: usize, more: &str) -> Home {
    let server: String = snippet("toml\n[server]", nth)
        .lines()
        .filter(|line| !line.starts_with("listen") && !line.starts_with("tls_"))
        .map(|line| format!("server.{line}\n"))
        .collect();
    let twilio = "[sources.twilio]\nprovider = \"twilio\"\nsecrets = [\"file:twilio\"]\n";
    Home::new(&[("github", SECRET), ("twilio", TOKEN)], &format!("{server}{more}{SOURCE}{twilio}"))
}

/// Returns the sender address of each stored event, in journal order.
fn stored(home: &Home) -> Vec<IpAddr> {
    let disk = LocalDisk::existing(&home.journal()).expect("a journal");
    let mut journal = ReadOnlyJournal::open(Arc::new(disk)).expect("a readable journal");
    let next = || journal.next().expect("a readable journal");
    std::iter::from_fn(next).map(|StoredEvent { event, .. }| event.request().remote.ip()).collect()
}

/// Returns the sender address of each logged rejection with this outcome.
fn rejected(home: &Home, outcome: &str) -> Vec<String> {
    let log = home.log();
    let lines = log.lines().filter(|line| line.contains(&format!("outcome=\"{outcome}\"")));
    let address = |line: &str| Some(line.split_once("remote=")?.1.split_once(':')?.0.to_owned());
    lines.map(|line| address(line).expect("a rejection is logged with its address")).collect()
}

/// `curl` options for a sender whose address differs from the proxy's address, and whose X-Forwarded-For header names a
/// third address.
const SENDER: [&str; 4] = ["--interface", "127.0.0.3", "-H", "X-Forwarded-For: 6.6.6.6"];
const SENDERS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

fn deliver_through(proxy: &ProxyProcess, home: &Home, pair: &Pair) {
    for version in ["--http1.1", "--http2"] {
        let args = [&SENDER[..], &[version]].concat();
        assert!(Delivery::new(version).send(proxy.address, Some(pair), &args).starts_with("200 "));
    }
    let mut forged = Delivery::new("forged").curl(proxy.address, Some(pair));
    let forged = forged.args(SENDER).args(["--data-binary", "another body"]).output().expect("curl starts");
    assert!(curl_status(&forged).starts_with("401 "));
    assert_eq!(curl_status(&twilio(proxy, pair).output().expect("curl starts")), "200 2");
    assert_eq!(stored(home), [SENDERS_ADDRESS; 3]);
    assert_eq!(rejected(home, "signature_mismatch"), ["127.0.0.3"]);
}

/// Returns a `curl` command that sends a Twilio form to the proxy. Twilio's SDK has signed the form for the public URL.
fn twilio(proxy: &ProxyProcess, pair: &Pair) -> Command {
    let body = b"MessageSid=SM1&MessageStatus=delivered&Body=a+b";
    let sample = Sample { scheme: "twilio", secret: TOKEN, id: "one", timestamp: 0, body };
    let signed = Sdk::start().sign_for_url(sample, &format!("https://{HOST}/hooks/twilio?shop=1%2F2"));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"])
        .args(SENDER);
    for (name, value) in &signed.headers {
        curl.arg("-H").arg(format!("{name}: {value}"));
    }
    curl.arg("--data-binary").arg(std::str::from_utf8(body).expect("text")).arg("--cacert").arg(pair.cert());
    curl.args(["--resolve", &format!("{HOST}:{}:127.0.0.1", proxy.address.port())]);
    curl.arg(format!("https://{HOST}:{}/hooks/twilio?shop=1%2F2", proxy.address.port()));
    curl
}

#[test]
fn behind_nginx_the_senders_address_counts_and_twilio_verifies() {
    let (home, pair) = (home(1, ""), Pair::new(30));
    let _process = home.start();
    deliver_through(&ProxyProcess::start("nginx", "nginx", home.hooks, &pair), &home, &pair);
}

#[test]
fn behind_caddy_the_senders_address_counts_and_twilio_verifies() {
    let (home, pair) = (home(1, ""), Pair::new(30));
    let _process = home.start();
    deliver_through(&ProxyProcess::start("caddy", "caddy", home.hooks, &pair), &home, &pair);
}

#[test]
fn the_proxy_protocol_of_haproxy_names_the_senders_address() {
    let (home, pair) = (home(2, ""), Pair::new(30));
    let _process = home.start();
    deliver_through(&ProxyProcess::start("haproxy", "haproxy", home.hooks, &pair), &home, &pair);
}

#[test]
fn haproxy_forwards_tls_and_still_names_the_senders_address() {
    let pair = Pair::new(30);
    let home = home(2, &pair.config());
    let _process = home.start();
    deliver_through(&ProxyProcess::start("haproxy", "haproxy-tcp", home.hooks, &pair), &home, &pair);
}

#[test]
fn x_forwarded_for_from_an_untrusted_peer_is_ignored() {
    let home = Home::new(&[("github", SECRET)], &format!("server.trusted_proxies = [\"127.0.0.9\"]\n{SOURCE}"));
    let _process = home.start();
    assert_eq!(Delivery::new("one").send(home.hooks, None, &SENDER), "200 1.1");
    assert_eq!(Delivery::new("two").send(home.hooks, None, &["--interface", "127.0.0.9", "-H", SENDER[3]]), "200 1.1");
    assert_eq!(
        stored(&home),
        [SENDERS_ADDRESS, IpAddr::V4(Ipv4Addr::new(6, 6, 6, 6))],
        "only the header of the trusted peer is used"
    );
}

/// Returns a PROXY protocol v2 header with the source address `client`. `command` is 1 (PROXY) for a client's connection,
/// or 0 (LOCAL) for a connection of the proxy itself.
fn proxy_header(command: u8, client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12]);
    header.extend(client);
    header.extend([127, 0, 0, 1, 0x10, 0x00, 0x1f, 0x90]);
    header
}

#[test]
fn only_a_trusted_peer_may_send_a_proxy_header() {
    let config = |trusted: &str| format!("server.trusted_proxies = [\"{trusted}\"]\nserver.proxy_protocol = true\n{SOURCE}");
    let home = Home::new(&[("github", SECRET)], &config("127.0.0.1"));
    let request = |id: &str| {
        let delivery = Delivery::new(id);
        post("/hooks/github", &delivery.headers(), delivery.body.as_bytes())
    };
    let process = home.start();
    let mut line = Line::open(home.hooks);
    for byte in proxy_header(1, [192, 0, 2, 7]) {
        line.send(&[byte]);
    }
    assert_eq!(line.ask(&request("proxied")).status, 200);
    assert_eq!(line.ask(&request("on the same connection")).status, 200);
    let mut own = Line::open(home.hooks);
    assert_eq!(own.ask(&[proxy_header(0, [192, 0, 2, 8]), request("the proxy's own")].concat()).status, 200);
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    assert_eq!(stored(&home), [client, client, IpAddr::V4(Ipv4Addr::LOCALHOST)]);

    for broken in [request("without"), [&proxy_header(1, [0; 4])[..13], &[0x99, 0xff, 0xff], &[b'x'; 40]].concat()] {
        let mut line = Line::open(home.hooks);
        line.send(&broken);
        assert_eq!(line.answer().status, 400);
    }
    assert_eq!(rejected(&home, "bad_request"), ["127.0.0.1"; 2]);
    drop(process);

    home.configure(&config("127.0.0.9"));
    let process = home.start();
    let mut forged = Line::open(home.hooks);
    assert_eq!(forged.ask(&[proxy_header(1, [192, 0, 2, 9]), request("forged")].concat()).status, 400);
    // If hyper rejects a request, hookhold logs the rejection only after the connection is closed.
    wait_until("the rejection is logged", || rejected(&home, "bad_request").len() == 3);
    assert_eq!(rejected(&home, "bad_request"), ["127.0.0.1"; 3]);
    assert_eq!(Line::open(home.hooks).ask(&request("honest")).status, 200);
    assert_eq!(process.metric("hookhold_deliveries_total{outcome=\"stored\",source=\"github\"}"), Some(1.0));
    assert_eq!(stored(&home).last(), Some(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
}

#[test]
fn each_client_behind_a_proxy_has_its_own_limits() {
    let limits = "server.max_connections_per_address = 1\nserver.max_rejected_per_address = \"1/h\"\n";
    let home = Home::new(&[("github", SECRET)], &format!("server.trusted_proxies = [\"127.0.0.1\"]\n{limits}{SOURCE}"));
    let process = home.start();
    let (mut one, mut other) = (Line::open(home.hooks), Line::open(home.hooks));
    let request = |id: &str, client: &str, body: &str| {
        let forwarded = [("x-forwarded-for".to_owned(), client.to_owned())];
        post("/hooks/github", &[Delivery::new(id).headers(), forwarded.to_vec()].concat(), body.as_bytes())
    };
    let limited = || process.metric("hookhold_addresses_limited_total");
    assert_eq!(one.ask(&request("one", "192.0.2.2", &Delivery::new("one").body)).status, 200);
    assert_eq!(one.ask(&request("forged", "192.0.2.2", "another body")).status, 401);
    assert_eq!(limited(), Some(0.0), "this client is known good");
    assert_eq!(one.ask(&request("forged", "192.0.2.1", "another body")).status, 401);
    assert_eq!(limited(), Some(1.0), "this client is not");
    assert_eq!(other.ask(&request("two", "192.0.2.1", &Delivery::new("two").body)).status, 200);
    drop(process);

    home.configure(&format!("server.trusted_proxies = [\"127.0.0.1\"]\nserver.proxy_protocol = true\n{limits}{SOURCE}"));
    let _process = home.start();
    let connect = |sent: &[u8]| {
        let mut line = Line::open(home.hooks);
        line.send(&proxy_header(1, [192, 0, 2, 3]));
        let answer = line.ask(sent);
        (line, answer.status)
    };
    let delivery = Delivery::new("last");
    let (mut first, status) = connect(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(status, 404);
    let (_second, status) = connect(&post("/hooks/github", &delivery.headers(), delivery.body.as_bytes()));
    assert_eq!((status, first.rest()), (200, Vec::new()), "each client may open one connection, and the newer one stays");
}

const TOKEN: &str = "12345678901234567890123456789012";
