//! Tests of verification: the signatures, timestamps and event values of deliveries, and the recipes that describe them.

mod challenges;
mod facts;
mod proofs;
mod random;
mod recipes;
mod secrets;
mod support;
mod vectors;
