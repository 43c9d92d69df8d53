//! The corridor's promises: what a 2xx and a 503 mean while the disk is slow, fails or loses, and that every event is kept
//! once. The real gateway over the real journal; only the disk and the clock are simulated.

mod dedupe_table;
#[path = "../common/disk.rs"]
mod disk;
mod harness;
mod held;
mod identity;
mod reload;
mod restarts;
mod sockets;
mod wanted;
