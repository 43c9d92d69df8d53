//! hookhold receives webhooks and holds them until Kafka has them.

pub mod admin;
pub mod event;
pub mod log;
pub mod metrics;
