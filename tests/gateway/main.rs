//! Tests of the gateway's promises: the meaning of a 2xx and of a 503 while the disk is slow, fails or loses data, and that
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
