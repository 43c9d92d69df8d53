//! hookhold is a webhook gateway that stores each delivery before it answers.
//!
//! A provider (Stripe, GitHub, Slack, …) posts a *delivery*. hookhold verifies its signature, drops duplicates, writes the
//! event to a local journal, answers 2xx, and forwards the exact bytes to a Kafka topic. Kafka may be down for days; the
//! provider does not notice.
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
//!    limits. It rejects everything that can be rejected before the body is read: an unknown path, a wrong method, a
//!    missing signature, a body that is announced too long. The result is an [`event::Delivery`].
//! 2. [`gateway`] asks [`verify`] to check the delivery against the source's recipe: the signature first, then its
//!    timestamp. Only a verified delivery becomes an [`event::Event`]; no other code can construct one.
//! 3. [`gateway`] deduplicates the event. A duplicate of a stored event is answered at once. A duplicate of an event that
//!    is still on its way to the disk waits for the same commit.
//! 4. [`journal`] appends the event to the next commit and calls `fdatasync`. Only then does the event's
//!    [`event::Position`] exist.
//! 5. [`server`] sends the [`answer::Answer`]. Status code, metric label and log word all derive from one
//!    [`outcome::Outcome`]. Rejected deliveries can be recorded in [`rejections`], so that `hookhold doctor` explains them.
//! 6. [`forward`] reads durable events and produces them to Kafka byte for byte. Only an acknowledgement from the broker
//!    moves the cursor of a topic.
//!
//! [`service`] assembles these rooms into a running gateway and reloads its configuration. [`admin`] serves metrics, probes
//! and the operator's API on a second listener. [`config`] turns `hookhold.toml` into a checked configuration.
//!
//! # Promises
//!
//! - **A 2xx means verified and on disk.** It is sent only after the sync of the commit that holds the event.
//! - **Stored once.** A duplicate inside the dedupe window is answered 2xx and not forwarded, even after a restart. A key is
//!   never remembered without its event, and different events are never taken for one.
//! - **Always forwarded.** Only a broker's acknowledgement moves a cursor. One topic in trouble does not delay another.
//! - **Byte-exact.** The Kafka value is the body that was signed.
//! - **Never silent.** Every request ends in exactly one [`outcome::Outcome`].
//! - **Bounded.** Every limit has a name, a default and a test; most are defined in [`limits`].
//!
//! What a status code means to the sender:
//!
//! | status | meaning |
//! |---|---|
//! | 2xx | verified and stored, or a type that the source does not want, or an endpoint challenge |
//! | 401, 404, 405, 413 | rejected; the same delivery will be rejected again |
//! | 400, 408, 414, 431 | not a complete HTTP request; nothing was stored |
//! | 429 | over a limit of the source or of the sender's address; retry later |
//! | 503 | a problem on this side; retry later. If the event was stored meanwhile, the retry is a duplicate |
//!
//! # Vocabulary
//!
//! | word | meaning |
//! |---|---|
//! | provider, sender | the service that posts webhooks; the peer that a request comes from |
//! | recipe | one provider's signature scheme and event fields, as data (`config/providers/`) |
//! | source | one configured endpoint: a recipe plus the operator's secrets, topic and limits |
//! | delivery | one HTTP request, not yet verified |
//! | event | a verified delivery; identified by its key, ordered by its sequence |
//! | duplicate | a delivery whose key is already stored or pending |
//! | challenge | a provider's check that the endpoint is alive; answered, never an event |
//! | segment, frame, commit | a file of the journal, one event in it, the events that share one sync |
//! | durable watermark | the first sequence that is not yet on disk; readers never pass it |
//! | cursor | per topic, the first sequence that Kafka has not acknowledged |
//! | topic queue | the events of one topic between journal and broker |
//!
//! Data flows through the rooms in one direction. `tests/fences.rs` holds the arrows between them and checks that no import
//! runs in a circle.

pub mod service;

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
pub mod header_field;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod outcome;
pub mod rejections;
pub mod secret;
pub mod toml_value;
pub mod units;
