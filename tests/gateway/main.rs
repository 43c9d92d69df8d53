//! Tests of the gateway's promises while the disk is slow, fails or loses data: an event that was answered 2xx is stored, and
//! every event is stored once. The gateway and the journal are real; only the disk and the clock are simulated.

mod dedupe_table;
#[path = "../common/disk.rs"]
mod disk;
mod filtering;
mod harness;
mod identity;
mod pending;
mod reload;
mod restarts;
mod sockets;
