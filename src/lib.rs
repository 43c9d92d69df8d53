//! hookhold receives webhooks and holds them until Kafka has them. This page walks the path of one delivery; the modules
//! stand in the order of that path.
//!
//! ```text
//!                Delivery          Event            Position
//!  provider ──► server ──────► gateway ────────► journal ─────────► forward ──► Kafka
//!                accept     verify · admit once   keep (fsync)       pass on
//!  provider ◄── answer  ◄── Outcome ◄──────────────┘                   │ acknowledged
//!                                                                      ▼ the lane's cursor moves
//! ```
//!
//! 1. [`server`] accepts a connection, finds the [`source::Source`] by its path and reads the body under limits. What it can
//!    refuse before the body it refuses there. The result is an [`event::Delivery`].
//! 2. [`gateway`] has [`verify`] interpret the source's recipe: signature first, time second. Only a verified delivery becomes
//!    an [`event::Event`].
//! 3. [`gateway`] admits the event once: a repeat of one that is kept is answered, a repeat of one that is on its way waits for
//!    the same end.
//! 4. [`journal`] writes it into the next commit, syncs, and only then gives out its [`event::Position`].
//! 5. [`server`] answers. The status, the metric label and the log word all come from one [`outcome::Outcome`].
//!    What was refused can be kept in [`refusals`], in memory, so that `hookhold doctor` explains it.
//! 6. [`forward`] reads what is durable and gives it to Kafka, byte for byte. Only an acknowledgement moves a cursor.
//!
//! What a status promises:
//!
//! | status | the sender may rely on |
//! |---|---|
//! | 2xx | verified, on disk, kept once; it reaches Kafka whatever dies in between. Or of a type that its source does not want |
//! | 401, 404, 405, 413 | refused for good: the same delivery will be refused again |
//! | 400, 408, 414, 431 | not a complete request; nothing is kept |
//! | 429 | not looked at, or more than its source may send: come again |
//! | 503 | our own trouble: come again; a repeat of what is kept meanwhile is answered 2xx |
//!
//! Invariants, each with a test of its own: nothing unverified is kept; nothing is answered 2xx before its sync has returned;
//! a key is never remembered without its event; readers and lanes never pass the durable mark; a cursor moves only by
//! acknowledgement; data flows through the rooms in one direction (`tests/fences.rs`).

// In path order.
pub mod server;

pub mod gateway;

pub mod verify;

pub mod source;

pub mod journal;

pub mod forward;

pub mod admin;

// Known to all.
pub mod address;
pub mod answer;
pub mod certificate;
pub mod clock;
pub mod config;
pub mod diagnostic;
pub mod event;
pub mod event_key;
pub mod log;
pub mod metrics;
pub mod outcome;
pub mod rejections;
pub mod secret;
pub mod toml_value;
pub mod units;
