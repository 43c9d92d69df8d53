//! Tests of the verifier: recipes, signatures, timestamps, secrets, endpoint challenges, and the values that verification
//! extracts from a delivery.

mod batches;
mod challenges;
mod compressed;
#[path = "../common/crypto.rs"]
mod crypto;
mod doubtful_secrets;
mod facts;
mod keys;
mod proofs;
mod random;
mod recipes;
mod samples;
mod secrets;
mod support;
mod urls;
mod vectors;
mod work;
