//! Faults of the process, its machine and its journal.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use rustix::process::Signal;

use crate::faults::wait_until_scraped;
use crate::fixture::stop;
use crate::gateways::{Sender, config};
use crate::preload::{set_hanging, set_offset};
use crate::process::{Home, wait_until};
use crate::prometheus::Prometheus;

/// The clock jumps by an hour. Then the forwarder hangs.
pub fn clock_and_forwarder(home: &Home, prometheus: &Prometheus) {
    let process = home.start();
    let instance = [("instance", "clock")];
    wait_until_scraped(prometheus, "clock");
    set_offset(home, 60 * 60);
    prometheus.wait_until_fires("HookholdClockJumped", &instance);
    prometheus.wait_until_clears("HookholdClockJumped", &instance);
    set_hanging(home, true);
    prometheus.wait_until_fires("HookholdForwarderStalled", &instance);
    set_hanging(home, false);
    prometheus.wait_until_clears("HookholdForwarderStalled", &instance);
    stop(process);
}

/// The disk changes bytes of events that Kafka does not have.
pub fn damage(home: &Home, prometheus: &Prometheus) {
    let process = home.start();
    Sender::new(home, "damaged").send(60);
    wait_until_scraped(prometheus, "damaged");
    stop(process);
    let entries = fs::read_dir(home.journal()).expect("the journal exists");
    let segments =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.extension().is_some_and(|end| end == "seg"));
    let newest = segments.max().expect("a segment");
    let file = OpenOptions::new().write(true).open(&newest).expect("the segment can be written to");
    file.write_all_at(&[0xff; 8192], 24 << 10).expect("the segment can be written to");
    let process = home.start();
    let (instance, cause) = ([("instance", "damaged")], [("instance", "damaged"), ("cause", "corruption")]);
    prometheus.wait_until_fires("HookholdJournalDamaged", &instance);
    prometheus.wait_until_fires("HookholdEventsLost", &cause);
    prometheus.wait_until_clears("HookholdJournalDamaged", &instance);
    prometheus.wait_until_clears("HookholdEventsLost", &cause);
    stop(process);
}

/// Each fdatasync takes 0.7 s.
pub fn slow_disk(home: &Home, prometheus: &Prometheus) {
    let inject =
        ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=700000"];
    let process = home.launch_with(&inject);
    wait_until("hookhold is ready", || process.ready() == Some(200));
    let (mut sender, instance) = (Sender::new(home, "slow"), [("instance", "slow")]);
    prometheus.wait_until_fires_while("HookholdJournalSyncSlow", &instance, || sender.send(1));
    stop(process);
    let process = home.start();
    prometheus.wait_until_clears_while("HookholdJournalSyncSlow", &instance, || sender.send(1));
    stop(process);
}

/// `max_size` exceeds the volume.
pub fn volume(home: &Home, prometheus: &Prometheus) {
    let process = home.start();
    let instance = [("instance", "volume")];
    prometheus.wait_until_fires("HookholdVolumeTooSmall", &instance);
    stop(process);
    home.configure(&format!("journal.max_size = \"64 MiB\"\n{}", config(&[("volume", "volume")], None)));
    let process = home.start();
    prometheus.wait_until_clears("HookholdVolumeTooSmall", &instance);
    stop(process);
}

/// The process ends, and starts again several times.
pub fn process(home: &Home, prometheus: &Prometheus) {
    let instance = [("instance", "process")];
    let process = home.start();
    wait_until_scraped(prometheus, "process");
    process.signal(Signal::KILL);
    drop(process);
    prometheus.wait_until_fires("HookholdDown", &instance);
    let process = home.start();
    prometheus.wait_until_clears("HookholdDown", &instance);
    let mut running = Some(process);
    prometheus.wait_until_fires_while("HookholdRestarting", &instance, || {
        running.take().expect("the gateway runs").signal(Signal::KILL);
        let process = running.insert(home.start());
        // The start time is a whole second, and Prometheus must scrape each of them.
        let start = process.metric("process_start_time_seconds").expect("a gauge");
        prometheus.wait_until_found(&format!("process_start_time_seconds{{instance=\"process\"}} == {start}"));
    });
    prometheus.wait_until_clears("HookholdRestarting", &instance);
    stop(running.expect("the gateway runs"));
}
