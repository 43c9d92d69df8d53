//! Tests of the journal's guarantees on a simulated disk. Tests that depend on a file system use a real directory.

#[path = "../common/disk.rs"]
mod disk;
#[path = "../common/events.rs"]
mod events;

mod append;
mod backlog;
mod batches;
mod clock;
mod cursors;
mod damage;
mod forgotten;
mod golden;
mod harness;
mod interrupted;
mod keys;
mod missing;
mod opening;
mod ownership;
mod read_only;
mod recycling;
mod retention;
mod rewriting;
mod search;
mod space;
mod stalled;
mod stepped;
mod unforwarded;
