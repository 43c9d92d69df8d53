//! End-to-end tests. A test sends deliveries to a hookhold process, which forwards the events to a Kafka broker. The providers'
//! own SDKs or openssl sign the deliveries; hookhold's own code never signs a delivery. The tests check the records in Kafka,
//! the handling of duplicates, and the counter that each kind of delivery increments.

mod accounts;
mod arrival;
mod counters;
mod filtered;
mod imperfect;
#[path = "../common/kafka.rs"]
mod kafka;
mod operator_tools;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/process.rs"]
mod process;
mod restart;
mod scheme;
#[path = "../common/sdk.rs"]
mod sdk;
mod topics;
mod twilio;
mod variants;
