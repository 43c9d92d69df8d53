//! End-to-end tests of every kind of proof that a recipe can name. A test sends deliveries to a hookhold process with an inline
//! recipe and configured keys, and reads the Kafka records. Node's crypto, the npm library jose and openssl make the keys and
//! the signatures. Each kind is sent genuine and in every form that an attacker or a broken sender could produce.

mod batches;
mod body_values;
mod content;
#[path = "../common/crypto.rs"]
mod crypto;
mod endpoint;
mod fetch;
mod hashes;
mod jwt;
#[path = "../common/kafka.rs"]
mod kafka;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/process.rs"]
mod process;
mod public_keys;
mod samples;
mod several;
mod tokens;
