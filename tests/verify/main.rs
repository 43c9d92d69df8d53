//! Believe: what hookhold promises about a delivery's proof, time and facts, and about the recipes that describe them.

mod challenges;
mod facts;
mod proofs;
mod random;
mod recipes;
mod secrets;
mod support;
mod vectors;
