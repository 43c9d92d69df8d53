//! A real Apache Kafka cluster for tests: one, two or three brokers on free loopback ports, with their data in `target/`. A test
//! can kill or stop each broker, and restart the broker with the same ports and data.
//!
//! A broker never outlives the test process, even if the test process is killed. A shell process reads a pipe from the test
//! process. When the pipe closes, the shell kills the broker and removes the broker's data.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use crate::ports::reserve;

/// A Kafka record that a consumer has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp_ms: i64,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// Returns the value of the record header `name` as text. Panics if the header is absent or null.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        let (_, value) = found.unwrap_or_else(|| panic!("no header {name} in {:?}", self.headers));
        std::str::from_utf8(value.as_deref().expect("no header is null")).expect("header values are text here")
    }

    /// Returns the event's sequence, which is the value of the record header `hookhold-seq`.
    pub fn seq(&self) -> u64 {
        self.header("hookhold-seq").parse().expect("a number")
    }
}

/// A Kafka broker for tests. Dropping the `Kafka` value kills the broker process and removes the broker's data.
pub struct Kafka {
    home: PathBuf,
    port: u16,
    controller: u16,
    /// Options of the Java virtual machine.
    jvm: Vec<String>,
    running: Option<Child>,
    _reserved: [UdpSocket; 2],
}

/// Settings that a broker has in addition to those of every test broker.
#[derive(Default)]
pub struct Additions {
    /// Name, security protocol and port of each listener. Every broker also has the listener `PLAINTEXT`.
    pub listeners: Vec<(&'static str, &'static str, u16)>,
    /// Lines of `server.properties`.
    pub properties: String,
    /// Users for SCRAM, in the syntax of Kafka's storage tool.
    pub scram_users: Vec<String>,
    /// System properties of the broker's Java process, such as `-Dname=value`.
    pub system_properties: Vec<String>,
}

/// Reserved ports of one node.
struct Ports {
    broker: u16,
    controller: u16,
    reserved: [UdpSocket; 2],
}

impl Ports {
    fn reserve() -> Ports {
        let ((broker, first), (controller, second)) = (reserve(), reserve());
        Ports { broker: broker.port(), controller: controller.port(), reserved: [first, second] }
    }
}

/// Returns the broker that the tests of one file share. A test that kills or stops a broker must start its own broker.
/// The shared broker ends with the test process.
pub fn shared() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(Kafka::start)
}

impl Kafka {
    /// Formats the storage of a new broker, starts the broker, and waits until the broker responds.
    pub fn start() -> Kafka {
        Kafka::start_with(Additions::default())
    }

    /// Like [`Kafka::start`], but with more memory and with all optimisations of the Java virtual machine.
    pub fn for_throughput() -> Kafka {
        let mut kafka = Kafka::absent();
        kafka.jvm = ["-Xmx1g", "-XX:TieredStopAtLevel=4"].map(str::to_owned).into();
        kafka.restart();
        kafka
    }

    /// Formats the storage of a new broker that has its own ports. Does not start the broker.
    pub fn absent() -> Kafka {
        Kafka::formatted(None, Additions::default())
    }

    /// Like [`Kafka::start`], with further settings.
    pub fn start_with(additions: Additions) -> Kafka {
        let mut kafka = Kafka::formatted(None, additions);
        kafka.restart();
        kafka
    }

    /// Starts a second broker, node 2, which uses the controller of this broker. Drop the second broker before this broker.
    pub fn join(&self) -> Kafka {
        let mut second = Kafka::formatted(Some(self.controller), Additions::default());
        second.restart();
        second
    }

    /// Starts a cluster of three nodes. Each node is a broker and a controller, so the cluster survives the loss of one node. A
    /// topic with three replicas needs two of them in sync.
    pub fn cluster() -> [Kafka; 3] {
        let ports = [(); 3].map(|()| Ports::reserve());
        let voters: Vec<String> = (1..).zip(&ports).map(|(id, ports)| format!("{id}@127.0.0.1:{}", ports.controller)).collect();
        let voters = voters.join(",");
        let mut id = 0;
        let formatting = ports.map(|ports| {
            id += 1;
            let roles = format!("process.roles=broker,controller\nnode.id={id}\n");
            let additions = Additions { properties: replicated(&voters), ..Additions::default() };
            std::thread::spawn(move || Kafka::format(ports, None, "-Xmx256m", &roles, additions))
        });
        let mut nodes = formatting.map(|node| node.join().expect("the node can be formatted"));
        nodes.iter_mut().for_each(Kafka::launch);
        nodes.iter().for_each(Kafka::wait_until_ready);
        nodes
    }

    fn formatted(joins: Option<u16>, additions: Additions) -> Kafka {
        match joins {
            Some(_) => Kafka::format(Ports::reserve(), joins, "-Xmx256m", BROKER, additions),
            None => Kafka::format(Ports::reserve(), joins, "-Xmx320m", BROKER_AND_CONTROLLER, additions),
        }
    }

    /// Formats the storage of a node. The properties in `additions` replace earlier properties with the same names.
    fn format(ports: Ports, joins: Option<u16>, heap: &str, roles: &str, additions: Additions) -> Kafka {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kafka-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&home).expect("target/ can be written to");
        let (port, controller) = (ports.broker, joins.unwrap_or(ports.controller));
        let listeners = listeners(joins.is_none(), port, controller, &additions.listeners);
        let settings = format!("{roles}{listeners}{}{}", properties(&home, controller), additions.properties);
        fs::write(home.join("server.properties"), settings).expect("target/ can be written to");
        let output = java(&home)
            .args(["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", CLUSTER_ID, "-c"])
            .arg(home.join("server.properties"))
            .args(additions.scram_users.iter().flat_map(|user| ["--add-scram", user]))
            .output()
            .expect("java can be run (Debian: openjdk-17-jre-headless)");
        assert!(output.status.success(), "formatting failed: {output:?}");
        let jvm = [vec![heap.to_owned()], additions.system_properties].concat();
        Kafka { home, port, controller, jvm, running: None, _reserved: ports.reserved }
    }

    /// Returns the value of `bootstrap.servers` for this broker.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the broker with SIGKILL and waits until the process has exited.
    pub fn kill(&mut self) {
        self.end("kill");
    }

    /// Stops the broker cleanly with SIGTERM and waits until the process has exited.
    pub fn terminate(&mut self) {
        self.end("term");
    }

    /// Starts the broker again with the same ports and data, and waits until the broker responds.
    pub fn restart(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    fn launch(&mut self) {
        assert!(self.running.is_none(), "the broker is already running");
        let mut shell = Command::new("sh");
        shell.args(["-c", WATCHER, "watcher"]).arg(&self.home).arg(java(&self.home).get_program());
        shell.args(java(&self.home).get_args()).args(&self.jvm).arg("kafka.Kafka").arg(self.home.join("server.properties"));
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh can be run");
        let mut started = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut started).expect("the shell answers");
        assert_eq!(started.trim(), "started");
        self.running = Some(child);
    }

    /// Creates a topic and waits until each partition has a leader.
    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        self.create(&[new_topic(name, partitions, TopicReplication::Fixed(1), config)]);
    }

    /// Creates topics whose partitions have `replicas` replicas, and waits until each partition has a leader.
    pub fn create_topics(&self, names: &[String], partitions: i32, replicas: i32) {
        let new = names.iter().map(|name| new_topic(name, partitions, TopicReplication::Fixed(replicas), &[]));
        self.create(&new.collect::<Vec<_>>());
    }

    /// Creates a topic with one partition. The first node in `nodes` becomes the partition's leader, and the other
    /// nodes get replicas.
    pub fn create_topic_on(&self, nodes: &[i32], name: &str, config: &[(&str, &str)]) {
        self.create(&[new_topic(name, 1, TopicReplication::Variable(&[nodes]), config)]);
    }

    /// Creates a topic with one partition for each entry of `partitions`. The entry lists the nodes of the partition: its leader, and the
    /// nodes that get replicas.
    pub fn create_topic_across(&self, partitions: &[&[i32]], name: &str, config: &[(&str, &str)]) {
        self.create(&[new_topic(name, partitions.len() as i32, TopicReplication::Variable(partitions), config)]);
    }

    fn create(&self, topics: &[NewTopic<'_>]) {
        let results = block_on(self.admin().create_topics(topics, &AdminOptions::new())).expect("the broker answers");
        assert!(results.len() == topics.len() && results.iter().all(Result::is_ok), "{results:?}");
        let client = consumer(&self.bootstrap());
        for NewTopic { name, num_partitions, .. } in topics {
            wait_until(&format!("{name} has a leader"), || {
                let metadata = client.fetch_metadata(Some(name), SLICE);
                metadata.is_ok_and(|m| {
                    let partitions = m.topics()[0].partitions();
                    partitions.len() as i32 == *num_partitions && partitions.iter().all(|p| p.leader() > 0)
                })
            });
        }
    }

    /// Deletes a topic and waits until the broker no longer lists the topic.
    pub fn delete_topic(&self, name: &str) {
        let results = block_on(self.admin().delete_topics(&[name], &AdminOptions::new())).expect("the broker answers");
        assert_eq!(results, [Ok(name.to_owned())]);
        let client = consumer(&self.bootstrap());
        let is_listed = |metadata: Metadata| metadata.topics().iter().any(|topic| topic.name() == name);
        wait_until(&format!("{name} is gone"), || client.fetch_metadata(None, SLICE).is_ok_and(|metadata| !is_listed(metadata)));
    }

    /// Replaces the topic's whole configuration with `config`.
    pub fn configure_topic(&self, name: &str, config: &[(&str, &str)]) {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (key, value) in config {
            change = change.set(key, value);
        }
        let results = block_on(self.admin().alter_configs([&change], &AdminOptions::new())).expect("the broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// Makes a topic read-only by adding an ACL for reading. A topic with ACLs allows only the operations that its ACLs
    /// list.
    pub fn forbid_writing(&self, topic: &str) {
        self.acl_command(&["--add", "--allow-principal", "User:ANONYMOUS", "--operation", "Read", "--topic", topic]);
        wait_until("the broker applies the ACL", || self.acl_command(&["--list", "--topic", topic]).contains("operation=READ"));
    }

    /// Makes a topic writable again after [`Kafka::forbid_writing`].
    pub fn allow_writing(&self, topic: &str) {
        self.acl_command(&["--remove", "--force", "--topic", topic]);
    }

    fn acl_command(&self, args: &[&str]) -> String {
        let mut tool = java(&self.home);
        tool.arg("org.apache.kafka.tools.AclCommand").args(["--bootstrap-server", &self.bootstrap()]).args(args);
        let output = tool.output().expect("java can be run");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("the tool prints text")
    }

    /// Runs a command that names Kafka's scripts, such as `kafka-topics.sh`, in a shell, as an operator does who pastes it. Panics if
    /// the command fails.
    pub fn paste(&self, command: &str) {
        let java = java(&self.home);
        let words = [java.get_program()].into_iter().chain(java.get_args()).map(|word| format!("'{}'", word.display()));
        let java = words.collect::<Vec<_>>().join(" ");
        let functions: String = SCRIPTS.iter().map(|(name, class)| format!("{name}() {{ {java} {class} \"$@\"; }}\n")).collect();
        let mut shell = Command::new("bash");
        let output = shell.current_dir(&self.home).args(["-c", &(functions + command)]).output().expect("bash can be run");
        assert!(output.status.success(), "{command}: {output:?}");
    }

    /// Returns true if a broker can describe its log directory, which Kafka's tool for reassignments asks for. In a chroot whose root
    /// is not a mount point, Java finds no file system for the directory.
    pub fn can_describe_log_directories() -> bool {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is mounted");
        mounts.lines().any(|mount| mount.split(' ').nth(1) == Some("/"))
    }

    /// Returns every record of a topic, ordered by partition and offset.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        records_at(&self.bootstrap(), topic)
    }

    /// Waits until a topic has at least `count` records, then returns all records of the topic.
    pub fn wait_for_records(&self, topic: &str, count: usize) -> Vec<Record> {
        let mut records = Vec::new();
        wait_until(&format!("{topic} holds {count} records"), || {
            records = self.records(topic);
            records.len() >= count
        });
        records
    }

    /// Returns the number of record batches in the only partition of a topic, from the broker's files.
    pub fn batches(&self, topic: &str) -> usize {
        let files = fs::read_dir(self.home.join(format!("data/{topic}-0"))).expect("the topic has one partition");
        let logs = files.map(|file| file.expect("a file").path()).filter(|path| path.extension().is_some_and(|ext| ext == "log"));
        let count = |log: PathBuf| {
            let (bytes, mut at, mut count) = (fs::read(log).expect("the file can be read"), 0, 0);
            // Each batch starts with its first offset and the length of the rest.
            while let Some(length) = bytes.get(at + 8..at + 12) {
                at += 12 + u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
                count += 1;
            }
            count
        };
        logs.map(count).sum()
    }

    /// Returns the text that the broker process has written to its log file.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    fn end(&mut self, word: &str) {
        let mut shell = self.running.take().expect("the broker runs");
        writeln!(shell.stdin.take().expect("piped"), "{word}").expect("the shell reads");
        shell.wait().expect("the shell is our child");
    }

    fn wait_until_ready(&self) {
        let client = consumer(&self.bootstrap());
        let deadline = Instant::now() + DEADLINE;
        let is_listed = |metadata: Metadata| metadata.brokers().iter().any(|broker| broker.port() == i32::from(self.port));
        while !client.fetch_metadata(None, SLICE).is_ok_and(is_listed) {
            assert!(Instant::now() < deadline, "the broker does not answer; its output:\n{}", self.log());
        }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        client(&self.bootstrap()).create().expect("these settings are valid")
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(mut shell) = self.running.take() {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// Returns the value of `bootstrap.servers` for a cluster of these nodes.
pub fn bootstrap(nodes: &[Kafka]) -> String {
    nodes.iter().map(Kafka::bootstrap).collect::<Vec<_>>().join(",")
}

/// Returns every record of a topic in the cluster at `bootstrap`, ordered by partition and offset.
pub fn records_at(bootstrap: &str, topic: &str) -> Vec<Record> {
    let consumer = consumer(bootstrap);
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).expect("the broker answers");
    let mut assignment = TopicPartitionList::new();
    let mut missing = 0;
    for partition in metadata.topics()[0].partitions() {
        // A broker does not answer for a partition before it knows that it is the leader.
        let mut found = None;
        wait_until(&format!("a broker leads {topic}"), || {
            found = consumer.fetch_watermarks(topic, partition.id(), SLICE).ok();
            found.is_some()
        });
        let (low, high) = found.expect("waited for");
        missing += high - low;
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("a valid offset");
    }
    consumer.assign(&assignment).expect("partitions exist");
    let deadline = Instant::now() + DEADLINE;
    let mut records = Vec::new();
    while (records.len() as i64) < missing {
        assert!(Instant::now() < deadline, "read only {} of {missing} records of {topic}", records.len());
        match consumer.poll(SLICE) {
            Some(Ok(message)) => records.push(record(&message)),
            Some(Err(error)) => panic!("cannot read {topic}: {error}"),
            None => {}
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// Waits until `condition` returns true. Panics after [`DEADLINE`] with a message that contains `description`.
pub fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {description}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn record(message: &impl Message) -> Record {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        timestamp_ms: message.timestamp().to_millis().expect("every record has a time"),
        headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
    }
}

fn consumer(bootstrap: &str) -> BaseConsumer<Quiet> {
    let mut config = client(bootstrap);
    config.set("group.id", "tests").set("enable.auto.commit", "false").set("fetch.message.max.bytes", "33554432");
    config.create_with_context(Quiet).expect("these settings are valid")
}

/// A librdkafka client context that logs nothing, because tests stop brokers on purpose.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("receive.message.max.bytes", "67108864");
    config.set("reconnect.backoff.max.ms", "500");
    config
}

fn new_topic<'a>(
    name: &'a str,
    partitions: i32,
    replication: TopicReplication<'a>,
    config: &[(&'a str, &'a str)],
) -> NewTopic<'a> {
    let topic = NewTopic::new(name, partitions, replication);
    config.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built").block_on(future)
}

/// Returns a command that runs Java with Kafka's jar files on the class path. Downloads missing jar files first.
fn java(home: &Path) -> Command {
    static LIB: OnceLock<PathBuf> = OnceLock::new();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka");
    let lib = LIB.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp is inside target");
        let fetched =
            Command::new(tests.join("fetch")).env("CARGO_TARGET_DIR", target).status().expect("tests/kafka/fetch can be run");
        assert!(fetched.success(), "tests/kafka/fetch failed");
        target.join("kafka-lib")
    });
    let mut java = Command::new("java");
    java.args(["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:MaxDirectMemorySize=96m"]);
    java.arg(format!("-Dlog4j2.configurationFile={}", tests.join("log4j2.properties").display()));
    java.arg(format!("-Djava.io.tmpdir={}", home.display())).arg("-cp").arg(lib.join("*"));
    java
}

/// Returns the settings of the listeners of a broker: `PLAINTEXT`, then `additional` ones. A broker that is also the controller
/// has the controller's listener.
fn listeners(is_controller: bool, port: u16, controller: u16, additional: &[(&str, &str, u16)]) -> String {
    let all = [&[("PLAINTEXT", "PLAINTEXT", port)][..], additional].concat();
    let list = |part: fn(&(&str, &str, u16)) -> String| all.iter().map(part).collect::<Vec<_>>().join(",");
    let addresses = list(|(name, _, port)| format!("{name}://127.0.0.1:{port}"));
    let protocols = list(|(name, protocol, _)| format!("{name}:{protocol}"));
    let of_controller = if is_controller { format!(",CONTROLLER://127.0.0.1:{controller}") } else { String::new() };
    format!(
        "listeners={addresses}{of_controller}
advertised.listeners={addresses}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
"
    )
}

/// Returns the broker settings for a small heap. The caller adds the roles, the node id and the listeners. Records never
/// expire, because test deliveries may be years old. The broker allows every operation, except on a topic for which a test adds
/// ACLs.
fn properties(home: &Path, controller: u16) -> String {
    format!(
        "controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
log.cleaner.threads=1
log.index.size.max.bytes=1048576
log.segment.bytes=67108864
log.retention.ms=-1
num.network.threads=2
num.io.threads=2
background.threads=2
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
",
        home.join("data").display()
    )
}

/// Kafka's scripts, each with the class that it runs.
const SCRIPTS: [(&str, &str); 4] = [
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-acls.sh", "org.apache.kafka.tools.AclCommand"),
    ("kafka-configs.sh", "kafka.admin.ConfigCommand"),
    ("kafka-reassign-partitions.sh", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"),
];
/// Returns the broker settings of a cluster of three nodes with these controllers. The cluster has no ACLs, because a controller with
/// ACLs rejects the votes of the others until it has read the ACLs, which needs an elected controller.
fn replicated(voters: &str) -> String {
    let internal = ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"];
    let internal = internal.map(|topic| format!("{topic}.replication.factor=3\n")).concat();
    format!(
        "controller.quorum.voters={voters}
authorizer.class.name=
default.replication.factor=3
min.insync.replicas=2
transaction.state.log.min.isr=2
share.coordinator.state.topic.min.isr=2
replica.lag.time.max.ms=5000
unclean.leader.election.enable=false
{internal}"
    )
}

/// Shell script that runs the broker in the background and reads one word from a pipe. On `kill` or `term`, the script ends the
/// broker and leaves the broker's data in place. If the pipe closes, the script ends the broker and removes the data.
const WATCHER: &str = r#"home=$1; shift
"$@" >>"$home/log" 2>&1 </dev/null & broker=$!
echo started; exec 2>/dev/null
read -r word || word=gone
case $word in term) kill -TERM "$broker" ;; *) kill -KILL "$broker" ;; esac
wait "$broker"
[ "$word" != gone ] || rm -rf "$home""#;
const BROKER_AND_CONTROLLER: &str = "process.roles=broker,controller\nnode.id=1\n";
const BROKER: &str = "process.roles=broker\nnode.id=2\n";
const CLUSTER_ID: &str = "aG9va2hvbGQtdGVzdC1rYQ";
/// Maximum duration of each wait. The limit exists only to end a stuck test; no assertion depends on the limit.
const DEADLINE: Duration = Duration::from_secs(90);
const SLICE: Duration = Duration::from_millis(500);
