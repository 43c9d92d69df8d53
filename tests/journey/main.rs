//! Tests that send deliveries to a hookhold process, which forwards them to a Kafka broker. The providers' own SDKs or
//! openssl sign the deliveries, never hookhold's own code. The tests check the records in Kafka, the handling of
//! duplicates, and the counter that each kind of delivery increments.

mod arrival;
mod counters;
mod filtered;
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
mod twilio;
mod variants;
