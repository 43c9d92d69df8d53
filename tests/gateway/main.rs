//! Tests of the gateway's guarantees while the disk is slow, fails or loses data. An event must be on disk before hookhold
//! answers with 2xx, and every event must be stored exactly once. The gateway and the journal are real. Only the disk and
//! the clock are simulated.

mod accounts;
mod batches;
mod clock;
mod dedupe_table;
#[path = "../common/disk.rs"]
mod disk;
mod filtering;
mod harness;
mod identity;
mod long;
mod pending;
mod reload;
mod restarts;
mod shop;
mod sockets;
