//! Through the real binary into a real Kafka: deliveries signed by the providers' own SDKs or by openssl, never by our own
//! code; the records in Kafka afterwards, the effect of a duplicate, and the counter that each kind of delivery moves.

mod arrival;
mod counters;
mod filtered;
#[path = "../common/kafka.rs"]
mod kafka;
mod operator_tools;
#[path = "../common/process.rs"]
mod process;
mod restart;
mod scheme;
#[path = "../common/sdk.rs"]
mod sdk;
mod twilio;
mod variants;
