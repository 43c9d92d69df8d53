//! Through the whole binary into a real Kafka: deliveries signed by the providers' own SDKs or by openssl, never by our own
//! code; what Kafka holds afterwards, what a repeat changes, and which counter each kind of delivery moves.

mod arrival;
mod counters;
#[path = "../common/kafka.rs"]
mod kafka;
#[path = "../common/process.rs"]
mod process;
mod restart;
mod scheme;
#[path = "../common/sdk.rs"]
mod sdk;
mod seen;
mod twilio;
mod variants;
mod wanted;
