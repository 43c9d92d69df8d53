//! Tests deploy/prometheus and deploy/grafana. promtool checks the rules. Then a real Prometheus scrapes running gateways, each fault
//! is caused, and each alert must fire and clear. At the end, each query of the dashboard must return data.

#[path = "../common/audit.rs"]
mod audit;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/https.rs"]
mod https;
#[path = "../common/kafka.rs"]
mod kafka;
#[path = "../common/load.rs"]
mod load;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/preload.rs"]
mod preload;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/sdk.rs"]
mod sdk;

mod dashboard;
mod faults;
mod gateways;
mod journal_faults;
mod kafka_faults;
mod prometheus;
mod rules;
mod source_faults;
