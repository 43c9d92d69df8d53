//! Tests of verification: signatures, timestamps and facts of deliveries, and the recipes that describe them.

mod challenges;
mod facts;
mod proofs;
mod random;
mod recipes;
mod secrets;
mod support;
mod vectors;
