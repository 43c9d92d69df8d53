//! hookhold receives webhooks and holds them until Kafka has them.

pub mod server;

pub mod admin;
pub mod config;
pub mod event;
pub mod gateway;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod mistake;
pub mod secret;
pub mod source;
pub mod table;
pub mod units;
pub mod verify;
