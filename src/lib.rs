//! hookhold is a webhook gateway that stores each delivery before it answers.
//!
//! A provider (Stripe, GitHub, Slack, …) posts a *delivery*. hookhold verifies its signature, drops duplicates, writes the
//! event to a local journal, answers 2xx, and forwards the exact bytes to a Kafka topic. If Kafka is down for days, the
//! provider still gets its 2xx.
//!
//! ```text
//!              Delivery           Event             Position
//! provider ─► server ────────► gateway ────────► journal ────────► forward ─► Kafka
//!             HTTP, limits      verify · dedupe    append (fsync)    topic queues
//! provider ◄─ answer   ◄─ Outcome ◄────────────────┘                  │ acknowledged
//!                                                                     └─► the topic's cursor moves
//! ```
//!
//! # The path of one delivery
//!
//! 1. [`server`] accepts the connection, finds the [`source::Source`] by the request's path, and reads the body under
//!    limits. Before it reads the body, it rejects an unknown path, a wrong method, a missing signature or an announced
//!    length above the limit. The result is an [`event::Delivery`].
//! 2. [`gateway`] asks [`verify`] to check the delivery against the source's recipe: the signature first, then its
//!    timestamp. Only a verified delivery becomes an [`event::Event`]; no other code can construct one.
//! 3. [`gateway`] deduplicates the event. It answers a duplicate of a stored event at once. A duplicate of an event that is
//!    still on its way to the disk waits for the same commit.
//! 4. [`journal`] appends the event to the next commit and calls `fdatasync`. Only then does the event's
//!    [`event::Position`] exist.
//! 5. [`server`] sends the [`answer::Answer`]. Status code, metric label and log word all derive from one
//!    [`outcome::Outcome`]. If the operator enables it, [`rejections`] records rejected deliveries for `hookhold doctor`.
//! 6. [`forward`] reads durable events and produces them to Kafka byte for byte. Only an acknowledgement from the broker
//!    moves the cursor of a topic.
//!
//! [`service`] assembles these rooms into a running gateway and reloads its configuration. [`admin`] serves metrics, probes
//! and the operator's API on a second listener. [`config`] turns `hookhold.toml` into a checked configuration.
//!
//! # Promises
//!
//! Each promise has a test.
//!
//! - **A 2xx means verified and on disk.** It is sent only after the sync of the commit that holds the event.
//! - **Stored once.** A duplicate inside the dedupe window is answered 2xx and not forwarded, even after a restart. A key is
//!   never remembered without its event, and different events are never treated as duplicates.
//! - **Always forwarded.** Only a broker's acknowledgement moves a cursor. A blocked topic does not delay another one.
//! - **Byte-exact.** The Kafka value is the body that was signed.
//! - **Never silent.** Every request ends in exactly one [`outcome::Outcome`].
//! - **Bounded.** Every limit has a name, a default and a test; most are defined in [`limits`].
//!
//! Status codes, as the sender sees them:
//!
//! | status | meaning |
//! |---|---|
//! | 2xx | verified and stored, or filtered by `types`, or an endpoint challenge |
//! | 401, 404, 405, 413 | rejected; the same delivery would be rejected again |
//! | 400, 408, 414, 431 | not a complete HTTP request; nothing was stored |
//! | 429 | above a limit of the source or of the sender's address; retry later |
//! | 503 | a problem on this side; retry later. If the event was stored meanwhile, the retry is a duplicate |
//!
//! # Vocabulary
//!
//! | word | meaning |
//! |---|---|
//! | provider | the service that posts webhooks |
//! | sender | the peer that sends a request |
//! | recipe | one provider's signature scheme and event fields, as data (`config/providers/`) |
//! | source | one configured endpoint: a recipe plus the operator's secrets, topic and limits |
//! | delivery | one HTTP request, not yet verified |
//! | event | a verified delivery, with a key for deduplication and a sequence for its order |
//! | duplicate | a delivery whose key is already stored or pending |
//! | challenge | a provider's check of the endpoint; answered, never stored |
//! | segment | one file of the journal |
//! | frame | one record in a segment, usually an event |
//! | commit | the events that share one sync |
//! | durable watermark | the first sequence that is not yet on disk; readers never pass it |
//! | cursor | per topic, the first sequence that Kafka has not acknowledged |
//! | topic queue | the events of one topic between journal and broker |
//!
//! Data flows through the rooms in one direction. `tests/fences.rs` checks the imports between rooms and rejects circles.

pub mod service;

// In path order.
pub mod server;

pub mod gateway;

pub mod verify;

pub mod source;

pub mod journal;

pub mod forward;

pub mod admin;

// Modules that every room may import, except `config`, which only `service` imports.
pub mod address;
pub mod answer;
pub mod certificate;
pub mod clock;
pub mod config;
pub mod diagnostic;
pub mod event;
pub mod event_key;
pub mod header_field;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod outcome;
pub mod rejections;
pub mod secret;
pub mod toml_value;
pub mod units;
