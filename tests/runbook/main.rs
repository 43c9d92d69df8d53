//! Tests docs/runbook.md with the real binary and real Kafka brokers. The page must name each reason. Each of its commands must
//! work as written. The remedy for each fault must free the topic, and no event may be lost.

#[path = "../common/audit.rs"]
mod audit;
#[path = "../common/authority.rs"]
mod authority;
#[path = "../common/crypto.rs"]
mod crypto;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/kafka.rs"]
mod kafka;
#[path = "../common/load.rs"]
mod load;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/secured_kafka.rs"]
mod secured_kafka;

mod case;
mod clients;
mod commands;
mod page;
mod reasons;
mod remedies;
