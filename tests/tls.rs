//! Tests TLS versions, handshakes without a request, HTTP/2, and the replacement of a certificate under load. The clients are
//! curl and openssl, which connect to the real binary over HTTPS.

#[path = "common/h2.rs"]
mod h2;
#[path = "common/https.rs"]
mod https;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/sdk.rs"]
mod sdk;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use h2::{Client, PausableRelay};
use http::StatusCode;
use https::{Delivery, HOST, Pair, SECRET, SOURCE, curl_status, s_client, served_fingerprint, x509};
use process::{Home, Line, wait_until};
use rustix::process::Signal;

/// Creates a `Home` whose gateway serves HTTPS with the certificate `pair`. `server` contains additional options for
/// `[server]`.
fn home(pair: &Pair, server: &str) -> Home {
    let server = server.lines().map(|line| format!("server.{line}\n")).collect::<String>();
    Home::new(&[("github", SECRET)], &format!("{}server.drain_delay = \"0s\"\n{server}{SOURCE}", pair.config()))
}

fn count(process: &process::Process<'_>, source: &str, outcome: &str) -> u64 {
    process.deliveries()[&(source.to_owned(), outcome.to_owned())]
}

#[test]
fn https_deliveries_are_stored_over_both_http_versions() {
    let pair = Pair::new(365);
    let home = home(&pair, "");
    let process = home.start();
    for (version, option) in [("1.1", "--http1.1"), ("2", "--http2")] {
        for (protocol, tls) in [("1.2", "--tls-max"), ("1.3", "--tls-max")] {
            let delivery = Delivery::new(&format!("{version}-{protocol}"));
            assert_eq!(delivery.send(home.hooks, Some(&pair), &[option, tls, protocol]), format!("200 {version}"));
            assert_eq!(delivery.send(home.hooks, Some(&pair), &[option, tls, protocol]), format!("200 {version}"));
        }
    }
    assert_eq!((count(&process, "github", "stored"), count(&process, "github", "duplicate")), (4, 4));
    let forged = ["-H", "x-hub-signature-256: sha256=00", "--http2"];
    let mut curl = Delivery::new("forged").curl(home.hooks, Some(&pair));
    assert_eq!(curl_status(&curl.args(["--data-binary", "{}"]).args(forged).output().expect("curl starts")), "401 2");
}

#[test]
fn tls_versions_below_1_2_are_rejected() {
    let pair = Pair::new(365);
    let home = home(&pair, "");
    let process = home.start();
    for (option, wanted) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let output = s_client(home.hooks, &[option]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(&format!("New, {wanted}, Cipher is ")), "{text}");
    }
    let before = count(&process, "-", "bad_request");
    let output = s_client(home.hooks, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("alert"), "{output:?}");
    wait_until("the outcome is counted", || count(&process, "-", "bad_request") == before + 1);
}

#[test]
fn plain_http_on_the_tls_port_gets_a_400() {
    let pair = Pair::new(365);
    let home = home(&pair, "");
    let process = home.start();
    let answer = Line::open(home.hooks).ask(b"POST /hooks/github HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body, b"connection: expected HTTPS, found plain text; use a URL that begins with https://\n");
    assert_eq!(count(&process, "-", "bad_request"), 1);
    assert_eq!(Delivery::new("plain").send(home.hooks, None, &[]), "400 1.1");
}

#[test]
fn an_unfinished_handshake_closes_and_counts_as_too_slow() {
    let pair = Pair::new(365);
    let home = home(&pair, "handshake_timeout = \"100ms\"");
    let process = home.start();
    let (mut silent, mut started) = (Line::open(home.hooks), Line::open(home.hooks));
    started.send(&[22, 3, 1]);
    assert_eq!((silent.rest(), started.rest()), (Vec::new(), Vec::new()));
    wait_until("the outcome is counted", || count(&process, "-", "too_slow") == 1);
    assert_eq!(process.deliveries().values().sum::<u64>(), 1, "a connection without a byte is not counted");
}

#[test]
fn an_unfinished_handshake_makes_room_for_a_newer_connection() {
    let pair = Pair::new(365);
    let home = home(&pair, "max_connections = 1\nhandshake_timeout = \"1m\"");
    let process = home.start();
    for sent in [&[][..], &[22, 3, 1]] {
        let mut started = Line::open(home.hooks);
        started.send(sent);
        let next = Line::open(home.hooks);
        assert_eq!(started.rest(), b"");
        drop(next);
    }
    wait_until("the outcome is counted", || count(&process, "-", "rate_limited") == 1);
    // The evicted connection may record its outcome before the listener counts the eviction.
    let evicted = || process.metric("hookhold_connections_rejected_total{cause=\"max_connections\"}");
    wait_until("both evictions are counted", || evicted() >= Some(2.0));
    assert_eq!(Delivery::new("next").send(home.hooks, Some(&pair), &[]), "200 2");
}

#[test]
fn a_certificate_replaced_under_load_fails_no_delivery() {
    let (pair, next) = (Pair::new(365), Pair::new(365));
    let home = home(&pair, "");
    let both = home.journal().with_file_name("both");
    let texts = [pair.cert(), next.cert()].map(|cert| fs::read_to_string(cert).expect("the test wrote it"));
    fs::write(&both, texts.concat()).expect("target/ can be written to");
    let process = home.start();
    let old = pair.fingerprint();
    let send = ["send", "github", "--rate", "2000", "--count", "12000", "--connections", "32", "--format", "json"];
    let load = std::thread::scope(|scope| {
        let load = scope.spawn(|| home.verb(&send));
        wait_until("the load runs", || count(&process, "github", "stored") > 2000);
        assert_eq!(served_fingerprint(home.hooks), old);
        pair.replace_with(&next.cert(), &next.key());
        let mut fresh = 0;
        wait_until("the new certificate is served", || {
            fresh += 1;
            let trust = ["--cacert", both.to_str().expect("a path in target/")];
            assert_eq!(Delivery::new(&format!("fresh-{fresh}")).send(home.hooks, Some(&pair), &trust), "200 2");
            served_fingerprint(home.hooks) == next.fingerprint()
        });
        assert!(!load.is_finished(), "the load must run until the new certificate is served");
        load.join().expect("no panic")
    });
    assert_eq!(load.status.code(), Some(0), "{}", String::from_utf8_lossy(&load.stdout));
    assert!(count(&process, "github", "stored") >= 12000);
    assert_eq!(
        process.deliveries().into_iter().filter(|((_, outcome), n)| outcome != "stored" && *n > 0).collect::<Vec<_>>(),
        []
    );
}

#[test]
fn a_broken_new_certificate_is_reported_and_not_used() {
    let (pair, other, old) = (Pair::new(365), Pair::new(365), Pair::new(365));
    old.replace_with(&pair.cert(), &pair.key());
    let home = home(&pair, "");
    let _process = home.start();
    let reports = || home.log().matches("cannot use the new TLS certificate; the previous certificate stays in use").count();
    pair.replace_with(&other.cert(), &old.key());
    wait_until("a key of another certificate is reported", || reports() == 1);
    assert!(home.log().contains("found the key of another"), "{}", home.log());
    fs::write(pair.cert(), "nothing").expect("target/ can be written to");
    wait_until("a text without a certificate is reported", || reports() == 2);
    assert_eq!(served_fingerprint(home.hooks), old.fingerprint());
    assert_eq!(Delivery::new("old").send(home.hooks, Some(&old), &[]), "200 2");
    pair.replace_with(&other.cert(), &other.key());
    wait_until("the repaired files are served", || served_fingerprint(home.hooks) == other.fingerprint());
}

#[test]
fn a_new_certificate_with_equal_metadata_is_used() {
    let (pair, next) = (Pair::new(365), Pair::new(365));
    let put = |mut pem: Vec<u8>, to: &Path| {
        pem.resize(4096, b'\n');
        fs::write(to, pem).expect("target/ can be written to");
        File::options()
            .write(true)
            .open(to)
            .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH))
            .expect("a file of this test");
    };
    let put_each = |from: &Pair| {
        for (from, to) in [(from.cert(), pair.cert()), (from.key(), pair.key())] {
            put(fs::read(from).expect("the test wrote it"), &to);
        }
    };
    put_each(&pair);
    let home = home(&pair, "");
    let _process = home.start();
    assert_eq!(served_fingerprint(home.hooks), pair.fingerprint());
    put_each(&next);
    wait_until("the next certificate is served", || served_fingerprint(home.hooks) == next.fingerprint());
}

#[test]
fn sighup_loads_another_certificate_and_rejects_a_wrong_one() {
    let (pair, next) = (Pair::new(365), Pair::new(365));
    let home = home(&pair, "");
    let process = home.start();
    home.configure(
        &format!("{}{SOURCE}", next.config()).replace("server.tls_key", "server.drain_delay = \"0s\"\nserver.tls_key"),
    );
    process.signal(Signal::HUP);
    wait_until("the other certificate is served", || served_fingerprint(home.hooks) == next.fingerprint());
    home.configure(&format!(
        "server.drain_delay = \"0s\"\nserver.tls_cert = {:?}\nserver.tls_key = {:?}\n{SOURCE}",
        pair.cert(),
        next.key()
    ));
    process.signal(Signal::HUP);
    wait_until("the rejected configuration is logged", || home.log().contains("configuration not reloaded"));
    assert!(home.log().contains("server.tls_key"), "{}", home.log());
    home.configure(SOURCE);
    process.signal(Signal::HUP);
    wait_until("the log reports that plain HTTP needs a restart", || {
        home.log().matches("this change needs a restart").count() > 0
    });
    assert_eq!(served_fingerprint(home.hooks), next.fingerprint());
    assert_eq!(Delivery::new("stored").send(home.hooks, Some(&next), &[]), "200 2");
}

#[test]
fn certificate_expiry_is_a_metric_and_a_daily_warning() {
    for (days, lines) in [(29, 1), (60, 0)] {
        let (pair, later) = (Pair::new(days), Pair::new(days));
        let home = home(&pair, "");
        let process = home.start();
        let end = x509(&fs::read(pair.cert()).expect("the test wrote it"), &["-enddate", "-dateopt", "iso_8601"]);
        let end = end.strip_prefix("notAfter=").expect("a date").replace(' ', "T");
        let end = end.parse::<jiff::Timestamp>().expect("ISO 8601").as_second();
        assert_eq!(process.metric("hookhold_tls_certificate_expiry_timestamp_seconds"), Some(end as f64));
        // The gateway checks the expiry whenever it checks the files, but logs the warning at most once a day.
        pair.replace_with(&later.cert(), &later.key());
        wait_until("the other certificate is served", || served_fingerprint(home.hooks) == later.fingerprint());
        assert_eq!(home.log().matches("the TLS certificate expires soon").count(), lines, "{}", home.log());
    }
}

#[test]
fn without_tls_no_certificate_expiry_is_exported() {
    let home = Home::new(&[("github", SECRET)], SOURCE);
    assert_eq!(home.start().metric("hookhold_tls_certificate_expiry_timestamp_seconds"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_http_2_body_gets_408_alone() {
    let pair = Pair::new(365);
    let home = home(&pair, "request_deadline = \"500ms\"");
    let process = home.start();
    let mut client = Client::connect(home.hooks, &pair).await;
    let (slow, quick) = (Delivery::new("slow"), Delivery::new("quick"));
    let mut half = client.start(&slow).await;
    half.send(&slow.body[..10]).await;
    let mut whole = client.start(&quick).await;
    whole.send(&quick.body).await;
    assert_eq!(whole.status().await, 200);
    assert_eq!(half.status().await, 408);
    assert_eq!((count(&process, "github", "stored"), count(&process, "github", "too_slow")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_completes_http_2_requests_before_closing_the_connection() {
    let pair = Pair::new(365);
    let home = home(&pair, "request_deadline = \"10m\"\nmin_rate_after = \"10m\"\ndrain_deadline = \"1h\"");
    let process = home.start();
    let mut client = Client::connect(home.hooks, &pair).await;
    let delivery = Delivery::new("across");
    let mut across = client.start(&delivery).await;
    across.send(&delivery.body[..5]).await;
    // The client takes the second piece only after it has opened the stream, which it may no longer do after a GOAWAY.
    across.send(&delivery.body[5..10]).await;
    process.signal(Signal::TERM);
    wait_until("new connections fail", || Line::try_open(home.hooks).is_none());
    across.send(&delivery.body[10..]).await;
    assert_eq!(across.status().await, 200);
    client.closed().await;
    assert_eq!(process.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_http_2_connection_closes_after_request_deadline() {
    let pair = Pair::new(365);
    let home = home(&pair, "request_deadline = \"100ms\"\nidle_timeout = \"1h\"");
    let process = home.start();
    Client::connect(home.hooks, &pair).await.closed().await;
    assert!(process.deliveries().values().all(|count| *count == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_requests_that_cross_the_goaway_are_stored() {
    let pair = Pair::new(365);
    let home = home(&pair, "handshake_timeout = \"3s\"\ndrain_deadline = \"1h\"");
    let process = home.start();
    let relay = PausableRelay::to(home.hooks).await;
    let mut client = Client::connect(relay.address, &pair).await;
    assert_eq!(client.deliver(&Delivery::new("before")).await, 200);
    // The server closes this connection after handshake_timeout. By then, the connection of `client` has been idle for longer
    // than the linger time of a drain.
    assert_eq!(Line::open(home.hooks).rest(), b"");
    relay.hold();
    process.signal(Signal::TERM);
    relay.has_held_back().await;
    let crossing = Delivery::new("crossing");
    let mut request = client.start(&crossing).await;
    request.send(&crossing.body).await;
    wait_until("the request is stored", || count(&process, "github", "stored") == 2);
    relay.release();
    assert_eq!(request.status().await, 200);
    client.closed().await;
    assert_eq!(process.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_http_2_requests_get_503_at_drain_deadline() {
    let pair = Pair::new(365);
    let home = home(&pair, "request_deadline = \"10m\"\nmin_rate_after = \"10m\"\ndrain_deadline = \"1s\"");
    let process = home.start();
    let mut client = Client::connect(home.hooks, &pair).await;
    let delivery = Delivery::new("unfinished");
    let mut unfinished = client.start(&delivery).await;
    unfinished.send(&delivery.body[..10]).await;
    process.signal(Signal::TERM);
    assert_eq!(unfinished.status().await, 503);
    assert_eq!(process.wait().code(), Some(0));
    assert!(home.log().contains("outcome=\"draining\""), "{}", home.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_max_streams_wait_for_the_earlier_ones() {
    let pair = Pair::new(365);
    let home = home(&pair, "max_streams = 1\nmin_rate_after = \"10m\"");
    let process = home.start();
    let mut client = Client::connect(home.hooks, &pair).await;
    let [zeroth, first, second] = ["zeroth", "first", "second"].map(Delivery::new);
    assert_eq!(client.deliver(&zeroth).await, 200, "the client has received max_streams by now");
    let mut held = client.start(&first).await;
    held.send(&first.body[..10]).await;
    let mut next = client.start(&second).await;
    next.send(&second.body).await;
    held.send(&first.body[10..]).await;
    assert_eq!((held.status().await, next.status().await), (StatusCode::OK, StatusCode::OK));
    assert_eq!(count(&process, "github", "stored"), 3);
    let tail = home.verb(&["tail", "--from", "0", "--format", "json"]);
    let ids = ["zeroth", "first", "second"].map(|id| format!("\"id\":\"{id}\""));
    for (line, id) in String::from_utf8_lossy(&tail.stdout).lines().zip(ids) {
        assert!(line.contains(&id), "expected {id}, found {line}");
    }
}

#[test]
fn a_partial_http_2_body_is_counted_as_disconnected() {
    let pair = Pair::new(365);
    let home = home(&pair, "");
    let process = home.start();
    let sender = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let open = sender.block_on(async {
        let mut client = Client::connect(home.hooks, &pair).await;
        let delivery = Delivery::new("partial");
        let mut partial = client.start(&delivery).await;
        partial.send(&delivery.body[..10]).await;
        let mut whole = client.start(&delivery).await;
        whole.send(&delivery.body).await;
        assert_eq!(whole.status().await, 200, "the server has therefore read the partial request");
        (client, partial)
    });
    sender.shutdown_background();
    drop(open);
    wait_until("the outcome is counted", || count(&process, "github", "disconnected") == 1);
}

#[test]
fn oversized_heads_get_431_over_both_http_versions() {
    let pair = Pair::new(365);
    let home = home(&pair, "max_header_size = \"8 KiB\"\nmax_headers = 16");
    let process = home.start();
    let long = format!("x-long: {}", "a".repeat(9000));
    let many: Vec<String> = (0..20).flat_map(|n| ["-H".to_owned(), format!("x-{n}: y")]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for version in ["--http1.1", "--http2"] {
        let delivery = Delivery::new(version);
        assert!(delivery.send(home.hooks, Some(&pair), &["-H", &long, version]).starts_with("431 "));
        assert!(delivery.send(home.hooks, Some(&pair), &[&many[..], &[version]].concat()).starts_with("431 "));
    }
    assert_eq!(count(&process, "-", "bad_request"), 4);
}

#[test]
fn many_small_header_fields_pass_over_both_http_versions() {
    let pair = Pair::new(365);
    let home = home(&pair, "max_header_size = \"8 KiB\"\nmax_headers = 1000");
    let _process = home.start();
    let fields: Vec<String> = (0..500).flat_map(|n| ["-H".to_owned(), format!("x-{n}: y")]).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    for (version, option) in [("1.1", "--http1.1"), ("2", "--http2")] {
        let answer = Delivery::new(version).send(home.hooks, Some(&pair), &[&fields[..], &[option]].concat());
        assert_eq!(answer, format!("200 {version}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_address_is_verified_over_http_2() {
    let pair = Pair::new(365);
    let home = home(&pair, "max_rejected_per_address = \"1/h\"");
    let process = home.start();
    let mut client = Client::connect(home.hooks, &pair).await;
    let forged = Delivery { body: "{}".to_owned(), ..Delivery::new("forged") };
    let headers = Delivery::new("forged").headers();
    for (path, status) in [("/unknown", 404), ("/hooks/github", 401), ("/hooks/github", 401), ("/unknown", 404)] {
        let mut request = client.post(path, &headers, forged.body.len()).await;
        request.send(&forged.body).await;
        assert_eq!(request.status().await.as_u16(), status);
    }
    assert_eq!(process.metric("hookhold_addresses_limited_total"), Some(1.0));
    assert_eq!(client.deliver(&Delivery::new("genuine")).await.as_u16(), 200);
    assert_eq!((count(&process, "github", "stored"), count(&process, "github", "rate_limited")), (1, 0));
}

#[test]
fn many_requests_on_one_http_2_connection_are_stored() {
    let pair = Pair::new(365);
    let home = home(&pair, "max_connections = 1");
    let process = home.start();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "--max-time", "60", "-Z", "--parallel-max", "50", "--http2", "--cacert"])
        .arg(pair.cert());
    for number in 0..50 {
        let delivery = Delivery::new(&format!("many-{number}"));
        if number > 0 {
            curl.arg("--next");
        }
        curl.args(["-sS", "--http2", "--resolve", &format!("{HOST}:{}:{}", home.hooks.port(), home.hooks.ip()), "--cacert"]);
        curl.arg(pair.cert()).args(["-o", "/dev/null", "-w", "%{http_code}\n", "--data-binary", &delivery.body]);
        for (name, value) in delivery.headers() {
            curl.arg("-H").arg(format!("{name}: {value}"));
        }
        curl.arg(format!("https://{HOST}:{}/hooks/github", home.hooks.port()));
    }
    let output = curl.output().expect("curl starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200\n".repeat(50), "{output:?}");
    assert_eq!(count(&process, "github", "stored"), 50);
}

#[test]
fn a_limited_address_still_gets_a_tls_handshake() {
    let pair = Pair::new(365);
    let home = home(&pair, "max_rejected_per_address = \"1/h\"");
    let process = home.start();
    for _ in 0..3 {
        let mut forged = Delivery::new("forged").curl(home.hooks, Some(&pair));
        let output = forged.args(["--data-binary", "forged"]).output().expect("curl starts");
        assert!(curl_status(&output).starts_with("401 "));
    }
    assert_eq!(process.metric("hookhold_addresses_limited_total"), Some(1.0));
    assert_eq!(Delivery::new("genuine").send(home.hooks, Some(&pair), &[]), "200 2");
}

#[test]
fn a_handshake_without_a_request_counts_like_a_rejection() {
    let pair = Pair::new(365);
    let home = home(&pair, "max_rejected_per_address = \"3/h\"");
    let process = home.start();
    let handshake = |from: &str, protocol: &str| {
        let from = format!("{from}:0");
        s_client(home.hooks, &["-bind", &from, "-alpn", protocol]).status.success()
    };
    let start = |from: [u8; 4]| {
        let mut started = Line::open_from(from.into(), home.hooks);
        started.send(&[22, 3, 1]);
        started.half_close();
        started.rest();
    };
    let tracked = || process.metric("hookhold_addresses_tracked");
    for _ in 0..10 {
        drop(Line::open_from([127, 0, 0, 9].into(), home.hooks));
    }
    wait_until("an address that sent nothing is no longer tracked", || tracked() == Some(0.0));
    assert!(handshake("127.0.0.9", "h2"));
    let limited = || process.metric("hookhold_addresses_limited_total");
    wait_until("an HTTP/1.1 client is limited", || handshake("127.0.0.2", "http/1.1") && limited() == Some(1.0));
    wait_until("an HTTP/2 client is limited", || handshake("127.0.0.3", "h2") && limited() == Some(2.0));
    wait_until("a client with incomplete handshakes is limited", || (start([127, 0, 0, 4]), limited() == Some(3.0)).1);
    assert!(Delivery::new("genuine").send(home.hooks, Some(&pair), &["--interface", "127.0.0.5"]).starts_with("200 "));
}
