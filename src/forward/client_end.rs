//! Ends the Kafka client of a command that does not wait for the end of librdkafka.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Drops `client` on a thread of its own. Does not wait longer than [`END_WITHIN`], because librdkafka waits for its own threads, and
/// one of them may be looking up a host name.
pub(super) fn end_in_background(client: impl Send + 'static) {
    let (done, ended) = mpsc::channel();
    let work = move || {
        drop(client);
        let _ = done.send(());
    };
    if thread::Builder::new().name("kafka-end".into()).spawn(work).is_ok() {
        let _ = ended.recv_timeout(END_WITHIN);
    }
}

/// Longest wait for the end of a client.
const END_WITHIN: Duration = Duration::from_secs(2);
