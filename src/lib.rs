//! hookhold is a webhook gateway that writes each event to disk before it answers the delivery with 2xx.
//!
//! A provider (Stripe, GitHub, Slack, …) posts a *delivery*. hookhold verifies the signature, drops duplicates, writes the
//! event to a local journal, answers with 2xx, and forwards the exact bytes to a Kafka topic. While Kafka is down, hookhold
//! still answers with 2xx until the stored events reach a size limit of the journal.
//!
//! ```text
//!              Delivery           Event             Position
//! provider ─► server ────────► gateway ────────► journal ────────► forward ─► Kafka
//!             HTTP, limits      verify · dedupe    append (fsync)    topic queues
//! provider ◄─ answer   ◄─ Outcome ◄────────────────┘                  │ acknowledged by Kafka
//!                                                                     └─► cursor of the topic
//! ```
//!
//! # The path of one delivery
//!
//! 1. [`server`] accepts the connection and finds the [`source::Source`] for the path of the request. Before reading the
//!    body, [`server`] rejects a request with an unknown path, a wrong method, no signature or a `Content-Length` above the
//!    limit. [`server`] then reads the body, which must stay within limits, and creates an [`event::Delivery`].
//! 2. [`gateway`] calls [`verify`], which checks the delivery against the source's recipe: first the signature, then the
//!    timestamp. [`verify`] creates an [`event::Event`] only from a verified delivery, and no other room turns a delivery into
//!    an event.
//! 3. [`gateway`] deduplicates the event. If an event with the same key is already on disk, [`gateway`] answers the duplicate
//!    at once. If the original event is not yet on disk, the duplicate waits for the commit of the original event.
//! 4. [`journal`] appends the event to the next commit and calls `fdatasync`. Once the sync has succeeded, [`journal`]
//!    returns the event's [`event::Position`].
//! 5. [`server`] sends the [`answer::Answer`]. [`server`] derives the status code, the metric label and the log field from
//!    one [`outcome::Outcome`]. [`rejections`] samples rejected deliveries, and a thread of [`service`] writes them to disk for
//!    `hookhold doctor`.
//! 6. [`forward`] reads the events below the durable watermark and sends them to Kafka unchanged. Only an acknowledgement from
//!    the broker moves the cursor of a topic.
//!
//! [`service`] assembles these rooms into a running gateway and reloads its configuration. [`admin`] serves metrics, probes
//! and the operator's API on a second listener. [`config`] turns `hookhold.toml` into a checked configuration.
//!
//! # Guarantees
//!
//! Each guarantee has a test.
//!
//! - **A 2xx means verified and on disk.** hookhold sends a 2xx only after the sync of the commit that contains the event. The
//!   exceptions are endpoint challenges, filtered event types, and sources with `danger_shadow`.
//! - **Stored once.** If a duplicate arrives within the dedupe window, hookhold sends a 2xx and neither stores nor forwards
//!   the duplicate, even after a restart. hookhold stores a key only together with its event, and never treats different
//!   events as duplicates.
//! - **Always forwarded.** Only an acknowledgement from the broker moves a cursor. A blocked topic does not delay other
//!   topics.
//! - **Byte-exact.** The value of a Kafka record is exactly the body that the provider sent.
//! - **Never silent.** Every request ends in exactly one [`outcome::Outcome`].
//! - **Bounded.** Every limit has a name, a default and a test. Most limits are defined in [`limits`].
//!
//! The sender receives one of these status codes:
//!
//! | status | meaning |
//! |---|---|
//! | 2xx | the event is stored, its type is filtered by `types`, or the request is an endpoint challenge |
//! | 401, 404, 405, 413 | hookhold rejected the delivery, and would reject the same delivery again |
//! | 400, 408, 414, 431 | the HTTP request is malformed, incomplete or too large, and nothing was stored |
//! | 429 | the request exceeds a limit of the source or of the sender's address; the sender should retry later |
//! | 503 | hookhold cannot confirm now that the event is stored; the sender should retry later. If the event was stored, the retry is a duplicate |
//!
//! # Vocabulary
//!
//! | word | meaning |
//! |---|---|
//! | provider | service that posts webhooks |
//! | sender | peer that sends a request |
//! | recipe | description of a provider's signature scheme and event fields (`config/providers/`, and files in `[providers] dir`) |
//! | source | configured endpoint: a recipe with the operator's secrets, topic and limits |
//! | delivery | HTTP request that is not yet verified |
//! | event | verified delivery, with a key for deduplication and a sequence for its order |
//! | duplicate | delivery with the same key as an event that is stored or waits for its commit |
//! | challenge | request by which a provider checks the endpoint; hookhold answers it and never stores it |
//! | segment | file of the journal that contains events |
//! | frame | record in a segment, usually an event |
//! | commit | group of events that share one sync |
//! | durable watermark | first sequence that is not yet on disk; readers never pass it |
//! | cursor | sequence below which Kafka has acknowledged every event of a topic |
//! | topic queue | queue of a topic's events between the journal and the broker |
//! | room | top-level module of this crate with one responsibility, such as [`journal`] |
//!
//! Data flows through the rooms in one direction. `tests/fences.rs` checks the imports between rooms and rejects circular
//! imports.

pub mod service;

// The rooms on the path of a delivery, in order, and then `admin`.
pub mod server;

pub mod gateway;

pub mod verify;

pub mod source;

pub mod journal;

pub mod forward;

pub mod admin;

// Modules that every room may import. The exception is `config`, which only `service` imports.
pub mod address;
pub mod answer;
pub mod build_info;
pub mod certificate;
pub mod client_certificate;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod diagnostic;
pub mod event;
pub mod event_key;
pub mod fingerprint;
pub mod header_field;
pub mod in_flight;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod outcome;
pub mod reference;
pub mod rejections;
pub mod secret;
pub mod sender_standing;
pub mod toml_value;
pub mod units;
pub mod work_turns;
