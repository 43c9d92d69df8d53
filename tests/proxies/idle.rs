//! Checks that no proxy loses a delivery to the idle timeout of hookhold: the proxy closes an idle connection before hookhold does,
//! or the connection stays open.

use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::h2::Client;
use super::https::{Delivery, Pair};
use super::process::Home;
use super::relay::{ClosedBy, RecordingRelay};
use super::{ProxyProcess, home};

/// A proxy in front of hookhold, with a relay between both.
struct Path {
    name: &'static str,
    proxy: ProxyProcess,
    relay: RecordingRelay,
}

#[test]
#[ignore = "takes 130 s; tests/run --long runs this test"]
fn proxies_close_idle_connections_before_hookhold_does() {
    let pair = Pair::new(30);
    let homes = [home(1, ""), home(2, ""), home(2, &pair.config())];
    let _processes = homes.each_ref().map(Home::start);
    let path = |name, language, home: &Home| {
        let relay = RecordingRelay::to(home.hooks);
        Path { name: language, proxy: ProxyProcess::start(name, language, relay.address, &pair), relay }
    };
    let [addresses, headers, tls] = &homes;
    let paths = [
        path("nginx", "nginx", addresses),
        path("caddy", "caddy", addresses),
        path("haproxy", "haproxy", headers),
        path("haproxy", "haproxy-tcp", tls),
    ];
    let deliver = |path: &Path, id: &str| {
        let status = Delivery::new(&format!("{id}-{}", path.name)).send(path.proxy.address, Some(&pair), &[]);
        assert!(status.starts_with("200 "), "{}: {status}", path.name);
    };
    paths.iter().for_each(|path| deliver(path, "first"));
    // HAProxy in TCP mode closes the connection to hookhold when its client disconnects, so this client stays connected.
    let runtime = Runtime::new().expect("a runtime can be built");
    let mut client = runtime.block_on(Client::connect(paths[3].proxy.address, &pair));
    assert_eq!(runtime.block_on(client.deliver(&Delivery::new("stays"))), 200);

    let end = Instant::now() + IDLE;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        for Path { name, relay, .. } in &paths {
            let ends: Vec<Option<ClosedBy>> = relay.connections().iter().map(|connection| connection.closed_by).collect();
            assert!(!ends.is_empty() && !ends.contains(&Some(ClosedBy::Hookhold)), "{name}: {ends:?}");
        }
        thread::park_timeout(left.min(Duration::from_millis(100)));
    }
    paths.iter().for_each(|path| deliver(path, "second"));
}

/// Time for which the connections are idle. Of the proxies in `docs/deploy.md`, Caddy holds an idle connection longest: 120 s.
const IDLE: Duration = Duration::from_secs(130);
