//! A real Prometheus that scrapes gateways every second and evaluates the rules with shorter times.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ports::reserve;
use crate::process::{Line, tool};
use crate::rules;

/// A running Prometheus. Dropping the value ends the process.
pub struct Prometheus {
    address: SocketAddr,
    child: Child,
    dir: tempfile::TempDir,
    started: Instant,
    /// Alerts that have fired and cleared.
    proved: Mutex<Vec<&'static str>>,
    _reserved: UdpSocket,
}

impl Prometheus {
    /// Starts Prometheus. Each target has a name, which becomes its label `instance`.
    pub fn start(targets: &[(&str, SocketAddr)]) -> Prometheus {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/ can be written to");
        let (address, reserved) = reserve();
        let target =
            |(name, address): &(&str, SocketAddr)| format!("  - targets: [\"{address}\"]\n    labels: {{ instance: {name} }}\n");
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [rules.yml]\n\
             scrape_configs:\n- job_name: hookhold\n  static_configs:\n{}",
            targets.iter().map(target).collect::<String>()
        );
        fs::write(dir.path().join("prometheus.yml"), config).expect("target/ can be written to");
        fs::write(dir.path().join("rules.yml"), rules::shortened()).expect("target/ can be written to");
        let log = fs::File::create(dir.path().join("log")).expect("target/ can be written to");
        let mut command = tool("prometheus");
        command.current_dir(dir.path()).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        let child = command.arg(format!("--web.listen-address={address}")).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start prometheus: {error}; run tests/run, which unpacks it"));
        let proved = Mutex::default();
        let mut prometheus = Prometheus { address, child, dir, started: Instant::now(), proved, _reserved: reserved };
        while prometheus.get("/-/ready").is_none() {
            let ended = prometheus.child.try_wait().expect("a child can be waited for");
            let log = || fs::read_to_string(prometheus.dir.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && prometheus.started.elapsed() < DEADLINE, "{ended:?}: {}", log());
            thread::park_timeout(PAUSE);
        }
        prometheus
    }

    /// Waits until the alert `name` fires with these labels. Asserts that Prometheus has rendered its texts.
    pub fn wait_until_fires(&self, name: &'static str, labels: &[(&str, &str)]) {
        self.wait_until_fires_while(name, labels, || {});
    }

    /// Like [`Prometheus::wait_until_fires`]. Calls `act` between two looks.
    pub fn wait_until_fires_while(&self, name: &'static str, labels: &[(&str, &str)], act: impl FnMut()) {
        let mut found = Value::Null;
        self.wait_until(&format!("{name} fires for {labels:?}"), act, || {
            found = self.firing(name, labels).unwrap_or_default();
            found != Value::Null
        });
        for key in ["summary", "description", "runbook_url"] {
            let text = found["annotations"][key].as_str().unwrap_or_default();
            let is_rendered = !text.is_empty() && !["<no value>", "{{", "<error"].iter().any(|part| text.contains(part));
            assert!(is_rendered, "{name}: {key}: {found}");
        }
        println!("{:>5.1} s  {name} fires: {}", self.started.elapsed().as_secs_f64(), found["annotations"]["summary"]);
    }

    /// Waits until the alert `name` does not fire any more with these labels.
    pub fn wait_until_clears(&self, name: &'static str, labels: &[(&str, &str)]) {
        self.wait_until_clears_while(name, labels, || {});
    }

    /// Like [`Prometheus::wait_until_clears`]. Calls `act` between two looks.
    pub fn wait_until_clears_while(&self, name: &'static str, labels: &[(&str, &str)], act: impl FnMut()) {
        self.wait_until(&format!("{name} clears for {labels:?}"), act, || self.firing(name, labels).is_none());
        println!("{:>5.1} s  {name} clears for {labels:?}", self.started.elapsed().as_secs_f64());
        self.proved.lock().expect("no test panics while it holds this lock").push(name);
    }

    /// Returns the names of the alerts that have fired and cleared.
    pub fn proved(&self) -> Vec<&'static str> {
        self.proved.lock().expect("no test panics while it holds this lock").clone()
    }

    /// Waits until a query returns a sample.
    pub fn wait_until_found(&self, query: &str) {
        self.wait_until(query, || {}, || self.query(query).is_some_and(|found| !found.is_empty()));
    }

    /// Returns the result of a query at the present time.
    pub fn query(&self, query: &str) -> Option<Vec<Value>> {
        self.result("/api/v1/query", &[("query", query)])
    }

    /// Returns the result of a query over the whole time of the test, or the error.
    pub fn query_range(&self, query: &str) -> Option<Vec<Value>> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let start = now - self.started.elapsed().as_secs();
        let times = [("start", start.to_string()), ("end", now.to_string()), ("step", "1".to_owned())];
        let fields: Vec<(&str, &str)> = times.iter().map(|(name, value)| (*name, &**value)).chain([("query", query)]).collect();
        self.result("/api/v1/query_range", &fields)
    }

    fn result(&self, path: &str, fields: &[(&str, &str)]) -> Option<Vec<Value>> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(fields);
        let page = self.get(&format!("{path}?{}", query.finish()))?;
        assert_eq!(page["status"], "success", "{fields:?}: {page}");
        page["data"]["result"].as_array().cloned()
    }

    fn firing(&self, name: &str, labels: &[(&str, &str)]) -> Option<Value> {
        let page = self.get("/api/v1/alerts")?;
        let alerts = page["data"]["alerts"].as_array()?;
        let matches = |alert: &&Value| {
            let found = &alert["labels"];
            alert["state"] == "firing" && found["alertname"] == name && labels.iter().all(|(key, value)| found[*key] == *value)
        };
        alerts.iter().find(matches).cloned()
    }

    fn wait_until(&self, what: &str, mut act: impl FnMut(), mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition() {
            assert!(Instant::now() < deadline, "timed out waiting until {what}; alerts: {:?}", self.get("/api/v1/alerts"));
            act();
            thread::park_timeout(PAUSE);
        }
    }

    /// Returns the JSON of a page; `Null` if the page is no JSON, `None` if Prometheus does not answer with 200.
    fn get(&self, path: &str) -> Option<Value> {
        let mut line = Line::try_open(self.address)?;
        line.send(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        let answer = String::from_utf8(line.rest()).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let is_answer = head.split(' ').nth(1) == Some("200") || path.starts_with("/api/");
        is_answer.then(|| serde_json::from_str(body).unwrap_or_default())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Maximum duration of each wait. The limit exists only to end a stuck test; no assertion depends on the limit.
const DEADLINE: Duration = Duration::from_secs(90);
/// Pause between two looks. The rules are evaluated every second.
const PAUSE: Duration = Duration::from_millis(200);
