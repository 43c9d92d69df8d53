//! The `hookhold` command.

fn main() {}
